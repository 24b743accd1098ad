"""Workers in processes of this machine. They end when this process ends, however it ends."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from typing import Any

from supir.errors import DeviceLostError
from supir.pool.workers import Answer, Done, Event, Failed, OnReport, Opening, Stopped, Told, answer_to, check_count


class Processes:
    """Processes of this machine, each with its share of the threads; see `supir.pool.workers.Runner`.

    Args:
        num_workers: how many; at least 1.
        num_threads: of each; None divides those that a run may use.

    Raises:
        OptionError: ``num_workers`` is below 1.
    """

    device: str | None = None
    shared_folders = True

    def __init__(self, num_workers: int, num_threads: int | None = None) -> None:
        self.num_workers = check_count(num_workers)
        self._num_threads = num_threads or max(1, all_threads() // num_workers)

    def start(self, opening: Opening[Any, Any], place: int) -> Process:
        """As `Runner.start`."""
        return Process(opening, place, self._num_threads)

    def wait(self, workers: Sequence[Process], on_report: OnReport[Process]) -> list[tuple[Process, Answer]]:
        """As `Runner.wait`."""
        by_pipe = {worker.pipe: worker for worker in workers}
        answers: list[tuple[Process, Answer]] = []
        for pipe in connection.wait(list(by_pipe)):
            worker = by_pipe[pipe]  # type: ignore[index]  # a list of pipes comes back as it went in
            try:
                said = worker.pipe.recv()
            except (EOFError, OSError):  # it is gone, perhaps in the middle of a word
                said = Event.DIED
            if isinstance(said, Told):
                on_report(worker, said.what)
            else:
                answers.append((worker, said))
        return answers

    def close(self) -> None:
        """Nothing to end: the workers are ended one by one."""


class Process:
    """A worker in a process of its own."""

    def __init__(self, opening: Opening[Any, Any], place: int, num_threads: int) -> None:
        # Spawned, not forked: this process may have threads, and a forked copy of a held lock is held for ever.
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, place, num_threads), daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe ends with the worker
        self.give(opening)  # by the pipe: what it imports is imported when the number of threads is known

    def give(self, task: Any) -> None:
        """As `Worker.give`."""
        with suppress(OSError):  # if it died while it had nothing to do, the end of the pipe tells
            self.pipe.send(task)

    def stop(self) -> None:
        """Ask it to leave the task it has when it next reports; it answers, and is ready again.

        May be called from another thread than the one that waits, but not while a task is given.
        """
        self.give(Event.STOP)

    def kill(self) -> None:
        """Let it die at once: whoever waits for it hears of that."""
        self._process.kill()

    def end(self) -> None:
        """As `Worker.end`."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(pipe: connection.Connection, place: int, num_threads: int) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the first one decides
    limit_threads(num_threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(what: Any) -> None:
        pipe.send(Told(what))
        if pipe.poll():  # nothing but a request to stop comes in the middle of a task; it is read at its end
            raise Stopped("stopped on request")

    with suppress(DeviceLostError):  # a fresh process can use the device again, and takes the task over
        begun = answer_to(lambda: pipe.recv()(place))
        if isinstance(begun, Failed):
            pipe.send(begun)
            return
        pipe.send(Done(None))
        while True:
            said = answer_to(pipe.recv)
            if isinstance(said, Failed):  # it is not understood
                pipe.send(said)
            elif said.result is not Event.STOP:  # which has been heard, or came when the task was done
                pipe.send(answer_to(functools.partial(begun.result, said.result, report)))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)  # a killed parent cannot ask; a worker that waits for its next task would wait for ever


def limit_threads(num_threads: int = 1) -> None:
    """So many threads for each library, in a worker: the workers share the cores. Best before they are imported."""
    for name in ("VIPS_CONCURRENCY", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(num_threads)
    if "torch" in sys.modules:  # as where the script that began the workers imports it
        sys.modules["torch"].set_num_threads(num_threads)


def all_threads() -> int:
    """The threads that a run may use in all: what OMP_NUM_THREADS says, or the cores that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

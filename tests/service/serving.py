"""`supir serve` as a process of its own, pictures to send, and what the library makes of them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

import supir
from supir import image
from supir.caption.words import record_of_words
from supir.client import Client

QUICK: dict[str, Any] = {"num_steps": 3, "min_size": 64, "scale": 1.0, "text_guidance": 1.0}
LONG = {**QUICK, "num_steps": 1000}
"""More than any test waits for."""


def picture(seed: int = 0, width: int = 48, height: int = 32, kind: str = "PNG") -> bytes:
    values = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


_PLAIN = Path(__file__).parents[1] / "plain_install"
_PATH = [str(_PLAIN), str(Path(supir.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
_HIDDEN = {"HIDDEN_PACKAGES": "bitsandbytes torchao scipy"}
"""A service does not need them, and takes half as long again to start where they are."""


class Server:
    """One that can be killed and started again with the same data."""

    command: tuple[str, ...] = ("serve",)
    only_json = True
    """Whether nothing else may stand in its log."""

    def __init__(self, folder: Path, model: Path, *flags: object) -> None:
        self.folder, self.model, self.flags = folder, model, list(map(str, flags))
        self.data = folder / "data"
        self.start()

    def start(self, *more: object) -> None:
        line = [sys.executable, "-m", "supir.cli", *self.command, "--model", self.model, "--data", self.data]
        line += ["--device", "cpu", "--port", "0", *self.flags, *more]  # a later --port wins
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, line)),
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **_HIDDEN, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(_PATH)},
            )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().decode().strip()
        self.url = self.address.partition("#")[0].rstrip("/")
        assert self.url.startswith("http://"), (self.folder / "log").read_text()

    def client(self, key: str | None = None) -> Client:
        return Client(self.url, key)

    def kill(self) -> None:
        """As a power cut would: nothing is tidied up."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> int:
        """As a supervisor does; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What the log says of something, over all processes."""
        written = (self.folder / "log").read_text().splitlines()
        found = [json.loads(line) for line in written if self.only_json or line.startswith("{")]
        return [line for line in found if line["event"] == event]

    def times_done(self, job: str) -> int:
        return sum(line["job"] == job and line["state"] == "done" for line in self.lines("job ended"))


def until(true: Any, seconds: float = 120.0) -> None:
    """Wait for something that will be so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def restored(pipeline: Any, data: bytes, folder: Path, suffix: str = ".png", **options: Any) -> bytes:
    """The file that the library makes, with the record of a batch."""
    (folder / "source").write_bytes(data)
    [made] = pipeline(folder / "source", pipeline.options(**options))
    origin = {"source_sha256": hashlib.sha256(data).hexdigest()}
    record = made.record | origin | record_of_words(options.get("prompt", ""), None)
    image.write(made.picture, folder / f"result{suffix}", record=record)
    return (folder / f"result{suffix}").read_bytes()

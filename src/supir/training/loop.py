"""One training loop for every stage, on accelerate: averages, exact continuation, sample sheets.

All chance of sample n comes from ``(seed, n)``, and samples are numbered over processes and passes: two processes with
a batch of b learn what one with 2 b learns, and a run that was killed continues to the very bits it would have had.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from supir.errors import StateError
from supir.training import states as checkpoint
from supir.training.optimiser import make_optimiser, set_rate
from supir.training.recipes import StageOptions
from supir.training.run_logger import Journal, Means, Value
from supir.training.sharding import first_says, gathered, make_accelerator, prepared, resharded, spread
from supir.training.states import State

Generator = np.random.Generator


def sample_batches(
    draw: Callable[[Generator, int], Any], seed: int, first: int, batch: int, rank: int, world: int, workers: int = 0
) -> Iterator[list[Any]]:
    """Lists of samples of one process, from pass ``first`` on, without end: sample n is drawn from ``(seed, n)`` and n.

    Pass p of process r holds the samples (p * world + r) * batch to that plus batch - 1.
    """
    loader: DataLoader[Any] = DataLoader(
        _Samples(draw, seed),  # type: ignore[arg-type]
        batch_sampler=(list(range(place * batch, (place + 1) * batch)) for place in count(first * world + rank, world)),
        collate_fn=list,
        num_workers=workers,
        # Not forked: libvips and OpenCV have threads that a forked process would wait for.
        multiprocessing_context="spawn" if workers else None,
        generator=torch.Generator(),
    )
    yield from loader


@dataclass(frozen=True)
class _Samples:
    draw: Callable[[Generator, int], Any]
    seed: int

    def __getitem__(self, number: int) -> Any:
        return self.draw(np.random.default_rng((self.seed, number)), number)


logger = logging.getLogger(__name__)


@dataclass
class Stage:
    """What differs between stages."""

    name: str
    modules: Mapping[str, nn.Module]
    """Everything that learns, by component name; saved and averaged under these names."""
    loss: Callable[[Any, float], tuple[Tensor, Mapping[str, Value]]]
    """(samples, progress in [0, 1]) to (mean loss, values to log); the samples are what ``draw`` gave. Without ``draw``
    it gets a generator for the whole batch, and torch's own generator is seeded for it. Values are best left on the
    device, detached: they are waited for when they are logged, and not in every step."""
    sheet: Callable[[Path | None], dict[str, float]] | None = None
    """Writes a sample sheet with the averaged weights in place; returns held-out values. Every process computes, the
    first alone has a path to write to."""
    frozen: Callable[[str], bool] = field(default=lambda name: False)
    """True for parameters, named ``component.parameter``, that do not learn."""
    pace: Mapping[str, float] = field(default_factory=dict)
    """Learning rate over the run's, by component; 1 where none is named."""
    draw: Callable[[Generator, int], Any] | None = None
    """One sample from its own generator and its number in the run; may be called in another process, so it must pickle
    where there are workers."""
    batch: int = 1
    """Samples of one pass of one process, where there is ``draw``."""
    num_left_out: Callable[[], int] = field(default=lambda: 0)
    """How often an item of the data could not be used so far; logged where it was."""


def learning_rate(options: StageOptions, step: int) -> float:
    """Of a step: it rises over the warm-up; a cosine falls to a hundredth by the last step."""
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(step / options.steps, 1.0)))
    fall = cosine if options.schedule == "cosine" else 1.0
    return options.learning_rate * fall * min(1.0, (step + 1) / max(options.warmup_steps, 1))


class Learner(nn.Module):
    """A stage as one module, so that a pass through it is what accelerate sees: gradients meet, shards gather.

    Nothing else may run the networks: outside of a pass, a process holds its own shard of them.
    """

    def __init__(self, stage: Stage, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(stage.modules))
        self._autocast = autocast

    def forward(self, compute: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of the stage (its loss, its sheet) gives for its arguments."""
        with self._autocast():  # accelerate does so in one process and leaves it to FSDP's own way in several
            return compute(*arguments)


class Trainer:
    """Runs one stage in one folder; see ``train``.

    Args:
        stage: what learns.
        folder: of the run; made where it is missing.
        options: how long and how fast.
        accelerator: of the run; unset: one by the options.
        minutes: after which this call stops, to be continued.
        curves: write TensorBoard's files.
        log_steps: between two lines of the log.
    """

    def __init__(
        self,
        stage: Stage,
        folder: Path,
        options: StageOptions,
        accelerator: Accelerator | None = None,
        *,
        minutes: float | None = None,
        curves: bool = False,
        log_steps: int = 25,
    ) -> None:
        self.stage, self.folder, self.options = stage, folder, options
        self.minutes, self.log_steps = minutes, min(log_steps, options.steps)
        folder.mkdir(parents=True, exist_ok=True)
        self.accelerator = accelerator or make_accelerator(
            mixed_precision=options.mixed_precision, accumulation=options.accumulation
        )
        for name, parameter in self._named_parameters():
            parameter.requires_grad_(not stage.frozen(name))
        optimiser = make_optimiser(
            dict(self._named_parameters()), stage.pace, options.optimiser, options.learning_rate, options.weight_decay
        )
        learner = Learner(stage, self.accelerator.autocast)
        self.learner, self.optimiser = prepared(self.accelerator, learner, optimiser)
        self.learning = {name: p for name, p in self._named_parameters() if p.requires_grad}
        self.ema = {name: p.detach().clone() for name, p in self.learning.items()}
        self.journal = Journal(folder, stage.name, curves=curves, active=self.accelerator.is_main_process)
        self.step, self.seconds, self.skipped = 0, 0.0, 0
        self.best: float | None = None

    def _named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for component, module in self.stage.modules.items():
            for name, parameter in module.named_parameters():
                yield f"{component}.{name}", parameter

    def _named_buffers(self) -> dict[str, Tensor]:
        modules = self.stage.modules.items()
        kept = {f"{c}.{name}" for c, module in modules for name in module.state_dict(keep_vars=True)}
        named = {f"{c}.{name}": buffer for c, module in modules for name, buffer in module.named_buffers()}
        return {name: buffer for name, buffer in named.items() if name in kept}

    @property
    def progress(self) -> float:
        """The part of the run that is done, 0 to 1."""
        return self.step / self.options.steps

    def save(self) -> None:
        """Store the whole state (see ``supir.training.states``); all processes call it, the first writes.

        Raises:
            StateError: in every process, where the first could not write.
        """
        state = self._state()
        self._written(lambda: checkpoint.save(self.folder, state))

    def _written(self, write: Callable[[], Any]) -> None:
        """Let the first process write; whether it could is known to all, so that none goes on alone."""
        failed: StateError | None = None
        if self.accelerator.is_main_process:
            try:
                write()
            except StateError as error:
                failed = error
        if first_says(self.accelerator, failed is not None):
            raise failed or StateError("the first process could not write its state")

    def _state(self) -> State:
        scaler = self.accelerator.scaler
        numbers: dict[str, Any] = {"step": self.step, "seconds": self.seconds, "skipped": self.skipped}
        numbers |= {"best": self.best, "best_by": self.options.keep_best}
        return State(
            weights=gathered({name: p.detach() for name, p in self.learning.items()} | self._named_buffers()),
            ema=gathered(self.ema),
            optimiser=gathered(self.optimiser.state_dict()),
            numbers=numbers | ({} if scaler is None else {"scaler": scaler.state_dict()}),
        )

    def resume(self) -> bool:
        """Continue from the newest whole state, when there is one.

        Raises:
            StateError: there are states, but none that can be read; or it is one of other weights.
        """
        state = checkpoint.load_latest(self.folder)
        if state is None:
            return False
        if state.ema.keys() != self.ema.keys() or not state.weights.keys() >= self.learning.keys():
            raise StateError(f"{self.folder}: the state there is of other networks than this run's; use another folder")
        with torch.no_grad():
            for name, tensor in (self.learning | self._named_buffers()).items():
                tensor.copy_(spread(state.weights[name], tensor))
            for name, average in self.ema.items():
                average.copy_(spread(state.ema[name], average))
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        for index, moments in state.optimiser["state"].items():
            for name, value in moments.items():
                if isinstance(value, Tensor) and value.shape == parameters[index].shape:
                    moments[name] = spread(value, parameters[index])
        self.optimiser.load_state_dict(state.optimiser)
        numbers = state.numbers
        self.step, self.seconds, self.skipped = numbers["step"], numbers["seconds"], numbers.get("skipped", 0)
        self.best = numbers.get("best") if numbers.get("best_by") == self.options.keep_best else None
        if self.accelerator.scaler is not None and "scaler" in numbers:
            self.accelerator.scaler.load_state_dict(numbers["scaler"])
        logger.info("%s: continues at step %d, %.0f s", self.stage.name, self.step, self.seconds)
        return True

    def swap(self) -> None:
        """Exchange the current and the averaged weights (twice is the identity)."""
        with torch.no_grad():
            for name, parameter in self.learning.items():
                current = parameter.detach().clone()
                parameter.copy_(self.ema[name])
                self.ema[name].copy_(current)

    def batches(self) -> Iterator[Any]:
        """What the loss is given, pass after pass, from the current step on."""
        world, rank, seed = self.accelerator.num_processes, self.accelerator.process_index, self.options.seed
        first = self.step * self.options.accumulation
        if self.stage.draw is not None:
            yield from sample_batches(self.stage.draw, seed, first, self.stage.batch, rank, world, self.options.workers)
        while True:
            yield np.random.default_rng((seed, first, rank))
            first += 1

    def _one_step(self, batches: Iterator[Any]) -> dict[str, Value]:
        options, progress, values = self.options, self.progress, dict[str, Value]()
        for group in self.optimiser.param_groups:
            set_rate(group, group["pace"] * learning_rate(options, self.step))
        self.optimiser.zero_grad(set_to_none=True)
        for number in range(options.accumulation):
            if self.stage.draw is None:
                place = self.step * options.accumulation + number
                torch.manual_seed(options.seed * 1_000_003 + place + 7_777_777 * self.accelerator.process_index)
            samples = next(batches)
            last = number == options.accumulation - 1
            with nullcontext() if last else self.accelerator.no_sync(self.learner):
                loss, found = self.learner(self.stage.loss, samples, progress)
                self.accelerator.backward(loss)
            for name, value in found.items():
                values[name] = values.get(name, 0.0) + value / options.accumulation
        norm = gathered(self.accelerator.clip_grad_norm_(list(self.learning.values()), options.clip))
        finite = bool(torch.isfinite(norm))  # the one wait of a step: what follows depends on it
        if finite or self.accelerator.scaler is not None:  # a scaler of gradients skips by itself and learns from it
            self.optimiser.step()
        self.step += 1
        if finite:
            self._average()
        else:
            self.skipped += 1
            logger.warning("%s: step %d skipped, its gradient is not finite", self.stage.name, self.step)
        return values | {"norm": norm, "skipped": float(self.skipped)}

    def _average(self) -> None:
        decay = min(self.options.ema_decay, (1 + self.step) / (10 + self.step))
        names = list(self.learning)
        with torch.no_grad():
            torch._foreach_lerp_([self.ema[n] for n in names], [self.learning[n] for n in names], 1 - decay)

    def validate(self) -> dict[str, float]:
        """Write the sample sheet with the averaged weights and keep them when they are the best so far.

        All processes call it: where the networks lie in shards, none has them alone.
        """
        if self.stage.sheet is None:
            return {}
        path = self.folder / "sheets" / f"step_{self.step:08d}.png" if self.accelerator.is_main_process else None
        if path is not None:
            path.parent.mkdir(exist_ok=True)
        modes = [(module, module.training) for module in self.stage.modules.values()]
        self.swap()
        for module, _ in modes:
            module.eval()
        with torch.no_grad():
            values: dict[str, float] = self.learner(self.stage.sheet, path)
        resharded(self.learner)
        for module, mode in modes:
            module.train(mode)
        self.swap()
        self.journal.values(self.step, values, "held out")
        if path is not None:
            self.journal.sheet(self.step, path)
        self._keep_best(values)
        return values

    def _keep_best(self, values: Mapping[str, float]) -> None:
        wanted = next((each for each in self.options.measures_of_best if each.removeprefix("-") in values), None)
        if wanted is None:
            return
        name = wanted.removeprefix("-")
        score = values[name] if wanted == name else -values[name]
        better = math.isfinite(score) and (self.best is None or score > self.best)
        if not first_says(self.accelerator, better):  # the others' may differ in the last bit
            return
        state = State(
            weights={},
            ema=gathered(self.ema | self._named_buffers()),
            numbers={"step": self.step, name: values[name]},
        )
        try:
            self._written(lambda: checkpoint.save_best(self.folder, state))
            self.best = score
        except StateError as error:
            self._told(f"the best state before is kept: {error}")

    def train(self) -> bool:
        """Train to the end and leave the averaged weights in the modules.

        A state that cannot be written on the way is told and tried again when the next is due.

        Returns whether the end was reached; when the minutes ran out first, the run is stored and can be continued.

        Raises:
            StateError: the last state cannot be written; an earlier one is there to continue from.
        """
        options, means = self.options, Means()
        limit = math.inf if self.minutes is None else self.seconds + 60 * self.minutes
        batches = self.batches()
        while self.progress < 1 and self.seconds < limit:
            begun = time.perf_counter()
            means.add(self._one_step(batches))
            self.seconds += time.perf_counter() - begun
            self._set_clock()
            if self.step % self.log_steps == 0:
                left_out = self.stage.num_left_out()
                told = means.take() | ({"left out": float(left_out)} if left_out else {})
                self.journal.values(self.step, told | {"seconds": round(self.seconds, 1)})
            if self.step % options.validation_steps == 0 and self.progress < 1:
                self.validate()
            if self.step % options.checkpoint_steps == 0 and self.progress < 1:
                try:
                    self.save()
                except StateError as error:
                    self._told(f"the run goes on, and tries again in {options.checkpoint_steps} steps: {error}")
        finished = self.progress >= 1
        if finished:
            self.validate()
        self.save()
        self.journal.close()
        self.swap()
        return finished

    def _set_clock(self) -> None:
        """One clock for all processes, the first one's: where minutes count, they must stop and slow down together."""
        if self.minutes is not None:
            self.seconds = first_says(self.accelerator, round(self.seconds * 1e6)) / 1e6

    def _told(self, text: str) -> None:
        if self.accelerator.is_main_process:
            warnings.warn(text, stacklevel=2)

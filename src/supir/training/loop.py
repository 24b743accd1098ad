"""One training loop for every stage: time-budgeted schedule, EMA, exact resume, sample sheets.

All chance of a step comes from ``(seed, step)``, so a run that was killed continues as if it had not been: its state is
weights, EMA, optimiser moments, step and seconds trained, and no generator needs saving.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

Generator = np.random.Generator


@dataclass
class Stage:
    """What differs between stages."""

    name: str
    modules: Mapping[str, nn.Module]
    """Everything that learns, by component name; saved and averaged under these names."""
    loss: Callable[[Generator, float], tuple[Tensor, dict[str, float]]]
    """(chance of this step, progress in [0, 1]) to (loss, values to log)."""
    sheet: Callable[[Path], dict[str, float]] | None = None
    """Writes a sample sheet with the averaged weights in place; returns held-out values to log."""
    frozen: Callable[[str], bool] = field(default=lambda name: False)
    """True for parameters, named ``component.parameter``, that do not learn."""
    pace: Mapping[str, float] = field(default_factory=dict)
    """Learning rate over the budget's, by component; 1 where none is named."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long and how fast."""

    minutes: float
    """Training time in all, over restarts; the learning rate falls to a hundredth along a cosine by its end."""
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    checkpoint_seconds: float = 180.0
    sheet_seconds: float = 360.0
    log_steps: int = 50


class Trainer:
    """Runs one stage in one folder; see ``train``."""

    def __init__(self, stage: Stage, folder: Path, budget: Budget) -> None:
        self.stage, self.folder, self.budget = stage, folder, budget
        folder.mkdir(parents=True, exist_ok=True)
        named = {f"{c}.{n}": p for c, m in stage.modules.items() for n, p in m.named_parameters()}
        self.learning = {name: p for name, p in named.items() if not stage.frozen(name)}
        for name, parameter in named.items():
            parameter.requires_grad_(name in self.learning)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.learning.items():
            pace = stage.pace.get(name.split(".")[0], 1.0)
            decay = budget.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((pace, decay), []).append(parameter)
        self.optimiser = torch.optim.AdamW(
            [{"params": found, "pace": pace, "weight_decay": decay} for (pace, decay), found in groups.items()],
            lr=budget.learning_rate,
            betas=(0.9, 0.99),
        )
        self.ema = {name: p.detach().clone() for name, p in self.learning.items()}
        self.step, self.seconds = 0, 0.0

    def save(self) -> None:
        """The whole state, complete or not at all (temporary name, then rename)."""
        state = {
            "modules": {c: m.state_dict() for c, m in self.stage.modules.items()},
            "ema": self.ema,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, self.folder / "state.new")
        (self.folder / "state.new").replace(self.folder / "state.pt")

    def resume(self) -> bool:
        """Continue from ``state.pt`` when it is there."""
        path = self.folder / "state.pt"
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        for component, module in self.stage.modules.items():
            module.load_state_dict(state["modules"][component])
        self.ema = state["ema"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        logger.info("%s: continues at step %d, %.0f s", self.stage.name, self.step, self.seconds)
        return True

    def swap(self) -> None:
        """Exchange the current and the averaged weights (twice is the identity)."""
        with torch.no_grad():
            for name, parameter in self.learning.items():
                current = parameter.detach().clone()
                parameter.copy_(self.ema[name])
                self.ema[name].copy_(current)

    def _one_step(self, progress: float) -> dict[str, float]:
        budget = self.budget
        rate = budget.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
        for group in self.optimiser.param_groups:
            group["lr"] = group["pace"] * rate * min(1.0, (self.step + 1) / budget.warmup_steps)
        torch.manual_seed(budget.seed * 1_000_003 + self.step)
        loss, values = self.stage.loss(np.random.default_rng((budget.seed, self.step)), progress)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(list(self.learning.values()), budget.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        decay = min(budget.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            names = list(self.learning)
            torch._foreach_lerp_([self.ema[n] for n in names], [self.learning[n] for n in names], 1 - decay)
        return values | {"norm": float(norm)}

    def _write_sheet(self) -> None:
        if self.stage.sheet is None:
            return
        self.swap()
        for module in self.stage.modules.values():
            module.eval()
        with torch.no_grad():
            values = self.stage.sheet(self.folder / f"sheet_{self.step:06d}.png")
        for module in self.stage.modules.values():
            module.train()
        self.swap()
        logger.info("%s: held out at %d: %s", self.stage.name, self.step, _format(values))

    def train(self) -> None:
        """Train until the budget is spent; leaves the averaged weights in the modules."""
        budget, total = self.budget, 60 * self.budget.minutes
        sums: dict[str, float] = {}
        saved = drawn = self.seconds
        while self.seconds < total:
            begun = time.perf_counter()
            for name, value in self._one_step(self.seconds / total).items():
                sums[name] = sums.get(name, 0.0) + value
            self.seconds += time.perf_counter() - begun
            if self.step % budget.log_steps == 0:
                means = {name: value / budget.log_steps for name, value in sums.items()}
                logger.info("%s: step %d, %.0f s: %s", self.stage.name, self.step, self.seconds, _format(means))
                with (self.folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps({"step": self.step, "seconds": round(self.seconds), **means}) + "\n")
                sums = {}
            if self.seconds - saved > budget.checkpoint_seconds:
                self.save()
                saved = self.seconds
            if self.seconds - drawn > budget.sheet_seconds:
                self._write_sheet()
                drawn = self.seconds
        self.save()
        self._write_sheet()
        self.swap()


def _format(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def arguments(description: str | None, minutes: float) -> argparse.ArgumentParser:
    """The options that every stage has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing state is continued")
    parser.add_argument("--tiles", type=Path, required=True, help="folder made by supir.data.debian_photos")
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def prepare(threads: int) -> None:
    """Logging and threads of a stage run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(threads)

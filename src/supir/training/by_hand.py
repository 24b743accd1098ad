"""What the stages that are run as modules share: their options, and training with them.

These made the bundled model; the named runs (``supir train``) are elsewhere.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import cv2
import torch

from supir.training.loop import Budget, Stage, Trainer
from supir.training.sharding import make_accelerator


def arguments(description: str | None, minutes: float) -> argparse.ArgumentParser:
    """The options of a stage that is run as a module."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing state is continued")
    parser.add_argument("--tiles", type=Path, required=True, help="folder made by supir.data.debian_photos")
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--steps", type=int, help="length of the run; unset: as far as the minutes go")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mixed-precision", default="no", choices=("no", "bf16"), help="bf16: twice as fast with AMX")
    return parser


def prepare(threads: int) -> None:
    """Logging and threads of a module run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)


def run(stage: Stage, options: argparse.Namespace, *, learning_rate: float, log_steps: int = 25,
        weight_decay: float = 0.0) -> None:  # fmt: skip
    """Train on, or go on, as the options of ``arguments`` say; the averaged weights are left in the modules."""
    budget = Budget(
        steps=options.steps,
        minutes=options.minutes,
        learning_rate=learning_rate,
        log_steps=log_steps,
        weight_decay=weight_decay,
        mixed_precision=options.mixed_precision,
    )
    # What these stages compute with beside their networks lies on the processor, so they run there.
    trainer = Trainer(stage, options.out, budget, make_accelerator(mixed_precision=options.mixed_precision, cpu=True))
    trainer.resume()
    trainer.train()

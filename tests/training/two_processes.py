"""A toy stage learned by several processes, as `torchrun` starts them: what each found goes into a file of its own.

two_processes.py FOLDER
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

STEPS, BATCH = 6, 4


class ResnetBlock2D(nn.Module):
    """Of a name that is sharded by itself, as those of the real networks are."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x).tanh()


def toy_stage(batch: int):  # type: ignore[no-untyped-def]
    """Two layers, one of them in a block; part of the parameters do not learn, and validation looks at all of them."""
    from supir.training.loop import Stage

    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(3, 6), ResnetBlock2D(), nn.Linear(6, 1))

    def draw(rng: np.random.Generator, number: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(3, dtype=np.float32))

    def loss(samples: list[Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        x = torch.stack(samples)
        error = (model(x) - x.prod(1, keepdim=True)).square().mean()
        return error, {"mse": error.detach()}

    def sheet(path: Path | None) -> dict[str, float]:
        if path is not None:
            path.touch()
        return {"score": -float((model(torch.ones(2, 3)) - 1).square().mean())}

    frozen = lambda name: name == "net.2.bias"  # noqa: E731
    return Stage("toy", {"net": model}, loss, sheet, frozen=frozen, draw=draw, batch=batch)


def learn(folder: Path, what: str) -> None:
    """One run: ``steps`` stops by its minutes, ``shards`` has all of FSDP."""
    from accelerate.state import AcceleratorState

    from supir.training.loop import Trainer
    from supir.training.recipes import StageOptions
    from supir.training.sharding import gathered

    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_USE_FSDP"] = str(what == "shards").lower()
    usual = {"warmup_steps": 2, "learning_rate": 0.02, "ema_decay": 0.5, "keep_best": "score"}
    if what == "shards":
        options = StageOptions(steps=STEPS, validation_steps=2, checkpoint_steps=2, accumulation=2, **usual)
    else:
        options = StageOptions(steps=10**6, validation_steps=3, checkpoint_steps=4, **usual)
    folder.mkdir(exist_ok=True)
    trainer = Trainer(toy_stage(BATCH // 2), folder, options, minutes=None if what == "shards" else 0.01, log_steps=2)
    finished = trainer.train()
    ends = {name: gathered(tensor).flatten().tolist() for name, tensor in trainer.ema.items()}
    kinds = sorted({type(tensor).__name__ for tensor in trainer.ema.values()})
    found = {"finished": finished, "step": trainer.step, "ends": ends, "kinds": kinds}
    (folder / f"rank{trainer.accelerator.process_index}.json").write_text(json.dumps(found))


def main() -> None:
    torch.set_num_threads(1)
    # Each look at the clock takes a twentieth of a second; the second process believes that more time has passed.
    ticks, rank = itertools.count(), int(os.environ["RANK"])
    time.perf_counter = lambda: next(ticks) * 0.05 * (1 + 4 * rank)
    for what in ("steps", "shards"):
        learn(Path(sys.argv[1]) / what, what)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

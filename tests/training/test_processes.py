"""Two processes learn what one with the double batch learns, and hold the same weights to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from supir.training.checkpoint import load_latest
from supir.training.recipes import named_run
from supir.training.runs import Request, open_run
from supir.training.sharding import WRAPPED, fsdp_plugin
from supir.training.sizes import build_size

RUN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from supir.training.recipes import named_run
from supir.training.runs import Request, open_run

folder, data, batch = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
options = named_run("smoke/adaptor", batch=batch, steps=3, accumulation=2, validation_steps=3, seed=4)
run = open_run(Request(options=options, data=(data,), out=folder), curves=False)
run.trainer.train()
accelerator = run.trainer.accelerator
weights = {name: parameter.detach() for name, parameter in run.trainer.ema.items()}
torch.save(weights, folder / f"rank{accelerator.process_index}_of_{accelerator.num_processes}.pt")
accelerator.end_training()
"""


def test_two_processes_are_one_of_twice_the_batch(photographs: Path, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    commands = {"one": [str(script), str(tmp_path / "one"), str(photographs), "4"]}
    commands["two"] = [*launch, str(tmp_path / "two"), str(photographs), "2"]
    for command in commands.values():
        done = subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / "two" / f"rank{rank}_of_2.pt", weights_only=True) for rank in (0, 1))
    alone = torch.load(tmp_path / "one" / "rank0_of_1.pt", weights_only=True)
    begin = {f"{c}.{n}": p for c, m in build_size("smoke", seed=4).items() for n, p in m.named_parameters()}
    moved, apart = 0.0, []
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
        apart.append((tensor - alone[name]).abs().flatten())
        moved = max(moved, float((tensor - begin[name].detach()).abs().max()))
    assert moved > 5e-4  # else the comparison would say nothing
    # Adam divides by the gradient's size: where it is all rounding, so is a step. Such places are few.
    differences = torch.cat(apart)
    assert float(differences.max()) < 2e-4
    assert float(differences.mean()) < 1e-7
    ends = [load_latest(tmp_path / name) for name in ("one", "two")]
    assert ends[0].numbers["step"] == ends[1].numbers["step"] == 3


def test_the_plugin_wraps_classes_of_our_networks() -> None:
    plugin = fsdp_plugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.transformer_cls_names_to_wrap == list(WRAPPED)
    networks = build_size("smoke", meta=True)
    found = {type(module).__name__ for network in networks.values() for module in network.modules()}
    assert set(WRAPPED) <= found
    for name in ("unet", "adaptor"):
        inside = {
            parameter
            for module in networks[name].modules()
            if type(module).__name__ in WRAPPED
            for parameter in module.parameters()
        }
        share = sum(p.numel() for p in inside) / sum(p.numel() for p in networks[name].parameters())
        assert share > 0.5, name


SHARDED = """
import sys
from pathlib import Path
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from supir.training import runs
from supir.training.recipes import named_run
from supir.training.sharding import WRAPPED, make_accelerator

torch.set_num_threads(1)

def sharding_accelerator(**options):
    accelerator = make_accelerator(**options)
    mesh = init_device_mesh("cpu", (accelerator.num_processes,))

    def prepare(learner, optimiser):
        names = {id(parameter): name for name, parameter in learner.named_parameters()}
        for module in [m for m in learner.modules() if type(m).__name__ in WRAPPED] + [learner]:
            fully_shard(module, mesh=mesh)
        shards = dict(learner.named_parameters())
        for group in optimiser.param_groups:
            group["params"] = [shards[names[id(parameter)]] for parameter in group["params"]]
        return learner, optimiser

    def clip(parameters, longest):
        return torch.nn.utils.clip_grad_norm_(parameters, longest).full_tensor()

    accelerator.prepare, accelerator.clip_grad_norm_ = prepare, clip
    return accelerator

runs.make_accelerator = sharding_accelerator
options = named_run("smoke/adaptor", batch=2, steps=3, validation_steps=3, accumulation=1, seed=4)
run = runs.open_run(runs.Request(options=options, data=(Path(sys.argv[2]),), out=Path(sys.argv[1])), curves=False)
assert type(next(iter(run.trainer.ema.values()))).__name__ == "DTensor"
batches = run.trainer.batches()
for _ in range(int(sys.argv[3])):
    run.trainer._one_step(batches)
run.trainer.save()
run.trainer.accelerator.end_training()
"""


@pytest.mark.slow
def test_sharded_parameters_learn_and_continue_the_same(photographs: Path, tmp_path: Path) -> None:
    """FSDP2 of torch itself, as accelerate has none on processors: shards learn, are stored whole, and continue."""
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for folder, steps in (("whole", 3), ("parts", 2), ("parts", 1)):
        command = [*launch, str(tmp_path / folder), str(photographs), str(steps)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    whole, parts = (load_latest(tmp_path / folder) for folder in ("whole", "parts"))
    assert whole.numbers["step"] == parts.numbers["step"] == 3
    assert all(torch.equal(tensor, parts.weights[name]) for name, tensor in whole.weights.items())
    assert all(torch.equal(tensor, parts.ema[name]) for name, tensor in whole.ema.items())

    options = named_run("smoke/adaptor", batch=4, steps=3, validation_steps=100, seed=4)
    alone = open_run(Request(options=options, data=(photographs,), out=tmp_path / "alone"), curves=False).trainer
    batches = alone.batches()
    for _ in range(3):
        alone._one_step(batches)
    apart = torch.cat([(alone.ema[name] - tensor).abs().flatten() for name, tensor in whole.ema.items()])
    assert float(apart.max()) < 2e-4
    assert float(apart.mean()) < 1e-7

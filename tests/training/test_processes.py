"""Two processes learn what one with the double batch learns, and hold the same weights to the bit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import two_processes
from launched import ran
from smoke_runs import needed

from supir.pipeline import SupirPipeline
from supir.training.loop import Trainer
from supir.training.recipes import StageOptions, named_run
from supir.training.runs import Request, open_run
from supir.training.sharding import WRAPPED, fsdp_plugin
from supir.training.sizes import build_size
from supir.training.states import load_averages, load_latest

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


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.slow
def test_two_processes_are_one_of_twice_the_batch(photographs: Path, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    ran(script, tmp_path / "one", photographs, 4)
    ran(*TWO, script, tmp_path / "two", photographs, 2)
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


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the two processes of ``two_processes.py`` left."""
    folder = tmp_path_factory.mktemp("launched")
    ran(*TWO, Path(__file__).with_name("two_processes.py"), folder)
    return folder


def found_by(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_minutes_end_all_processes_in_the_same_step(launched: Path) -> None:
    """Their clocks run at different speeds."""
    first, second = found_by(launched / "steps")
    assert first == second
    assert first["finished"] is False
    state = load_latest(launched / "steps")
    assert state is not None
    assert state.numbers["step"] == first["step"] > 0
    assert state.numbers["seconds"] >= 0.6  # 0.01 minutes of the first process's clock


@pytest.mark.slow
def test_shards_go_through_the_whole_of_training(launched: Path, tmp_path: Path) -> None:
    """accelerate's own FSDP, validation and the best state included, ends with what one process ends with."""
    first, second = found_by(launched / "shards")
    assert first == second
    assert first["kinds"] == ["DTensor"]
    options = StageOptions(
        steps=two_processes.STEPS,
        validation_steps=100,  # it must change nothing
        accumulation=2,
        warmup_steps=2,
        learning_rate=0.02,
        ema_decay=0.5,
        keep_best="",
    )
    alone = Trainer(two_processes.toy_stage(two_processes.BATCH), tmp_path, options)
    alone.train()
    state, best = load_latest(launched / "shards"), load_averages(launched / "shards", best=True)
    assert state is not None
    assert best is not None
    assert state.ema.keys() == best.ema.keys() == alone.ema.keys()
    assert "net.2.bias" not in state.ema
    for name, tensor in load_latest(tmp_path).ema.items():
        torch.testing.assert_close(state.ema[name], tensor, rtol=1e-4, atol=1e-5)
    assert len(list((launched / "shards" / "sheets").iterdir())) == two_processes.STEPS / 2


def test_the_plugin_wraps_classes_of_our_networks() -> None:
    plugin = fsdp_plugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.transformer_cls_names_to_wrap == list(WRAPPED)
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "False"  # no process is left with empty text towers
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


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["autoencoder", "prior", "encoder", "adaptor", "generator", "lora"])
def test_the_documented_command_shards_every_stage(photographs: Path, tmp_path: Path, stage: str) -> None:
    """`accelerate launch --use_fsdp` as users type it: with the paper's arithmetic, through validation, to a model."""
    out = tmp_path / "run"
    command = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--use_fsdp"]
    command += ["-m", "supir.cli", "train", f"smoke/{stage}", "--data", str(photographs), "--out", str(out)]
    settings = ["steps=2", "validation_steps=1", "mixed_precision=bf16", "frozen_dtype=bfloat16"]
    if stage == "generator":
        weights = needed(tmp_path)["generator"]["perceptual"]
        settings += ["frozen_prior=true", "adversarial_share=0.5", "negative_share=0.5", f"perceptual={weights}"]
    if stage in ("adaptor", "lora"):
        settings += ["gradient_checkpointing=true", "accumulation=2"]
    command += ["--threads", "1", *(word for setting in settings for word in ("--set", setting))]
    assert ran(*command).count(f"wrote {out / 'model'}") == 1
    assert {path.name for path in (out / "sheets").iterdir()} == {"step_00000001.png", "step_00000002.png"}
    assert SupirPipeline.from_pretrained(out / "model").unet is not None
    assert load_averages(out, best=True) is not None


SHARDED = """
import os, sys
from pathlib import Path
import torch
os.environ["ACCELERATE_USE_FSDP"] = "true"
from supir.training import runs
from supir.training.recipes import named_run

torch.set_num_threads(1)
options = named_run("smoke/adaptor", batch=2, steps=3, validation_steps=2, accumulation=1, seed=4)
run = runs.open_run(runs.Request(options=options, data=(Path(sys.argv[2]),), out=Path(sys.argv[1])), curves=False)
assert type(next(iter(run.trainer.ema.values()))).__name__ == "DTensor"
if sys.argv[3] == "stop":
    batches = run.trainer.batches()
    for _ in range(2):
        run.trainer._one_step(batches)
    run.trainer.validate()
    run.trainer.save()
else:
    run.train()
run.trainer.accelerator.end_training()
"""


@pytest.mark.slow
def test_sharded_parameters_learn_and_continue_the_same(photographs: Path, tmp_path: Path) -> None:
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    for folder, how in (("whole", "go"), ("parts", "stop"), ("parts", "go")):
        ran(*TWO, script, tmp_path / folder, photographs, how)
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

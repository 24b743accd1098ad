"""A run killed at any moment, also while it is saving, continues to the bits of an uninterrupted one."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from supir.errors import StateError
from supir.training import states as checkpoint
from supir.training.states import State, load_latest, save, save_best, stored

RUN = """
import os, signal, sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from supir.errors import StateError
from supir.files import whole
from supir.training.loop import Stage, Trainer
from supir.training.recipes import StageOptions

folder, pace, die_at = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
flushes = 0
flush = whole.flush

def dying_flush(path):
    global flushes
    flushes += path.name == "optimiser.pt"
    if flushes and flushes == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(path)

whole.flush = dying_flush
torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1))

def draw(rng, number):
    return torch.from_numpy(rng.standard_normal((3, 8, 8), dtype=np.float32))

def loss(samples, progress):
    import time
    time.sleep(pace)
    x = torch.stack(samples)
    return (model(x) - x.flip(1)).square().mean(), {}

def sheet(path):
    return {"score": float(model[0].weight.sum())}

stage = Stage("kill", {"net": model}, loss, sheet, draw=draw, batch=3)
steps = dict(steps=40, warmup_steps=4, checkpoint_steps=3, validation_steps=7, accumulation=2)
trainer = Trainer(stage, folder, StageOptions(**steps, keep_best="score", learning_rate=1e-3))
trainer.resume()
print("at", trainer.step, flush=True)
trainer.train()
"""


def start(folder: Path, pace: float = 0.0, die_at: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), str(pace), str(die_at)], stdout=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> int:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return int(output.split()[1])


def assert_same_bits(first: object, second: object) -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same_bits(first[key], second[key])
    elif isinstance(first, list):
        for one, other in zip(first, second, strict=True):
            assert_same_bits(one, other)
    else:
        assert first == second


def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, killed = start(tmp_path / "whole"), start(tmp_path / "killed", pace=0.05)
    assert killed.stdout is not None
    assert killed.stdout.readline().split() == ["at", "0"]
    while not (tmp_path / "killed" / "checkpoints" / "step_00000006").exists():  # and most of the 40 steps to come
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert finish(whole) == 0
    # The second life dies inside its second save: files written, not yet all of them flushed.
    dying = start(tmp_path / "killed", die_at=2)
    dying.communicate(timeout=120)
    assert dying.returncode == -signal.SIGKILL
    assert list((tmp_path / "killed" / "checkpoints").glob(".step_*.tmp"))
    assert 0 < finish(start(tmp_path / "killed")) < 40
    ends = [load_latest(tmp_path / name) for name in ("whole", "killed")]
    for part in ("weights", "ema", "optimiser"):
        assert_same_bits(*(getattr(end, part) for end in ends))
    assert ends[0].numbers["step"] == ends[1].numbers["step"] == 40
    assert ends[0].numbers["best"] == ends[1].numbers["best"]
    assert [path.name for path in stored(tmp_path / "whole" / "best")] == [
        path.name for path in stored(tmp_path / "killed" / "best")
    ]


def a_state(step: int) -> State:
    tensor = torch.full((3,), float(step))
    return State(weights={"a.b": tensor}, ema={"a.b": tensor + 1}, optimiser={"state": {}}, numbers={"step": step})


def test_the_last_two_are_kept_and_the_best_apart(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, a_state(step))
        save_best(tmp_path, a_state(step))
    assert [path.name for path in stored(tmp_path / "checkpoints")] == ["step_00000002", "step_00000003"]
    assert [path.name for path in stored(tmp_path / "best")] == ["step_00000003"]
    latest = load_latest(tmp_path)
    assert latest is not None
    assert latest.numbers == {"step": 3}


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no record"])
def test_a_damaged_state_is_passed_over(tmp_path: Path, damage: str) -> None:
    save(tmp_path, a_state(1))
    last = save(tmp_path, a_state(2))
    file = last / ("state.json" if damage == "no record" else "optimiser.pt" if damage == "cut" else "ema.safetensors")
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        file.unlink()
    with pytest.warns(UserWarning, match="step_00000002 is damaged"):
        state = load_latest(tmp_path)
    assert state is not None
    assert state.numbers == {"step": 1}


def tagged(folder: Path, place: str) -> None:
    """Make a state as one whose moments were stored on another device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: place)
        moments = {"state": {0: {"exp_avg": torch.arange(4.0)}}, "param_groups": []}
        torch.save(moments, folder / "optimiser.pt")
    record = json.loads((folder / "state.json").read_text())
    record["checksums"]["optimiser.pt"] = checkpoint.checksum(folder / "optimiser.pt")
    (folder / "state.json").write_text(json.dumps(record))


@pytest.mark.parametrize("place", ["cuda:3", "mps", "xpu:0"])
def test_a_state_of_another_device_is_read(tmp_path: Path, place: str) -> None:
    folder = save(tmp_path, a_state(7))
    tagged(folder, place)
    with pytest.raises(RuntimeError):
        torch.load(folder / "optimiser.pt", weights_only=True)
    state = load_latest(tmp_path)
    assert state is not None
    assert state.numbers == {"step": 7}
    assert torch.equal(state.optimiser["state"][0]["exp_avg"], torch.arange(4.0))


def test_new_states_are_kept_beside_damaged_ones_of_later_steps(tmp_path: Path) -> None:
    for step in (300, 400, 500):
        save(tmp_path, a_state(step))
    for step in (400, 500):
        (tmp_path / "checkpoints" / f"step_{step:08d}" / "ema.safetensors").write_bytes(b"cut")
    save(tmp_path, a_state(300))
    for step in (310, 320, 330):
        save(tmp_path, a_state(step))
        latest = load_latest(tmp_path)
        assert latest is not None
        assert latest.numbers == {"step": step}
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["aside_step_00000400", "aside_step_00000500", "step_00000320", "step_00000330"]


def test_a_run_does_not_begin_anew_where_no_state_can_be_read(tmp_path: Path) -> None:
    for step in (1, 2):
        (save(tmp_path, a_state(step)) / "optimiser.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(StateError, match="every state there"):
        load_latest(tmp_path)


def test_what_is_whole_and_cannot_be_read_is_no_damage(tmp_path: Path) -> None:
    save(tmp_path, a_state(1))
    folder = save(tmp_path, a_state(2))
    (folder / "optimiser.pt").write_bytes(pickle.dumps(os.getcwd))  # code, which is never run
    record = json.loads((folder / "state.json").read_text())
    record["checksums"]["optimiser.pt"] = checkpoint.checksum(folder / "optimiser.pt")
    (folder / "state.json").write_text(json.dumps(record))
    with pytest.raises(StateError, match="step_00000002 is whole, but cannot be read on this machine"):
        load_latest(tmp_path)


def test_a_reader_leaves_alone_what_is_being_written(tmp_path: Path) -> None:
    save(tmp_path, a_state(1))
    names = (".step_00000002.0123456789ab.tmp", ".unfinished-step_00000002")
    unfinished = [tmp_path / "checkpoints" / name for name in names]
    for folder in unfinished:
        folder.mkdir()
    assert load_latest(tmp_path) is not None
    assert all(folder.is_dir() for folder in unfinished)
    save(tmp_path, a_state(3))
    assert not any(folder.exists() for folder in unfinished)


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert load_latest(tmp_path) is None
    assert checkpoint.load_averages(tmp_path, best=True) is None

"""The training loop: its pace, averages, continuation, skipped steps, the best state; and the linear start."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from smoke_runs import options
from torch import Tensor, nn

from supir.errors import StateError
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.training.loop import Stage, Trainer, learning_rate
from supir.training.pairs import psnr, to_tensor
from supir.training.photographs import Tiles
from supir.training.stages.autoencoder import start_from_principal_components
from supir.training.states import load_latest, stored


def linear_stage(model: nn.Linear, seen: list[float]) -> Stage:
    """Samples one by one, each from its own generator."""

    def draw(rng: np.random.Generator, number: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(3).astype(np.float32))

    def loss(samples: list[Tensor], progress: float) -> tuple[Tensor, dict[str, float]]:
        x = torch.stack(samples)
        seen.append(float(x[0, 0]))
        error = (model(x) - x.sum(1, keepdim=True)).square().mean()
        return error, {"mse": error.item()}

    return Stage("line", {"line": model}, loss, frozen=lambda name: name.endswith("bias"), draw=draw, batch=8)


def begun(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 1)


def test_a_stopped_run_goes_on_exactly_where_its_state_was(tmp_path: Path) -> None:
    whole, seen = begun(), list[float]()
    bias = whole.bias.detach().clone()
    short = options(steps=8, warmup_steps=2)
    trainer = Trainer(linear_stage(whole, seen), tmp_path / "whole", short)
    assert trainer.train()

    first = Trainer(linear_stage(begun(), []), tmp_path / "part", short)
    batches = first.batches()
    for _ in range(5):
        first._one_step(batches)
    first.save()
    rest: list[float] = []
    again = begun(1)
    again.bias.data.copy_(bias)  # what does not learn comes from where the run started
    second = Trainer(linear_stage(again, rest), tmp_path / "part", short)
    assert second.resume()
    assert second.train()
    assert rest == seen[5:]
    assert torch.equal(again.weight, whole.weight)
    assert torch.equal(second.ema["line.weight"], trainer.ema["line.weight"])
    assert torch.equal(whole.bias, bias)


def test_the_end_leaves_the_averaged_weights(tmp_path: Path) -> None:
    model = begun()
    trainer = Trainer(linear_stage(model, []), tmp_path, options(steps=20, learning_rate=0.03), log_steps=5)
    assert trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    state = load_latest(tmp_path)
    assert state is not None
    assert torch.equal(model.weight, state.ema["line.weight"])
    assert not torch.equal(model.weight, state.weights["line.weight"])


def test_minutes_stop_a_run_of_steps_early(tmp_path: Path) -> None:
    trainer = Trainer(linear_stage(begun(), []), tmp_path, options(steps=10**6), minutes=0.005)
    assert not trainer.train()
    state = load_latest(tmp_path)
    assert state is not None
    assert 0 < state.numbers["step"] < 10**6


def test_passes_that_are_added_up_are_one_larger_pass(tmp_path: Path) -> None:
    ends = []
    for accumulation, batch in ((1, 8), (4, 2)):
        model = begun()
        stage = replace(linear_stage(model, []), batch=batch)
        Trainer(stage, tmp_path / str(batch), options(steps=6, accumulation=accumulation)).train()
        ends.append(model.weight.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-7)


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(tmp_path: Path) -> None:
    model = begun()
    stage = linear_stage(model, [])
    whole = stage.loss
    stage.loss = lambda samples, progress: (whole(samples, progress)[0] * (float("inf") if progress == 0.5 else 1), {})
    trainer = Trainer(stage, tmp_path, options(steps=4, warmup_steps=0), log_steps=1)
    batches, weights = trainer.batches(), []
    for _ in range(4):
        values = trainer._one_step(batches)
        weights.append((model.weight.detach().clone(), trainer.ema["line.weight"].clone()))
    assert values["skipped"] == trainer.skipped == 1
    assert torch.equal(weights[1][0], weights[2][0])
    assert torch.equal(weights[1][1], weights[2][1])
    assert not torch.equal(weights[2][0], weights[3][0])
    assert torch.isfinite(weights[3][0]).all()


def test_the_rate_rises_and_falls() -> None:
    cosine, constant = (options(steps=100, warmup_steps=10, schedule=kind) for kind in ("cosine", "constant"))
    assert learning_rate(cosine, 0) == pytest.approx(1e-4)
    assert learning_rate(cosine, 100) == pytest.approx(1e-5)
    assert learning_rate(constant, 4) == pytest.approx(5e-4)
    assert learning_rate(constant, 99) == 1e-3


@pytest.mark.parametrize(("metric", "kept"), [("score", 6), ("-score", 2), ("-absent, -score", 2)])
def test_the_best_average_is_kept(tmp_path: Path, metric: str, kept: int) -> None:
    scores = iter([1.0, 0.5, 2.0, 1.5])
    stage = linear_stage(begun(), [])
    stage = replace(stage, sheet=lambda path: {"score": next(scores)})
    steps = {6: 3, 2: 2}[kept] * 2
    Trainer(stage, tmp_path, options(steps=8, validation_steps=2, keep_best=metric)).train()
    [best] = stored(tmp_path / "best")
    assert best.name == f"step_{steps:08d}"


def test_a_component_learns_at_its_own_pace(tmp_path: Path) -> None:
    moved = []
    for name, pace in (("usual", {}), ("slow", {"line": 0.1}), ("other", {"elsewhere": 0.1})):
        model = begun()
        begin = model.weight.detach().clone()
        stage = replace(linear_stage(model, []), pace=pace)
        trainer = Trainer(stage, tmp_path / name, options(steps=9, warmup_steps=1))
        trainer._one_step(trainer.batches())
        moved.append(float((model.weight.detach() - begin).abs().max()))
    assert moved[1] == pytest.approx(0.1 * moved[0], rel=1e-3)
    assert moved[2] == moved[0] > 0


def test_a_stage_that_draws_batches_is_seeded_by_its_step(tmp_path: Path) -> None:
    def run(steps: tuple[int, ...], folder: Path) -> list[tuple[float, float]]:
        seen: list[tuple[float, float]] = []
        model = begun()

        def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
            seen.append((float(rng.random()), float(torch.rand(1))))
            return model.weight.square().sum(), {}

        for number in steps:
            trainer = Trainer(Stage("batch", {"line": model}, loss), folder, options(steps=6))
            trainer.resume()
            batches = trainer.batches()
            for _ in range(number):
                trainer._one_step(batches)
            trainer.save()
        return seen

    assert run((6,), tmp_path / "whole") == run((2, 4), tmp_path / "parts")


def test_a_state_that_finds_no_room_is_told_and_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on, with the state before it kept; at the end there must be room."""
    from supir.training import states as checkpoint

    save_file, full = checkpoint.save_file, {2: False, 4: True, 6: False, 8: True}
    trainer = Trainer(linear_stage(begun(), []), tmp_path, options(steps=8, checkpoint_steps=2, warmup_steps=1))

    def save_until_full(tensors: dict[str, Tensor], path: Path) -> None:
        if full[trainer.step]:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", save_until_full)
    with (
        pytest.warns(
            UserWarning, match=r"tries again in 2 steps: .*step_00000004: cannot be written: the disk is full"
        ),
        pytest.raises(StateError, match="step_00000008: cannot be written"),
    ):
        trainer.train()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if not path.name.startswith("step")] == []
    full[8] = False
    again = Trainer(linear_stage(begun(), []), tmp_path, options(steps=8, checkpoint_steps=2, warmup_steps=1))
    assert again.resume()
    assert again.step == 6
    assert again.train()
    assert [path.name for path in stored(tmp_path / "checkpoints")] == ["step_00000006", "step_00000008"]


def test_a_state_of_other_networks_is_said(tmp_path: Path) -> None:
    Trainer(linear_stage(begun(), []), tmp_path, options(steps=1)).train()
    stage = replace(linear_stage(begun(), []), modules={"other": begun()})
    with pytest.raises(StateError, match="of other networks"):
        Trainer(stage, tmp_path, options(steps=2)).resume()


def test_curves_and_sheets_reach_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def sheet(path: Path) -> dict[str, float]:
        cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
        return {"score": 1.0}

    stage = replace(linear_stage(begun(), []), sheet=sheet)
    Trainer(stage, tmp_path, options(steps=4), curves=True, log_steps=2).train()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/mse")] == [2, 4]
    assert events.Scalars("held out/score")[0].value == 1.0
    assert events.Images("samples")[0].step == 4


def test_principal_components_alone_carry_most_of_a_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "train.npy", np.stack([cv2.resize(tile, (128, 128)) for tile in coarse]))
    (tmp_path / "train_captions.json").write_text(json.dumps(["a photo"] * 4))
    torch.manual_seed(0)
    model = ThinAutoencoder(16, (8, 12), (1, 1), (4, 6), (1, 1), (8, 12), (1, 1))
    x = to_tensor([Tiles(tmp_path).draw(rng, 64).pixels for _ in range(4)])
    start_from_principal_components(model, Tiles(tmp_path).pixels)
    with torch.no_grad():
        model.encoder.conv_out.weight.zero_()
        model.decoder.conv_out.weight.zero_()
        assert model.encode(x).latent_dist.mode().square().mean().item() == pytest.approx(1.0, abs=0.5)
        assert psnr(model(x).sample, x) > 27  # the mean alone gives 14


@pytest.mark.slow
def test_the_8_bit_optimiser_learns_and_continues(tmp_path: Path) -> None:
    pytest.importorskip("torchao")

    def run(folder: Path, *parts: int) -> Tensor:
        for number in parts:
            torch.manual_seed(0)
            model = nn.Linear(128, 64)

            def draw(rng: np.random.Generator, number: int) -> Tensor:
                return torch.from_numpy(rng.standard_normal(128).astype(np.float32))

            def loss(samples: list[Tensor], progress: float, own: nn.Module = model) -> tuple[Tensor, dict[str, float]]:
                return (own(torch.stack(samples)) - 1).square().mean(), {}

            stage = Stage("eight", {"line": model}, loss, draw=draw, batch=4)
            trainer = Trainer(stage, folder, options(steps=4, optimiser="adamw8bit", warmup_steps=1))
            trainer.resume()
            batches = trainer.batches()
            for _ in range(number):
                trainer._one_step(batches)
            trainer.save()
        moments = next(iter(trainer.optimiser.state_dict()["state"].values()))
        assert type(moments["exp_avg"]).__name__ == "OptimState8bit"
        return model.weight.detach()

    torch.manual_seed(0)
    begin = nn.Linear(128, 64).weight
    whole = run(tmp_path / "whole", 4)
    assert torch.equal(whole, run(tmp_path / "parts", 2, 2))
    assert float((whole - begin.detach()).abs().max()) > 5e-4

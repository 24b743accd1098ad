"""The training loop: a killed run goes on from its state, averaged weights, frozen parameters, the linear start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from supir.models.thin_autoencoder import ThinAutoencoder
from supir.training.autoencoder import start_from_principal_components
from supir.training.crops import Tiles, psnr, to_tensor
from supir.training.loop import Budget, Stage, Trainer


def linear_stage(model: nn.Linear, seen: list[float]) -> Stage:
    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        x = torch.from_numpy(rng.standard_normal((8, 3)).astype(np.float32))
        seen.append(float(x[0, 0]))
        error = (model(x) - x.sum(1, keepdim=True)).square().mean()
        return error, {"mse": error.item()}

    return Stage("line", {"line": model}, loss, frozen=lambda name: name.endswith("bias"))


def test_a_killed_run_goes_on_exactly_where_its_state_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole, seen = nn.Linear(3, 1), list[float]()
    begin = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    trainer = Trainer(linear_stage(whole, seen), tmp_path / "whole", Budget(minutes=1))
    for _ in range(8):
        trainer._one_step(0.3)

    part, again = nn.Linear(3, 1), nn.Linear(3, 1)
    part.load_state_dict(begin)
    first = Trainer(linear_stage(part, []), tmp_path / "part", Budget(minutes=1))
    for _ in range(5):
        first._one_step(0.3)
    first.save()
    rest: list[float] = []
    second = Trainer(linear_stage(again, rest), tmp_path / "part", Budget(minutes=1))
    assert second.resume()
    for _ in range(3):
        second._one_step(0.3)
    assert rest == seen[5:]
    assert torch.equal(again.weight, whole.weight)
    assert torch.equal(second.ema["line.weight"], trainer.ema["line.weight"])
    assert torch.equal(whole.bias, begin["bias"])


def test_training_ends_with_its_budget_and_leaves_the_averaged_weights(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    trainer = Trainer(linear_stage(model, []), tmp_path, Budget(minutes=0.01, learning_rate=0.03, log_steps=5))
    trainer.train()
    assert (tmp_path / "state.pt").exists()
    assert not (tmp_path / "state.new").exists()
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["step"] == 5
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert torch.equal(model.weight, saved["ema"]["line.weight"])
    assert not torch.equal(model.weight, saved["modules"]["line"]["weight"])


def test_a_component_learns_at_its_own_pace(tmp_path: Path) -> None:
    moved = []
    for name, pace in (("usual", {}), ("slow", {"line": 0.1}), ("other", {"elsewhere": 0.1})):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        begin = model.weight.detach().clone()
        stage = replace(linear_stage(model, []), pace=pace)
        Trainer(stage, tmp_path / name, Budget(minutes=1, warmup_steps=1))._one_step(0.0)
        moved.append(float((model.weight.detach() - begin).abs().max()))
    assert moved[1] == pytest.approx(0.1 * moved[0], rel=1e-3)
    assert moved[2] == moved[0] > 0


def test_principal_components_alone_carry_most_of_a_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "train.npy", np.stack([cv2.resize(tile, (128, 128)) for tile in coarse]))
    (tmp_path / "train_captions.json").write_text(json.dumps(["a photo"] * 4))
    torch.manual_seed(0)
    model = ThinAutoencoder(16, (8, 12), (1, 1), (4, 6), (1, 1), (8, 12), (1, 1))
    x = to_tensor([Tiles(tmp_path).crop(rng, 64)[0] for _ in range(4)])
    start_from_principal_components(model, tmp_path)
    with torch.no_grad():
        model.encoder.conv_out.weight.zero_()
        model.decoder.conv_out.weight.zero_()
        assert model.encode(x).latent_dist.mode().square().mean().item() == pytest.approx(1.0, abs=0.5)
        assert psnr(model(x).sample, x) > 27  # the mean alone gives 14

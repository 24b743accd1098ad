"""The adversarial stage: what reaches the restoring network, and what the discriminator learns."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from supir.models.thin_autoencoder import ThinAutoencoder
from supir.training.adversarial import FEATURE_WEIGHT, Discriminator, adversarial_stage, hinge
from supir.training.crops import Tiles, to_tensor
from supir.training.degraded_encoder import grown
from supir.training.features import FeatureDistance
from supir.training.loop import Stage
from supir.training.pairs import degrade

BLOCKS = [(0, 32, 16, 3), (16, 96, 24, 3), (24, 144, 24, 3), (24, 144, 40, 5), (40, 240, 40, 5)]
"""Of EfficientNet-lite0: channels that come, inside, that go (0: no expansion), and the kernel."""


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of EfficientNet-lite0's first layers."""
    torch.manual_seed(0)
    weights: dict[str, torch.Tensor] = {}

    def conv(name: str, norm: str, after: int, before: int, kernel: int) -> None:
        weights[f"{name}.weight"] = torch.randn(after, before, kernel, kernel) / (before * kernel**2) ** 0.5
        weights.update({f"{norm}.{part}": torch.zeros(after) for part in ("running_mean", "bias")})
        weights.update({f"{norm}.{part}": torch.ones(after) for part in ("running_var", "weight")})

    conv("_conv_stem", "_bn0", 32, 3, 3)
    for index, (come, inside, go, kernel) in enumerate(BLOCKS):
        block = f"_blocks.{index}."
        if come:
            conv(f"{block}_expand_conv", f"{block}_bn0", inside, come, 1)
        conv(f"{block}_depthwise_conv", f"{block}_bn1", inside, 1, kernel)
        conv(f"{block}_project_conv", f"{block}_bn2", go, inside, 1)
    path = tmp_path_factory.mktemp("features") / "weights.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    coarse = np.random.default_rng(0).integers(0, 256, (12, 24, 24, 3), dtype=np.uint8)
    for split in ("train", "heldout"):
        np.save(folder / f"{split}.npy", np.stack([cv2.resize(tile, (192, 192)) for tile in coarse]))
        (folder / f"{split}_captions.json").write_text(json.dumps(["a photo"] * len(coarse)))
    return folder


def small_model() -> ThinAutoencoder:
    torch.manual_seed(1)
    model = ThinAutoencoder(
        latent_channels=8,
        encoder_widths=(8, 8),
        encoder_blocks=(1, 1),
        restorer_widths=(8, 12),
        restorer_blocks=(1, 1),
        decoder_widths=(8, 8),
        decoder_blocks=(1, 1),
    )
    torch.nn.init.normal_(model.restorer.conv_out.weight, std=0.02)
    return model


@pytest.fixture
def stage(tiles: Path, features: Path) -> Stage:
    return adversarial_stage(tiles, small_model(), features, batch=2, crop=64)


def restorer_gradient(stage: Stage) -> torch.Tensor:
    restorer = stage.modules["autoencoder"].restorer
    return torch.cat([p.grad.flatten() for p in restorer.parameters()])  # type: ignore[union-attr]


def test_at_its_start_only_pixels_and_features_teach(stage: Stage, tiles: Path, features: Path) -> None:
    loss, values = stage.loss(np.random.default_rng(3), 0.0)
    loss.backward()
    assert values["strength"] == 0
    found = restorer_gradient(stage)

    model, rng, train = small_model(), np.random.default_rng(3), Tiles(tiles)
    pictures = [train.crop(rng, 64)[0] for _ in range(2)]
    x, lq = to_tensor(pictures), to_tensor([degrade(rng, picture) for picture in pictures])
    y = model.restorer(lq)
    ((y - x).abs().mean() + FEATURE_WEIGHT * FeatureDistance(features)(y, x)).backward()
    expected = torch.cat([p.grad.flatten() for p in model.restorer.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


def test_the_distance_is_in_full_precision_whatever_comes(features: Path) -> None:
    distance = FeatureDistance(features)
    first, second = torch.rand(2, 1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = distance(first.bfloat16(), second)
    torch.testing.assert_close(found, distance(first.bfloat16().float(), second))


def test_later_the_discriminator_teaches_too(stage: Stage) -> None:
    gradients = []
    for progress in (0.0, 0.5):
        stage.modules["autoencoder"].zero_grad()
        loss, values = stage.loss(np.random.default_rng(3), progress)
        loss.backward()
        gradients.append(restorer_gradient(stage).clone())
    assert values["strength"] > 0
    assert float(torch.cosine_similarity(gradients[0], gradients[1], dim=0)) < 0.95
    assert all(p.grad is None for p in stage.modules["autoencoder"].encoder.parameters())
    assert all(p.grad is not None for p in stage.modules["discriminator"].parameters())


def test_the_discriminator_learns_to_tell_sharp_from_soft(features: Path) -> None:
    torch.manual_seed(0)
    discriminator, distance = Discriminator(width=8), FeatureDistance(features)
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=4e-3)
    losses = []
    for _ in range(30):
        sharp = torch.rand(4, 3, 32, 32) * 2 - 1
        soft = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
        scores = [discriminator(pictures, distance.features(pictures)) for pictures in (sharp, soft)]
        loss = hinge(scores[0], True) + hinge(scores[1], False)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_grown_restoring_network_begins_with_what_the_smaller_did() -> None:
    small = small_model()
    large = grown(small, (8, 12, 16), (1, 1, 2))
    x = torch.rand(1, 3, 48, 64) * 2 - 1
    assert torch.equal(large.restorer(x), small.restorer(x))
    large.restorer(x).square().sum().backward()
    assert float(large.restorer.up[1].weight.grad.abs().max()) > 0  # type: ignore[union-attr]


def test_the_stage_writes_a_sheet_of_heldout_pictures(stage: Stage, tmp_path: Path) -> None:
    assert stage.sheet is not None
    with torch.no_grad():
        values = stage.sheet(tmp_path / "sheet.png")
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (8 * 192, 6 * 192, 3)
    assert values["degraded_features"] > 0

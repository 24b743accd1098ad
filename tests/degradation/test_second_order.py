"""Degradations replay to the byte, keep the size, and do what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from supir.degradation import ops
from supir.degradation.process import Degradation, apply
from supir.degradation.recipes import RECIPES
from supir.degradation.second_order import Recipe


@pytest.fixture
def picture() -> ops.Picture:
    rng = np.random.default_rng(0)
    coarse = rng.random((12, 16, 3), dtype=np.float32)
    return ops.resize(coarse, 96, 128, "bicubic")


@pytest.mark.parametrize("name", ["default", "light", "everyday"])
def test_a_drawing_replays_to_the_byte_from_its_json_line(name: str, picture: ops.Picture) -> None:
    rng = np.random.default_rng(3)
    for _ in range(12):
        drawn = RECIPES[name].draw(rng)
        again = Degradation.from_json(drawn.to_json())
        assert again == drawn
        assert "\n" not in drawn.to_json()
        first, second = apply(drawn, picture), apply(again, picture)
        assert first.tobytes() == second.tobytes()
        assert first.shape == picture.shape
        assert first.dtype == np.float32
        assert not np.array_equal(first, picture)


def test_the_degraded_size_is_the_reduced_one_before_it_is_restored(picture: ops.Picture) -> None:
    drawn = Recipe(scale=(4.0, 4.0)).draw(np.random.default_rng(1))
    assert apply(drawn, picture, restore_size=False).shape == (24, 32, 3)


def test_light_is_milder_than_default(picture: ops.Picture) -> None:
    def mean_error(name: str) -> float:
        rng = np.random.default_rng(5)
        return float(np.mean([np.abs(apply(RECIPES[name].draw(rng), picture) - picture).mean() for _ in range(20)]))

    assert mean_error("light") < 0.6 * mean_error("default")


def test_kernels_have_unit_sum_and_sinc_rings() -> None:
    for shape in ("gaussian", "generalized", "plateau"):
        kernel = ops.blur_kernel(15, 2.0, 1.0, 0.4, shape, 1.5)  # type: ignore[arg-type]
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        assert kernel.min() >= 0
    sinc = ops.sinc_kernel(21, np.pi / 2)
    assert sinc.sum() == pytest.approx(1, abs=1e-5)
    assert sinc.min() < 0


def test_an_isotropic_gaussian_applied_as_two_lines_is_the_whole_kernel(picture: ops.Picture) -> None:
    whole = ops.blur(picture, ops.blur_kernel(15, 2.0, 2.0, 0.0, "gaussian", 1.0))
    np.testing.assert_allclose(ops.shaped_blur(picture, 15, 2.0, 2.0, 0.0, "gaussian", 1.0), whole, atol=1e-5)


def test_grey_noise_is_the_same_in_all_channels_and_has_the_asked_strength() -> None:
    grey = np.full((64, 64, 3), 0.5, np.float32)
    noise = ops.gaussian_noise(grey, 20, True, seed=1) - grey
    assert np.ptp(noise, axis=2).max() < 1e-6
    assert noise.std() * 255 == pytest.approx(20, rel=0.05)

"""Degradations replay to the byte, keep the size, and do what their names say."""

from __future__ import annotations

from collections import Counter

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


def test_drawings_are_distributed_as_those_that_x4plus_was_trained_with() -> None:
    """Shares and ranges of Real-ESRGAN's published options; a share of 4000 drawings is right within .025."""
    rng = np.random.default_rng(7)
    drawn = [[dict(one.values) | {"operation": one.operation} for one in Recipe().draw(rng).steps] for _ in range(4000)]
    blurs = [one for steps in drawn for one in steps if one["operation"] == "blur"]
    kernels = Counter((one["shape"], one["sigma_x"] == one["sigma_y"]) for one in blurs)
    published = {
        ("gaussian", True): 0.45,
        ("gaussian", False): 0.25,
        ("generalized", True): 0.12,
        ("generalized", False): 0.03,
        ("plateau", True): 0.12,
        ("plateau", False): 0.03,
    }
    assert {kind: number / len(blurs) for kind, number in kernels.items()} == pytest.approx(published, abs=0.025)
    exponents = np.array([one["beta"] for one in blurs if one["shape"] == "generalized"])
    assert (exponents < 1).mean() == pytest.approx(0.5, abs=0.06)
    assert exponents.min() >= 0.5
    assert exponents.max() == pytest.approx(4, abs=0.1)
    flat = np.array([one["beta"] for one in blurs if one["shape"] == "plateau"])
    assert (flat == 1).mean() == pytest.approx(0.5, abs=0.06)

    first_sincs = [steps[0] for steps in drawn if steps[0]["operation"] == "sinc"]
    assert len(first_sincs) / len(drawn) == pytest.approx(0.1, abs=0.025)
    for small, lowest in ((True, np.pi / 3), (False, np.pi / 5)):
        cutoffs = [one["cutoff"] for one in first_sincs if (one["size"] < 13) == small]
        assert lowest <= min(cutoffs) < lowest + 0.1

    sizes = [[one["fraction"] for one in steps if one["operation"] == "resize"] for steps in drawn]
    assert all(fractions[-1] == 0.25 for fractions in sizes)
    second = np.array([fractions[-2] for fractions in sizes]) * 4  # counted from the final size, whatever the first was
    assert [(second > 1).mean(), (second < 1).mean()] == pytest.approx([0.3, 0.4], abs=0.025)
    assert [second.min(), second.max()] == pytest.approx([0.3, 1.2], abs=0.01)


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

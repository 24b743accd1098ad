"""Degradations replay to the byte from one line of JSON, at any size, and a wrong line is refused with its reason."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operation_examples import EXAMPLES, degraded, texture

from supir.degradation.ops import Picture
from supir.degradation.process import OPERATIONS, Degradation, Step, apply, step
from supir.degradation.recipes import BENCHMARKS, RECIPES, draw
from supir.errors import OptionError, SupirError
from supir.image import resize

SIZES = [(8, 8), (17, 301), (96, 128), (33, 9)]
# SHA-256 of 300 lines of JSON drawn with seed 2024: what changes them must change ``recipes.VERSIONS`` too.
RECORDED = {
    "default": "1f9eb300d56201e5d6c297e8ea9de04ce6bb75ad777314a54994bb034d53c981",
    "light": "b0be5f0fdea9fe34240518847dd308504a85037cce8a4d52b4032204feca398a",
    "everyday": "8e4b101adcacf719f00c0bb0f89cbeb1fb7efac4b47ccd04e8f9fee23862855e",
}


def assert_replays(drawn: Degradation, picture: Picture) -> Picture:
    before = picture.copy()
    line = drawn.to_json()
    again = Degradation.from_json(line)
    assert again == drawn
    assert len(line.splitlines()) == 1
    first, second = apply(drawn, picture), apply(again, picture)
    assert first.tobytes() == second.tobytes()
    assert first.shape == picture.shape
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert first.min() >= 0
    assert first.max() <= 1
    assert np.array_equal(picture, before), "the clean picture was written to"
    return first


@pytest.mark.parametrize("name", RECORDED)
def test_drawings_are_those_of_earlier_versions(name: str) -> None:
    rng, found = np.random.default_rng(2024), hashlib.sha256()
    for _ in range(300):
        found.update(draw(rng, name).to_json().encode() + b"\n")
    assert found.hexdigest() == RECORDED[name]


def test_names_of_the_recipes() -> None:
    named = {
        "default",
        "light",
        "everyday",
        "real",
        "sr4",
        "sr8",
        "blur2_sr4",
        "sr4_noise40",
        "blur2_sr4_noise20_jpeg50",
    }
    assert set(RECIPES) == named


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_replays_to_the_byte(name: str) -> None:
    rng, picture = np.random.default_rng(3), texture()
    for _ in range(15):
        assert not np.array_equal(assert_replays(draw(rng, name), picture), picture)


def test_every_operation_has_an_example() -> None:
    assert set(EXAMPLES) == set(OPERATIONS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_operation_replays_to_the_byte_at_any_size_and_does_something(name: str, size: tuple[int, int]) -> None:
    picture = texture(*size)
    found = assert_replays(Degradation((EXAMPLES[name],)), picture)
    # Ten pixels of dust may fall beside a picture of 64.
    if min(size) > 8:
        assert np.abs(found - picture).max() > 0.02


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_black_and_white_pictures_survive(name: str, level: float) -> None:
    assert_replays(Degradation((EXAMPLES[name],)), np.full((24, 40, 3), level, np.float32))


@pytest.mark.parametrize("name", [name for name in EXAMPLES if "seed" in dict(EXAMPLES[name].values)])
def test_another_seed_is_another_picture(name: str) -> None:
    values = dict(EXAMPLES[name].values) | {"seed": 99}
    picture = texture()
    assert not np.array_equal(degraded(EXAMPLES[name], picture), degraded(step(name, **values), picture))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(8, 70), width=st.integers(8, 70))
def test_real_replays_for_any_seed_and_size(seed: int, height: int, width: int) -> None:
    drawn = draw(np.random.default_rng(seed), "real")
    assert drawn == draw(np.random.default_rng(seed), "real")
    assert drawn.steps
    assert_replays(drawn, texture(height, width))


def test_one_thread_or_several_give_the_same_bytes() -> None:
    picture, before = texture(200, 300), cv2.getNumThreads()
    found = []
    try:
        for threads in (1, 3):
            cv2.setNumThreads(threads)
            found.append([degraded(one, picture).tobytes() for one in EXAMPLES.values()])
    finally:
        cv2.setNumThreads(before)
    assert found[0] == found[1]


def test_the_order_of_real_is_that_of_a_photographs_life() -> None:
    life = ["lens", "haze", "sensor", "print", "file", "video"]
    stage = {"motion_blur": "lens", "defocus": "lens", "haze": "haze", "sensor": "sensor", "low_light": "sensor"}
    stage |= dict.fromkeys(("fade", "grain", "scratches", "creases", "dust", "halftone"), "print")
    stage |= {"jpeg": "file", "video": "video"}
    rng, seen = np.random.default_rng(0), set()
    for _ in range(600):
        names = [one.operation for one in draw(rng, "real").steps]
        seen |= set(names)
        order = [life.index(stage[name]) for name in names if name in stage]
        assert order == sorted(order), names
        assert not ("halftone" in names and "fade" in names)
        assert not ("low_light" in names and {"fade", "halftone"} & set(names))
    assert seen == set(OPERATIONS)


def test_benchmarks_are_fixed_but_for_the_seed_of_their_noise() -> None:
    for name in BENCHMARKS:
        first, second = (draw(np.random.default_rng(seed), name) for seed in (1, 2))
        assert (first == second) == ("noise" not in name)
        without = [
            [(one.operation, {key: value for key, value in one.values if key != "seed"}) for one in drawn.steps]
            for drawn in (first, second)
        ]
        assert without[0] == without[1]
    full = draw(np.random.default_rng(1), "blur2_sr4_noise20_jpeg50")
    assert [one.operation for one in full.steps] == ["blur", "reduce", "gaussian_noise", "jpeg"]
    assert apply(full, texture(), restore_size=False).shape == (24, 32, 3)
    assert apply(draw(np.random.default_rng(1), "sr8"), texture(), restore_size=False).shape == (12, 16, 3)


def test_what_is_learned_from_is_enlarged_as_the_pipeline_enlarges() -> None:
    drawn = draw(np.random.default_rng(1), "sr4")
    small = torch.from_numpy(apply(drawn, texture(), restore_size=False)).permute(2, 0, 1)
    wanted = resize(small, *texture().shape[:2], limits=(0.0, 1.0)).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(apply(drawn, texture()), wanted, atol=2e-4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('[["melt", {}]]', "unknown degradation step 'melt'; there are blur"),
        ('[["jpeg", {"quality": 500}]]', "quality is 500; it must be a whole number from 1 to 100"),
        ('[["jpeg", {"quality": 50.5}]]', "quality is 50.5"),
        ('[["jpeg", {"quality": true}]]', "quality is True"),
        ('[["jpeg", {"quality": [50]}]]', r"quality is \[50\]"),
        ('[["jpeg", {}]]', "'jpeg' lacks quality: a whole number"),
        ('[["jpeg", {"quality": 50, "speed": 2}]]', "has no value 'speed'; it takes quality"),
        ('[["shrink", {"fraction": NaN}]]', "fraction is nan"),
        ('[["shrink", {"height": 9, "width": 9}]]', "lacks fraction"),
        ('[["resize", {"fraction": 1, "interpolation": "magic"}]]', "one of area, bilinear, bicubic"),
        ('[["gaussian_noise", {"strength": 1, "grey": 1, "seed": 0}]]', "grey is 1; it must be true or false"),
        ("not json", "a degradation is a line of JSON"),
        ('{"jpeg": 50}', "a degradation is a list of"),
        ('[["jpeg"]]', "a degradation is a list of"),
    ],
)
def test_a_wrong_line_is_refused_with_its_reason(line: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        Degradation.from_json(line)
    assert isinstance(caught.value, SupirError)


def test_a_wrong_name_is_refused_with_its_reason() -> None:
    with pytest.raises(OptionError, match="unknown degradation recipe 'worst'; there are default, light"):
        draw(np.random.default_rng(0), "worst")
    with pytest.raises(OptionError, match="unknown degradation step 'melt'"):
        Step("melt", ())


def test_the_line_is_plain_json() -> None:
    drawn = Degradation((step("jpeg", quality=50), step("shrink", fraction=0.5)))
    assert json.loads(drawn.to_json()) == [["jpeg", {"quality": 50}], ["shrink", {"fraction": 0.5}]]


def test_a_missing_package_gives_the_line_that_installs_it() -> None:
    code = "import sys; sys.modules['cv2'] = None; import supir.degradation.ops"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "degrading pictures needs opencv-python-headless" in done.stderr
    assert "pip install 'supir[train]'" in done.stderr

"""The colour fix gives the recorded pictures (reference section 11)."""

from __future__ import annotations

import re

import pytest
import torch
from reference_fixtures import ReferenceFixtures

from supir.restoration.color import adain_fix, wavelet_fix

FIXES = {"wavelet": wavelet_fix, "adain": adain_fix}
DTYPES = {"f32": (torch.float32, 1e-5), "f64": (torch.float64, 1e-10)}


def test_fixes_give_the_recorded_pictures(fixtures: ReferenceFixtures) -> None:
    tensors = fixtures.tensors("colorfix")
    num_levels = fixtures.json("colorfix").get("levels", 5)
    num_compared = 0
    for key, expected in tensors.items():
        match = re.fullmatch(r"(.+)\.(wavelet|adain)\.(f32|f64)", key)
        if match is None:
            continue
        case, name, precision = match.groups()
        dtype, tolerance = DTYPES[precision]
        content, style = (tensors[f"{case}.{part}"].to(dtype) for part in ("content", "style"))
        options = {"num_levels": num_levels} if name == "wavelet" else {}
        found = FIXES[name](content, style, **options)
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance, msg=lambda text, key=key: f"{key}: {text}")
        num_compared += 1
    assert num_compared > 0


@pytest.mark.parametrize("part", ["high", "low"])
def test_split_gives_the_recorded_scales(fixtures: ReferenceFixtures, part: str) -> None:
    tensors = fixtures.tensors("colorfix")
    num_levels = fixtures.json("colorfix").get("levels", 5)
    num_compared = 0
    for key, expected in tensors.items():
        match = re.fullmatch(rf"(.+)\.(content|style)\.{part}\.(f32|f64)", key)
        if match is None:
            continue
        case, which, precision = match.groups()
        dtype, tolerance = DTYPES[precision]
        image = tensors[f"{case}.{which}"].to(dtype)
        nothing = torch.zeros_like(image)  # its detail, or its colours
        found = wavelet_fix(*((image, nothing) if part == "high" else (nothing, image)), num_levels)
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance, msg=lambda text, key=key: f"{key}: {text}")
        num_compared += 1
    if num_compared == 0:
        pytest.skip("the folder records no scales")

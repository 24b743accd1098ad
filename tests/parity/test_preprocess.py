"""Pre- and postprocessing give the recorded integers (reference section 9)."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from PIL import Image
from reference_fixtures import ReferenceFixtures

from supir.image.fitting import reference_postprocess, reference_preprocess, reference_size


def tolerance(fixtures: ReferenceFixtures, library: str, package: str) -> int:
    """Exact with the library's version that recorded; other versions may round one integer otherwise."""
    recorded = fixtures.json("preprocess").get("versions", {}).get(library)
    return 0 if recorded is not None and version(package).startswith(recorded) else 1


def cases(fixtures: ReferenceFixtures) -> dict[str, dict[str, Any]]:
    found = fixtures.json("preprocess")["cases"]
    assert found
    return found


def test_sizes(fixtures: ReferenceFixtures) -> None:
    for name, case in cases(fixtures).items():
        size = reference_size(case["w"], case["h"], case["upscale"], case["min_size"], case["fix_resize"])
        assert [size.height, size.width] == case["out_hw"], name
        assert (size.output_height, size.output_width) == (case["h0"], case["w0"]), name


def test_pictures_in(fixtures: ReferenceFixtures) -> None:
    tensors = fixtures.tensors("preprocess")
    allowed = tolerance(fixtures, "pillow", "pillow")
    for name, case in cases(fixtures).items():
        image = Image.fromarray(tensors[f"{name}.img"].numpy())
        found, size = reference_preprocess(image, case["upscale"], case["min_size"], case["fix_resize"])
        assert found.dtype == torch.float32
        assert found.shape == (3, size.height, size.width)
        integers = (found.double() + 1) * 127.5
        assert (integers - integers.round()).abs().max() < 1e-4
        assert (integers.round() - tensors[f"{name}.tensor_u8"].double()).abs().max() <= allowed, name


def test_floats_are_those_recorded(fixtures: ReferenceFixtures) -> None:
    tensors = fixtures.tensors("preprocess")
    allowed = tolerance(fixtures, "pillow", "pillow") * 2 / 255
    for key, expected in tensors.items():
        match = re.fullmatch(r"(.+)\.tensor_f32_upscale(\d+)_min(\d+)", key)
        if match is None:
            continue
        image = Image.fromarray(tensors[f"{match[1]}.img"].numpy())
        found, _ = reference_preprocess(image, int(match[2]), int(match[3]))
        assert (found - expected).abs().max() <= allowed + (1e-7 if allowed else 0), key


def test_pictures_out(fixtures: ReferenceFixtures) -> None:
    tensors = fixtures.tensors("preprocess")
    num_compared = 0
    for name, case in cases(fixtures).items():
        if f"{name}.post_out" in tensors:
            found = reference_postprocess(tensors[f"{name}.post_in"], case["h0"], case["w0"])
            difference = np.asarray(found).astype(int) - tensors[f"{name}.post_out"].numpy()
            assert np.abs(difference).max() == 0, name
            num_compared += 1
    assert num_compared > 0

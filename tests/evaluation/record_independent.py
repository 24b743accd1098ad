"""Record what independent implementations of NIQE, HaarPSI, MS-SSIM and VIF give, for ``independent.json``.

    pip download --no-deps --no-binary :all: basicsr-fixed==1.4.2 -d SCRATCH   # Apache-2.0; unpack it
    pip download --no-deps piq==0.8.0 -d SCRATCH                               # Apache-2.0; unpack it
    pip download --no-deps sewar==0.4.10 -d SCRATCH                            # MIT; unpack it
    cd tests/evaluation
    python record_independent.py SCRATCH/basicsr-fixed-1.4.2 SCRATCH/piq SCRATCH/sewar > independent.json

The first two want torchvision when imported as a whole, so their modules are loaded one by one.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.data import astronaut, coffee

PICTURES = {"astronaut": lambda: astronaut()[:288, :384], "coffee": lambda: coffee()[:300, :401]}


def damaged(pixels: np.ndarray, kind: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB, in one of the ways that the records name."""
    if kind == "blur":
        return cv2.GaussianBlur(pixels, (0, 0), 2)
    if kind == "noise":
        noise = np.random.default_rng(0).normal(0, 20, pixels.shape)
        return np.clip(pixels + noise, 0, 255).round().astype(np.uint8)
    if kind == "jpeg":
        _, stream = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 20])
        return np.ascontiguousarray(cv2.imdecode(stream, cv2.IMREAD_COLOR)[..., ::-1])
    return pixels


def _package(name: str, folder: Path | None) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = [] if folder is None else [str(folder)]
    sys.modules[name] = module
    return module


def luma(pixels: np.ndarray) -> np.ndarray:
    """(H, W) float64 of uint8 RGB: BT.601 in its studio range, not rounded."""
    return pixels.astype(float) @ np.array([65.481, 128.553, 24.966]) / 255 + 16


def main(basicsr: Path, piq: Path, sewar: Path) -> None:
    for name in ("basicsr", "basicsr.utils", "basicsr.metrics"):
        _package(name, basicsr.joinpath(*name.split(".")))
    sys.modules["basicsr.utils"].bgr2ycbcr = importlib.import_module("basicsr.utils.color_util").bgr2ycbcr  # type: ignore[attr-defined]
    theirs = importlib.import_module("basicsr.metrics.niqe")
    _package("torchvision", None)
    _package("piq", piq / "piq")
    haar_psi = importlib.import_module("piq.haarpsi").haarpsi
    sys.path.insert(0, str(sewar))
    from sewar.full_ref import msssim, vifp

    found: dict[str, dict[str, float]] = {"niqe": {}, "haar_psi": {}, "ms_ssim": {}, "vif": {}}
    for name, picture in PICTURES.items():
        for kind in ("clean", "blur", "noise", "jpeg"):
            bad = damaged(picture(), kind)
            value = theirs.calculate_niqe(bad[..., ::-1].astype(np.float32), 0, input_order="HWC", convert_to="y")
            found["niqe"][f"{name} {kind}"] = round(float(value), 5)
            pair = (torch.from_numpy(p.copy()).permute(2, 0, 1)[None].float() / 255 for p in (bad, picture()))
            found["haar_psi"][f"{name} {kind}"] = round(float(haar_psi(*pair)), 6)
            planes = luma(picture()), luma(bad)
            found["ms_ssim"][f"{name} {kind}"] = round(float(msssim(*planes, MAX=255).real), 6)
            found["vif"][f"{name} {kind}"] = round(float(vifp(*planes)), 6)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

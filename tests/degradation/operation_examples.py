"""A step of every operation, and the texture that they are tried on."""

from __future__ import annotations

import cv2
import numpy as np

from supir.degradation.ops import Picture
from supir.degradation.process import Degradation, Step, apply, step

_GAINS = {"red_gain": 2.0, "blue_gain": 1.6, "crosstalk": 0.2, "seed": 1}

EXAMPLES: dict[str, Step] = {
    "blur": step("blur", size=9, sigma_x=2.0, sigma_y=1.0, angle=0.5, shape="generalized", beta=1.5),
    "sinc": step("sinc", size=15, cutoff=1.5),
    "resize": step("resize", fraction=0.5, interpolation="area"),
    "shrink": step("shrink", fraction=0.4),
    "reduce": step("reduce", fraction=0.25),
    "gaussian_noise": step("gaussian_noise", strength=12.0, grey=False, seed=1),
    "poisson_noise": step("poisson_noise", strength=1.5, grey=True, seed=1),
    "jpeg": step("jpeg", quality=40),
    "motion_blur": step("motion_blur", length=9.0, angle=0.4, shake=0.7, highlights=2.0, seed=1),
    "defocus": step("defocus", radius=3.0, blades=6, angle=0.2, highlights=2.0),
    "fringes": step("fringes", shift=0.01, centre_x=1.5, centre_y=-0.5),
    "haze": step("haze", thickness=1.0, airlight=0.9, warmth=-0.02, slope=0.5, patchiness=0.3, seed=1),
    "sensor": step("sensor", photons=300.0, read_noise=4.0, demosaic="edge_aware", **_GAINS),
    "low_light": step("low_light", exposure=0.1, push=5.0, photons=3000.0, read_noise=3.0, banding=2.0, **_GAINS),
    "in_camera_denoise": step("in_camera_denoise", luma=0.8, chroma=0.8, radius=2),
    "fade": step("fade", cyan_loss=0.6, magenta_loss=0.2, yellow_loss=0.3, stain=0.1),
    "grain": step("grain", strength=15.0, size=1.5, seed=1),
    "scratches": step("scratches", count=10, length=0.8, width=1.5, opacity=0.8, bright=0.7, seed=1),
    "creases": step("creases", count=2, width=3.0, seed=1),
    "dust": step("dust", count=30, size=2.5, hairs=0.2, bright=0.5, seed=1),
    "halftone": step("halftone", period=5.0, angle=0.1, inks="cmyk", gain=0.2, softness=0.5),
    "webp": step("webp", quality=30),
    "recompress": step("recompress", quality=50, times=3, shift=3, drift=-2),
    "video": step("video", quantiser=36, frames=3, motion_x=1.3, motion_y=-0.6, deblock=True),
}


def texture(height: int = 96, width: int = 128) -> Picture:
    """Patches, fine grain and full range, in colour."""
    rng = np.random.default_rng(0)
    coarse = np.asarray(cv2.resize(rng.random((9, 12, 3), np.float32), (width, height), interpolation=cv2.INTER_CUBIC))
    fine = rng.random((height, width, 1), np.float32)
    return np.clip(0.8 * coarse + 0.4 * fine - 0.1, 0, 1).astype(np.float32)


def degraded(one: Step, picture: Picture) -> Picture:
    """The picture after one step."""
    return apply(Degradation((one,)), picture)

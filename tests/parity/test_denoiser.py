"""One call of the discrete denoiser through the tiny networks, with and without text guidance."""

from __future__ import annotations

import torch

from parity.reference_fixtures import ReferenceFixtures
from parity.tiny_network import conditioned_denoiser, conditions
from parity.tolerances import assert_near
from supir.models.adaptor import SupirAdaptor
from supir.models.unet import SupirUNet
from supir.sampling.denoiser import linear_in_sigma, text_guided

TOLERANCE = 1e-4


@torch.no_grad()
def test_denoised_and_guided(fixtures: ReferenceFixtures, tiny_unet: SupirUNet, tiny_adaptor: SupirAdaptor) -> None:
    recorded, guider = fixtures.tensors("denoiser"), fixtures.json("denoiser")["guider"]
    positive, negative = conditions(recorded)
    keys = [key for key in recorded if key.startswith("out_cs")]
    assert keys
    for key in keys:
        denoise = conditioned_denoiser(tiny_unet, tiny_adaptor, float(key.removeprefix("out_cs")))
        assert_near(denoise(recorded["x"], recorded["sigma"], positive), recorded[key], TOLERANCE, key)
    denoise = conditioned_denoiser(tiny_unet, tiny_adaptor, 1.0)
    lowest = guider["scale"] if guider["scale_min"] is None else guider["scale_min"]
    scale = linear_in_sigma(lowest, guider["scale"])
    for in_one_batch in (True, False):
        guided = text_guided(denoise, positive, negative, scale, in_one_batch=in_one_batch)
        assert_near(guided(recorded["x"], recorded["sigma"]), recorded["cfg_out"], TOLERANCE, "guided")

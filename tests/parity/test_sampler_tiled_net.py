"""Whole trajectories through the tiny networks in tiles: blending what each tile denoises equals the tiled samplers."""

from __future__ import annotations

import torch

from parity.reference_fixtures import ReferenceFixtures
from parity.tolerances import assert_relatively_near
from parity.trajectories import replay
from supir.models.adaptor import SupirAdaptor
from supir.models.unet import SupirUNet
from supir.tensors.tiling import reference_gaussian

TOLERANCE = 1e-3


@torch.no_grad()
def test_trajectories(fixtures: ReferenceFixtures, tiny_unet: SupirUNet, tiny_adaptor: SupirAdaptor) -> None:
    recorded, description = fixtures.tensors("sampler_tiled_net"), fixtures.json("sampler_tiled_net")
    layout = reference_gaussian(description["tile_size"], description["tile_stride"])
    for name, case in description["cases"].items():
        for tile_batch in (1, 3):
            latents = replay(tiny_unet, tiny_adaptor, recorded, name, case, layout=layout, tile_batch=tile_batch)
            what = f"case {name}, {tile_batch} tiles at once"
            for step, (found, expected) in enumerate(zip(latents, recorded[f"{name}.traj"], strict=True)):
                assert_relatively_near(found, expected, TOLERANCE, f"{what}, step {step}")
            assert_relatively_near(latents[-1], recorded[f"{name}.out"], TOLERANCE, f"{what}, result")

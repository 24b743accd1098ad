"""Whole trajectories through the tiny networks: every solver and guidance of the reference, untiled."""

from __future__ import annotations

import torch

from parity.reference_fixtures import ReferenceFixtures
from parity.tolerances import assert_relatively_near
from parity.trajectories import replay
from supir.models.adaptor import SupirAdaptor
from supir.models.unet import SupirUNet

TOLERANCE = 1e-3


@torch.no_grad()
def test_trajectories(fixtures: ReferenceFixtures, tiny_unet: SupirUNet, tiny_adaptor: SupirAdaptor) -> None:
    recorded = fixtures.tensors("sampler_net")
    for name, case in fixtures.json("sampler_net")["cases"].items():
        latents = replay(tiny_unet, tiny_adaptor, recorded, name, case)
        assert len(latents) == len(recorded[f"{name}.traj"])
        for step, (found, expected) in enumerate(zip(latents, recorded[f"{name}.traj"], strict=True)):
            assert_relatively_near(found, expected, TOLERANCE, f"{name}, step {step}")
        assert_relatively_near(latents[-1], recorded[f"{name}.out"], TOLERANCE, f"{name}, result")

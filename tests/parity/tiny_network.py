"""The tiny networks as the callables that `supir.sampling` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from supir.models.adaptor import SupirAdaptor
from supir.models.unet import SupirUNet
from supir.sampling.denoiser import Condition, discrete_denoiser

NAMES = {"control": "control", "crossattn": "tokens", "vector": "vector"}


def conditions(recorded: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The positive and the negative condition of a fixture, under our names."""
    positive, negative = ({NAMES[key]: recorded[f"{side}.{key}"] for key in NAMES} for side in ("c", "uc"))
    return positive, negative


def conditioned_denoiser(
    unet: SupirUNet, adaptor: SupirAdaptor, control_scale: float | Callable[[Tensor], Tensor]
) -> Callable[[Tensor, Tensor, Condition], Tensor]:
    """`(x, sigma, condition) -> denoised` of adaptor and UNet; the control scale may follow sigma."""

    def network(sample: Tensor, timestep: Tensor, sigma: Tensor, condition: Mapping[str, Any]) -> Tensor:
        added = {"vector": condition["vector"]}
        scale = control_scale(sigma) if callable(control_scale) else control_scale
        features = adaptor(sample, timestep, condition["tokens"], added, condition["control"])
        return unet(
            sample, timestep, condition["tokens"], added_cond_kwargs=added, control=features, control_scale=scale
        ).sample

    return discrete_denoiser(network)

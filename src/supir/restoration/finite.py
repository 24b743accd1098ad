"""Answers that are no numbers: looked for in the first one, and asked for again in arithmetic that reaches further."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from supir.errors import NotFiniteError
from supir.sampling.solvers import Denoiser
from supir.weights.device import wider_dtypes

WIDENED = ("unet", "adaptor", "text_encoder", "text_encoder_2")
"""The components that calculate in the type that was asked for; the autoencoder has its own."""


class WiderDtypeWarning(UserWarning):
    """The networks' first answer was not finite, and the restoration goes on in a wider type."""


def finite_at_first(denoise: Denoiser, widen: Callable[[], None]) -> Denoiser:
    """``denoise``, whose first answer is looked at, which is one wait for the device.

    It is asked again, with the same, as often as that holds NaN or infinity; before that ``widen`` is called, which
    raises ``NotFiniteError`` when nothing is left to try.
    """
    looked = False

    def answer(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal looked
        found = denoise(x, sigma)
        while not looked and not is_finite(found):
            widen()
            found = denoise(x, sigma)
        looked = True
        return found

    return answer


def finite_at_last(latent: Tensor, dtype: torch.dtype) -> Tensor:
    """What sampling in ``dtype`` came to, when it is finite.

    Raises:
        NotFiniteError: it is not.
    """
    if not is_finite(latent):
        raise NotFiniteError(
            f"sampling came to NaN or infinity after its first step, in {name_of(dtype)}: load the model with dtype"
            " bfloat16 or float32 (--dtype), or lower the guidance"
        )
    return latent


def check_latents(dtype: torch.dtype, *latents: Tensor) -> None:
    """Refuse latents that the networks cannot answer for, which an autoencoder made in ``dtype``.

    Raises:
        NotFiniteError: one is not finite.
    """
    if not all(map(is_finite, latents)):
        raise NotFiniteError(
            f"the autoencoder answers with NaN or infinity in {name_of(dtype)}: its weights are damaged, or they need"
            " float32 (--vae-dtype)"
        )


def not_widened() -> None:
    """Where nobody can change the networks' type.

    Raises:
        NotFiniteError: always.
    """
    raise NotFiniteError("the first answer of the networks holds NaN or infinity; load them in float32")


def is_finite(numbers: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; waits for the device."""
    return bool(numbers.isfinite().all())


def widen_networks(components: Mapping[str, Any], kind: str) -> None:
    """The networks, in place, in the next type that reaches further, with a ``WiderDtypeWarning``.

    Weights keep the rounding of the type that they were loaded in. ``kind`` is that of the device that they run on.

    Raises:
        NotFiniteError: there is no wider type, or something holds the weights in theirs.
    """
    unet = components["unet"]
    before = name_of(unet.dtype)
    cause = f"the first answer of the networks holds NaN or infinity in {before}"
    wider = wider_dtypes(unet.dtype, kind)
    if not wider:
        raise NotFiniteError(
            f"{cause}, beyond which there is nothing: the weights are damaged or do not belong together, or a LoRA or"
            " an option is far too strong; try the model's own presets, then convert it anew"
        )
    networks = [components[name] for name in WIDENED if components.get(name) is not None]
    held = next(filter(None, map(_what_holds, networks)), None)
    if held is not None:
        raise NotFiniteError(f"{cause}, and {held}: load it with dtype {name_of(wider[0])} (--dtype)")
    for network in networks:
        nn.Module.to(network, wider[0])  # diffusers' own complains without a reason
    warnings.warn(
        f"{cause}; going on in {name_of(wider[0])} (--dtype {name_of(wider[0])} begins so)",
        WiderDtypeWarning,
        stacklevel=2,
    )


def name_of(dtype: torch.dtype) -> str:
    """``float16`` of ``torch.float16``."""
    return str(dtype).removeprefix("torch.")


def _what_holds(network: nn.Module) -> str | None:
    """Why the weights of a network cannot be given another type where they are; None where they can."""
    if any(weight.is_meta for weight in network.parameters()):
        return "its weights are offloaded layer by layer"
    if any(hasattr(module, "_diffusers_hook") for module in network.modules()):
        return "its weights are cast or offloaded layer by layer"
    if getattr(network, "hf_quantizer", None) is not None:
        return "its weights are quantised by a library"
    return None

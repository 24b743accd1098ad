"""What every stage of a named run is made from, and the sample sheet that judges it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from supir.files import sentence
from supir.restoration.restorer import latent_factor
from supir.training.pairs import Heldout, psnr, to_pixels, write_sheet
from supir.training.photographs import Photographs
from supir.training.recipes import StageOptions
from supir.training.sizes import Networks

Metric = Callable[[Tensor, Tensor], float]
"""(found, truth), both (B, 3, H, W) in [-1, 1], to a mean over the batch."""


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """Networks, pictures and options of a run."""

    options: StageOptions
    networks: Networks
    """The components of a pipeline, tokenizers included; `runs.make_stage` moves them to the device."""
    photographs: Photographs
    heldout: Heldout
    negatives: Photographs | None = None
    """Negative-quality pictures; None makes them by plain degradation."""
    metrics: Mapping[str, Metric] = field(default_factory=lambda: {"psnr": psnr})
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def scaling(self) -> float:
        """Scaled latent over the autoencoder's own."""
        return float(self.networks["autoencoder"].config.scaling_factor)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Of one training crop."""
        coder = self.networks["autoencoder"]
        side = self.options.crop // latent_factor(coder)
        return int(coder.config.latent_channels), side, side

    def num_left_out(self) -> int:
        """How often a picture or its words could not be used so far."""
        return self.photographs.num_left_out + (0 if self.negatives is None else self.negatives.num_left_out)

    def sheet(
        self, pictures: Callable[[], Mapping[str, Tensor]], more: Callable[[], dict[str, float]] | None = None
    ) -> Callable[[Path | None], dict[str, float]]:
        """A stage's sample sheet: a row for each kind of picture and one of the clean ones.

        ``pictures`` makes them without gradient, by name, in the order of the held-out pairs; ``more`` gives further
        held-out values.
        """

        def write(path: Path | None) -> dict[str, float]:
            shown = {name: batch.float().cpu() for name, batch in pictures().items()}
            try:
                write_sheet(path, [to_pixels(batch) for batch in (*shown.values(), self.heldout.clean)])
            except OSError as error:  # a run does not end for want of a sheet
                warnings.warn(sentence(error, failed="the sheet cannot be written"), stacklevel=2)
            values = {
                f"{kind}_{name}": float(metric(batch.clamp(-1, 1), self.heldout.clean))
                for kind, batch in shown.items()
                for name, metric in self.metrics.items()
            }
            return values | (more() if more else {})

        return write


def hold_frozen(module: nn.Module, options: StageOptions) -> None:
    """Put the parameters that have no gradient into the options' frozen type."""
    kind: torch.dtype = getattr(torch, options.frozen_dtype)
    if kind == torch.float16 and hasattr(module, "encode_degraded"):
        return  # SDXL's autoencoder overflows in half precision
    for parameter in module.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(kind)

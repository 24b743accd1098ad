"""A tiny model under original names, as two files: an SDXL single file and a SUPIR file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from parity.reference_fixtures import ReferenceFixtures
from supir.weights.layout import ADAPTOR, CLIP_G, CLIP_L, CONNECTORS, DEGRADED_ENCODER, HeadDims

SUPIR_PREFIXES = (ADAPTOR, CONNECTORS, DEGRADED_ENCODER)


@dataclass(frozen=True)
class OriginalModel:
    """Weights under original names, split as they are published, and the head sizes that shapes do not tell."""

    sdxl: dict[str, Tensor]
    supir: dict[str, Tensor]
    head_dims: HeadDims

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Both as safetensors files."""
        sdxl, supir = folder / "sdxl.safetensors", folder / "supir.safetensors"
        save_file(self.sdxl, sdxl)
        save_file(self.supir, supir)
        return sdxl, supir


@pytest.fixture(scope="session")
def original() -> OriginalModel:
    fixtures = ReferenceFixtures(Path(__file__).parents[1] / "parity" / "fixtures")
    weights = fixtures.tiny_state_dict()
    towers = fixtures.json("text_towers")
    weights |= fixtures.recipe({key: shape for key, (shape, _) in towers["weights"].items()}, towers["weight_seed"])
    supir = {key: tensor for key, tensor in weights.items() if key.startswith(SUPIR_PREFIXES)}
    sdxl = {key: tensor for key, tensor in weights.items() if key not in supir}
    sdxl[CLIP_L + "embeddings.position_ids"] = torch.arange(77)[None]
    sdxl[CLIP_G + "logit_scale"] = torch.tensor(4.6)
    supir["denoiser.sigmas"] = torch.linspace(0.03, 14.6, 1000)
    return OriginalModel(sdxl, supir, HeadDims(unet=16, text_encoder=8, text_encoder_2=12))

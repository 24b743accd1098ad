"""The key map follows the numbering: models of other depths, widths and levels find their way there and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from loading import load_components
from supir.models.adaptor import SupirAdaptor
from supir.models.autoencoder import SupirAutoencoder
from supir.models.unet import SupirUNet
from supir.weights.layout import HeadDims, read_numbering
from weights.originals import numbering_of, original_weights

HEAD_DIMS = HeadDims(unet=16, connectors=32, text_encoder=8, text_encoder_2=4)
LAYOUTS = {
    "SDXL's, not so deep": ((32, 64, 128), 2, (0, 2, 3), (0, 2, 3)),
    "a trimmed adaptor": ((32, 64, 128), 2, (0, 1, 4), (0, 1, 2)),
    "two levels, attention on both": ((32, 64), 2, (1, 3), (1, 1)),
    "four levels": ((32, 32, 64, 64), 1, (0, 1, 1, 2), (0, 0, 1, 1)),
    "three layers a level": ((32, 64, 128), 3, (0, 1, 2), (0, 1, 1)),
}


def _trunk(widths: tuple[int, ...], layers: int, depths: tuple[int, ...]) -> dict[str, Any]:
    return {
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths),
        "transformer_layers_per_block": tuple(depth or 1 for depth in depths),
        "attention_head_dim": tuple(width // HEAD_DIMS.unet for width in widths),
        "cross_attention_dim": 24,
        "projection_class_embeddings_input_dim": 40,
    }


def _text(width: int, head_dim: int, projection: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=30, hidden_size=width, intermediate_size=20, num_hidden_layers=2, projection_dim=projection,
        num_attention_heads=width // head_dim, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip


@pytest.fixture(scope="module", params=LAYOUTS)
def models(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Models of a layout, made by their own arguments."""
    widths, layers, depths, adaptor_depths = LAYOUTS[request.param]
    up_blocks = tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths))
    return {
        "unet": SupirUNet(
            **_trunk(widths, layers, depths),
            up_block_types=up_blocks,
            connector_hidden_channels=48,
            connector_head_dim=HEAD_DIMS.connectors,
        ),
        "adaptor": SupirAdaptor(**_trunk(widths, layers, adaptor_depths)),
        "autoencoder": SupirAutoencoder(
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        "text_encoder": CLIPTextModel(_text(16, 8, 16)),
        "text_encoder_2": CLIPTextModelWithProjection(_text(8, 4, 12)),
    }


def test_there_and_back(models: dict[str, Any]) -> None:
    """Numbering read from names, models made by shapes, every tensor in its place: the same models again."""
    numbering = numbering_of(models)
    originals = original_weights(models, numbering)
    assert read_numbering({key: tuple(tensor.shape) for key, tensor in originals.items()}) == numbering
    again, report = load_components(originals, head_dims=HEAD_DIMS)
    assert report.ok
    for name, model in models.items():
        expected, found = model.state_dict(), again[name].state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    configured = (
        "block_out_channels",
        "layers_per_block",
        "attention_head_dim",
        "down_block_types",
        "transformer_layers_per_block",
        "cross_attention_dim",
    )
    for name in ("unet", "adaptor"):
        for field in configured:
            assert again[name].config[field] == models[name].config[field], f"{name} {field}"

"""The key map follows the layout: models of other depths, widths and levels find their way there and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from supir.weights.keymap import KeyMap
from supir.weights.layout import (
    AutoencoderLayout,
    ConnectorLayout,
    HeadDims,
    ModelLayout,
    TextLayout,
    TrunkLayout,
    read_layout,
)
from supir.weights.load import load_components
from supir.weights.plan import build_component

HEAD_DIMS = HeadDims(unet=16, connectors=32, text_encoder=8, text_encoder_2=4)


def _layout(
    widths: tuple[int, ...], layers: int, depths: tuple[int, ...], adaptor_depths: tuple[int, ...]
) -> ModelLayout:
    trunk: dict[str, Any] = {
        "block_out_channels": widths,
        "layers_per_block": layers,
        "in_channels": 4,
        "context_channels": 24,
        "vector_channels": 40,
    }
    num_connectors = 1 + len(widths) * (layers + 1) + len(widths) - 1
    # Counted from the middle block outwards: after each level's ZeroSFTs its cross attention, but for the last level.
    attentions = {num_connectors - 1 - (level + 1) * (layers + 2) for level in range(len(widths) - 1)}
    return ModelLayout(
        unet=TrunkLayout(depths=depths, **trunk),
        adaptor=TrunkLayout(depths=adaptor_depths, **trunk),
        connectors=ConnectorLayout(
            num_connectors=num_connectors, cross_attentions=frozenset(attentions), hidden_channels=48
        ),
        autoencoder=AutoencoderLayout(block_out_channels=(32, 64), layers_per_block=1, latent_channels=4),
        text_encoder=TextLayout(
            width=16, num_layers=2, hidden_width=20, vocabulary=30, num_positions=77, projection=16
        ),
        text_encoder_2=TextLayout(
            width=8, num_layers=3, hidden_width=24, vocabulary=30, num_positions=77, projection=12
        ),
        head_dims=HEAD_DIMS,
    )


LAYOUTS = {
    "SDXL's, not so deep": _layout((32, 64, 128), 2, (0, 2, 3), (0, 2, 3)),
    "a trimmed adaptor": _layout((32, 64, 128), 2, (0, 1, 4), (0, 1, 2)),
    "two levels, attention on both": _layout((32, 64), 2, (1, 3), (1, 1)),
    "four levels": _layout((32, 32, 64, 64), 1, (0, 1, 1, 2), (0, 0, 1, 1)),
    "three layers a level": _layout((32, 64, 128), 3, (0, 1, 2), (0, 1, 1)),
}


def _originals(layout: ModelLayout) -> dict[str, Tensor]:
    """Random weights under the original names that a model of this layout has, by the way back of the key map."""
    key_map = KeyMap(layout)
    weights: dict[str, Tensor] = {}
    for component in ("unet", "adaptor", "autoencoder", "text_encoder", "text_encoder_2"):
        for name, parameter in build_component(component, layout).state_dict().items():
            named = name if key_map.original(component, name) else f"text_model.{name}"
            key = key_map.original(component, named)
            assert key is not None, f"{component}.{name}"
            [shaping] = [target.shaping for target in key_map.targets(key) if target.name == named]
            weights[key] = torch.randn(_original_shape(tuple(parameter.shape), shaping))
    return weights


def _original_shape(shape: tuple[int, ...], shaping: str) -> tuple[int, ...]:
    if shaping == "matrix":
        return (*shape, 1, 1)
    if shaping == "transpose":
        return shape[::-1]
    return (3 * shape[0], *shape[1:]) if shaping in ("query", "key", "value") else shape


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> ModelLayout:
    return LAYOUTS[request.param]


@pytest.fixture(scope="module")
def originals(layout: ModelLayout) -> Mapping[str, Tensor]:
    return _originals(layout)


def test_layout_is_read_from_shapes(layout: ModelLayout, originals: Mapping[str, Tensor]) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in originals.items()}
    assert read_layout(shapes, HEAD_DIMS) == layout


def test_every_key_finds_its_place(originals: Mapping[str, Tensor]) -> None:
    models, report = load_components(originals, head_dims=HEAD_DIMS)
    assert report.ok
    assert report.num_tensors == sum(len(model.state_dict()) for model in models.values())
    control = models["adaptor"](
        torch.randn(1, 4, 16, 16), torch.tensor([5]), torch.randn(1, 7, 24), {"vector": torch.randn(1, 40)},
        torch.randn(1, 4, 16, 16),
    )  # fmt: skip
    predicted = models["unet"](
        torch.randn(1, 4, 16, 16), torch.tensor([5]), torch.randn(1, 7, 24),
        added_cond_kwargs={"vector": torch.randn(1, 40)}, control=control,
    ).sample  # fmt: skip
    assert predicted.shape == (1, 4, 16, 16)

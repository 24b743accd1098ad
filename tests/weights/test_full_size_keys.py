"""Every key of full-size SDXL and SUPIR has its place in the models, on the meta device, and every place its key."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from supir.weights.keymap import KeyMap
from supir.weights.layout import ADAPTOR, CLIP_G, CLIP_L, CONNECTORS, DEGRADED_ENCODER, Shapes, read_numbering
from supir.weights.plan import Plan, make_plan

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
NUM_SDXL_KEYS = 2515
DROPPED = {"denoiser.sigmas", CLIP_L + "embeddings.position_ids", CLIP_G + "logit_scale"}


class ShapesOnly:
    """A checkpoint of shapes without values."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.dtypes = dict.fromkeys(shapes, "F32")

    def tensor(self, key: str) -> Tensor:
        return torch.empty(self.shapes[key], device="meta")


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    recorded = json.loads(gzip.decompress((FIXTURES / "fullsize_shapes.json.gz").read_bytes()))
    return {key: tuple(shape) for part in ("ran", "derived") for key, (shape, _) in recorded[part].items()}


@pytest.fixture(scope="module")
def plan(shapes: dict[str, tuple[int, ...]]) -> Plan:
    return make_plan(ShapesOnly(shapes))


def _counts() -> dict[str, Any]:
    return json.loads((FIXTURES / "param_counts.json").read_text())


def _num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_key_is_mapped_and_every_place_filled(plan: Plan, shapes: dict[str, tuple[int, ...]]) -> None:
    supir = (ADAPTOR, CONNECTORS, DEGRADED_ENCODER, "denoiser.")
    assert sum(not key.startswith(supir) for key in shapes) == NUM_SDXL_KEYS
    assert plan.report.ok, plan.report.summary()
    assert set(plan.report.dropped) == DROPPED
    used = {origin.key for component in plan.components for origin in component.origins.values()}
    assert used == set(shapes) - DROPPED


def test_every_tensor_gets_its_shape(plan: Plan, shapes: dict[str, tuple[int, ...]]) -> None:
    source = ShapesOnly(shapes)
    for component in plan.components:
        for name, shape in component.shapes.items():
            assert tuple(component.tensor(name, source, None).shape) == shape, name


def test_the_way_back_names_the_original(shapes: dict[str, tuple[int, ...]]) -> None:
    key_map = KeyMap(read_numbering(shapes))
    for key in shapes:
        for target in key_map.targets(key):
            assert key_map.original(target.component, target.name) == key


def test_parameter_counts(plan: Plan) -> None:
    counts = {name: entry["params"] for name, entry in _counts().items() if "params" in entry}
    models = {component.name: component.model for component in plan.components}
    unet, autoencoder = models["unet"], models["autoencoder"]
    assert _num_parameters(unet) == counts["model.diffusion_model."]
    assert _num_parameters(unet.connectors) == counts["model.diffusion_model.project_modules."]
    assert _num_parameters(models["adaptor"]) == counts["model.control_model."]
    assert _num_parameters(autoencoder) == counts["first_stage_model."]
    assert _num_parameters(autoencoder.degraded_encoder) == counts["first_stage_model.denoise_encoder."]
    assert _num_parameters(autoencoder.encoder) == counts["first_stage_model.encoder."]
    assert _num_parameters(autoencoder.decoder) == counts["first_stage_model.decoder."]
    # The recorded counts hold the two keys that are dropped: 77 position ids, and one logit scale.
    assert _num_parameters(models["text_encoder"]) == counts["conditioner.embedders.0."] - 77
    assert _num_parameters(models["text_encoder_2"]) == counts["conditioner.embedders.1."] - 1
    num_dropped = 77 + 1 + 1000  # and the table of sigmas
    assert sum(map(_num_parameters, models.values())) == counts["everything"] - num_dropped


def test_trimmed_adaptor(shapes: dict[str, tuple[int, ...]]) -> None:
    """The paper's trim, as keys: fewer transformer blocks per level, read from the keys alone."""
    depths = {"4": 1, "5": 1, "7": 4, "8": 4}

    def kept(key: str) -> bool:
        parts = key.removeprefix(ADAPTOR).split(".")
        if "transformer_blocks" not in parts:
            return True
        depth = 4 if parts[0] == "middle_block" else depths[parts[1]]
        return int(parts[parts.index("transformer_blocks") + 1]) < depth

    trimmed = {key: shape for key, shape in shapes.items() if key.startswith(ADAPTOR) and kept(key)}
    [entry] = [entry for name, entry in _counts().items() if "[1,1,4]" in name]
    assert len(trimmed) == entry["tensors"]
    plan = make_plan(ShapesOnly(trimmed), components=("adaptor",))
    assert tuple(plan.components[0].model.config.transformer_layers_per_block) == (1, 1, 4)
    assert _num_parameters(plan.components[0].model) == entry["params"]

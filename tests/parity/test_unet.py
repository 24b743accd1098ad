"""Adaptor and UNet with connectors against the recorded control features and predictions."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from parity.reference_fixtures import ReferenceFixtures, build_tiny, check_sums
from supir.models.adaptor import SupirAdaptor
from supir.models.unet import SupirUNet

CONTROL_TOLERANCE = 1e-4
OUTPUT_TOLERANCE = 2e-5
DOUBLE_TOLERANCE = 1e-6  # the reference rounds to float32 in its upsampling


def _case(tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    [name] = {key.split(".")[0] for key in tensors}
    return name, {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items()}


def _recorded_controls(case: dict[str, Tensor]) -> list[Tensor]:
    return [case[f"control_{index}"] for index in range(sum(key.startswith("control_") for key in case))]


@torch.no_grad()
def _replay(unet: SupirUNet, adaptor: SupirAdaptor, case: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Any]:
    """Control features, and the prediction at every recorded control scale."""
    unet, adaptor = copy.deepcopy(unet).to(dtype), copy.deepcopy(adaptor).to(dtype)
    sample, text, vector, hint = (case[key].to(dtype) for key in ("xt", "context", "y", "hint"))
    conditions = {"vector": vector}
    controls = adaptor(sample, case["t"], text, conditions, hint)
    scales = {key.split("_cs")[1].rpartition(".")[0] for key in case if key.startswith("out_cs")}
    outputs = {
        scale: unet(sample, case["t"], text, added_cond_kwargs=conditions, control=controls, control_scale=float(scale))
        for scale in scales
    }
    return {"controls": controls, **{scale: output.sample for scale, output in outputs.items()}}


def _check(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=0, atol=tolerance)


def _check_all(unet: SupirUNet, adaptor: SupirAdaptor, case: dict[str, Tensor], dtype: torch.dtype) -> None:
    replayed = _replay(unet, adaptor, case, dtype)
    for found, expected in zip(replayed["controls"], _recorded_controls(case), strict=True):
        _check(found, expected, CONTROL_TOLERANCE)
    suffix, tolerance = ("f32", OUTPUT_TOLERANCE) if dtype == torch.float32 else ("f64", DOUBLE_TOLERANCE)
    recorded = [key for key in case if key.startswith("out_cs") and key.endswith(suffix)]
    assert recorded
    for key in recorded:
        _check(replayed[key.split("_cs")[1].rpartition(".")[0]], case[key], tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["unet", "unet_b"])
def test_control_features_and_prediction(
    fixtures: ReferenceFixtures, tiny_unet: SupirUNet, tiny_adaptor: SupirAdaptor, name: str, dtype: torch.dtype
) -> None:
    _, case = _case(fixtures.tensors(name))
    _check_all(tiny_unet, tiny_adaptor, case, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_trimmed_adaptor(fixtures: ReferenceFixtures, tiny_unet: SupirUNet, dtype: torch.dtype) -> None:
    """An adaptor of less depth than the UNet, its weights under keys that begin with `trimmed.`."""
    description = fixtures.json("unet_trimmed_control")
    recorded = description["control_weights"]
    weights = fixtures.recipe(
        {key: shape for key, (shape, _) in recorded.items()}, description["config"]["weight_seed"]
    )
    check_sums(weights, recorded)
    weights = {key.removeprefix("trimmed."): tensor for key, tensor in weights.items()}
    adaptor = build_tiny(weights, description["config"], ["adaptor"])["adaptor"]
    kinds, depths = adaptor.config.down_block_types, adaptor.config.transformer_layers_per_block
    for kind, depth, expected in zip(kinds, depths, description["control_transformer_depth"], strict=True):
        assert kind == "DownBlock2D" or depth == expected
    _, case = _case(fixtures.tensors("unet_trimmed_control"))
    _check_all(tiny_unet, adaptor, case, dtype)


def _decoder_parts(unet: SupirUNet) -> dict[str, torch.nn.Module]:
    """The modules whose output is recorded: connectors, and the last module of each decoder layer."""
    parts = {f"dbg_project_module_{index}": connector for index, connector in enumerate(unet.connectors)}
    index = 0
    for block in unet.up_blocks:
        for layer, resnet in enumerate(block.resnets):
            attentions = getattr(block, "attentions", None)
            parts[f"dbg_output_block_{index}"] = attentions[layer] if attentions else resnet
            index += 1
    return parts


def test_what_happens_inside_the_decoder(
    fixtures: ReferenceFixtures, tiny_unet: SupirUNet, tiny_adaptor: SupirAdaptor
) -> None:
    """Each connector and each decoder layer, so that a fault says where it is."""
    _, case = _case(fixtures.tensors("unet"))
    recorded = [key for key in case if key.startswith("dbg_")]
    if not recorded:
        pytest.skip("this set of fixtures has no intermediate results")
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            seen[name] = output if isinstance(output, Tensor) else output[0]

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in _decoder_parts(tiny_unet).items()]
    try:
        with torch.no_grad():
            conditions = {"vector": case["y"]}
            controls = tiny_adaptor(case["xt"], case["t"], case["context"], conditions, case["hint"])
            tiny_unet(case["xt"], case["t"], case["context"], added_cond_kwargs=conditions, control=controls)
    finally:
        for handle in handles:
            handle.remove()
    assert set(recorded) <= set(seen)
    for name in recorded:
        _check(seen[name][:1], case[name], CONTROL_TOLERANCE)

"""ZeroSFT and zero cross attention against recorded outputs, their weights named through the key map."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from parity.reference_fixtures import ReferenceFixtures
from parity.tolerances import assert_near
from supir.models.connectors import ZeroCrossAttention, ZeroSFT
from supir.weights.keymap import KeyMap
from supir.weights.layout import CONNECTORS, Numbering

TOLERANCES = {"f32": 2e-5, "f64": 1e-10}


def _our_weights(weights: Mapping[str, Tensor], *, cross_attention: bool) -> dict[str, Tensor]:
    """The recorded weights as those of connector 0, under our names."""
    key_map = KeyMap(Numbering(connectors=(cross_attention,)))
    targets = {name: key_map.targets(f"{CONNECTORS}0.{name}") for name in weights}
    assert all(len(target) == 1 for target in targets.values())
    return {targets[name][0].name.removeprefix("connectors.0."): tensor for name, tensor in weights.items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_zero_sft(fixtures: ReferenceFixtures, precision: str) -> None:
    cases, tensors = fixtures.json("zero_sft")["cases"], fixtures.tensors("zero_sft")
    dtype = torch.float32 if precision == "f32" else torch.float64
    for name, case in cases.items():
        recorded = _part(tensors, f"{name}.")
        weights = _our_weights(_part(recorded, "w."), cross_attention=False)
        hidden = weights["mlp_shared.0.weight"].shape[0]
        connector = ZeroSFT(case["label_nc"], case["norm_nc"], case["concat_channels"], hidden)
        connector.load_state_dict(weights, assign=True)
        connector.to(dtype)
        decoder = recorded["h_ori"].to(dtype) if case["h_ori"] else None
        for scale in case["control_scales"]:
            with torch.no_grad():
                found = connector(recorded["c"].to(dtype), recorded["h"].to(dtype), decoder, scale)
            key = f"out_cs{scale}.{precision}"
            assert_near(found, recorded[key], TOLERANCES[precision], f"{name} {key}")


@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_zero_cross_attention(fixtures: ReferenceFixtures, precision: str) -> None:
    config, recorded = fixtures.json("zero_cross_attn"), fixtures.tensors("zero_cross_attn")
    dtype = torch.float32 if precision == "f32" else torch.float64
    connector = ZeroCrossAttention(config["query_dim"], config["context_dim"], config["dim_head"])
    connector.load_state_dict(_our_weights(_part(recorded, "w."), cross_attention=True), assign=True)
    connector.to(dtype)
    assert connector.num_heads == config["heads"]
    keys = [key for key in recorded if key.startswith("out_cs") and key.endswith(precision)]
    assert keys
    for key in keys:
        scale = float(key.removeprefix("out_cs").removesuffix(f".{precision}"))
        with torch.no_grad():
            found = connector(recorded["context"].to(dtype), recorded["x"].to(dtype), scale)
        assert_near(found, recorded[key], TOLERANCES[precision], key)

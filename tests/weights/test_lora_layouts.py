"""LoRAs in the layouts that people have: each comes to what its formula says of the weights, reckoned here apart."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from supir.errors import WeightsError
from supir.pipeline import SupirPipeline
from tiny import tiny_components, tiny_pipeline

LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV = "down_blocks.1.resnets.0.conv1"
SGM = {LINEAR: "input_blocks.4.1.transformer_blocks.0.attn1.to_out.0", CONV: "input_blocks.4.0.in_layers.2"}
"""The names of the original code: two resnets a level and a downsampling."""
Layers = dict[str, dict[str, Tensor]]


def _fresh() -> SupirPipeline:
    """A pipeline whose networks may be changed."""
    return tiny_pipeline(**{name: copy.deepcopy(tiny_components()[name]) for name in ("unet", "text_encoder")})


def _weight(module: str) -> Tensor:
    return tiny_components()["unet"].get_submodule(module).weight.detach()  # type: ignore[attr-defined]


def _halves(module: str, rank: int = 2) -> tuple[Tensor, Tensor]:
    out, given, *kernel = _weight(module).shape
    return torch.randn(rank, given, *kernel), torch.randn(out, rank, *[1 for _ in kernel])


def _product(down: Tensor, up: Tensor) -> Tensor:
    return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])


def _lora(down: str, up: str, *, alpha: float | None = None) -> Callable[[], tuple[Layers, Layers]]:
    def made() -> tuple[Layers, Layers]:
        file, changes = {}, {}
        for module in (LINEAR, CONV):
            one, other = _halves(module)
            file[module] = {down: one, up: other} | ({} if alpha is None else {"alpha": torch.tensor(alpha)})
            changes[module] = _weight(module) + _product(one, other) * (1 if alpha is None else alpha / 2)
        return file, changes

    return made


def _with_core() -> tuple[Layers, Layers]:
    one, core, other = torch.randn(2, _weight(CONV).shape[1], 1, 1), torch.randn(3, 2, 3, 3), torch.randn(64, 3, 1, 1)
    change = torch.einsum("om,mrkl,ri->oikl", other[:, :, 0, 0], core, one[:, :, 0, 0])
    return {CONV: {"lora_down.weight": one, "lora_mid.weight": core, "lora_up.weight": other}}, {
        CONV: _weight(CONV) + change
    }


def _dora(magnitude: str) -> tuple[Layers, Layers]:
    down, up = _halves(LINEAR)
    size = torch.rand(len(up), 1) + 0.5
    changed = _weight(LINEAR) + _product(down, up)
    names = ("lora_down.weight", "lora_up.weight") if magnitude == "dora_scale" else ("lora_A.weight", "lora_B.weight")
    file = {LINEAR: {names[0]: down, names[1]: up, magnitude: size if magnitude == "dora_scale" else size.flatten()}}
    return file, {LINEAR: size * changed / changed.norm(dim=1, keepdim=True)}


def _loha() -> tuple[Layers, Layers]:
    file, changes = {}, {}
    for module in (LINEAR, CONV):
        weight, rank = _weight(module), 3
        parts = {f"hada_w{half}_a": torch.randn(len(weight), rank) for half in "12"}
        parts |= {f"hada_w{half}_b": torch.randn(rank, weight[0].numel()) for half in "12"}
        change = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
        file[module] = parts | {"alpha": torch.tensor(1.5)}
        changes[module] = weight + change.reshape(weight.shape) * 1.5 / rank
    return file, changes


def _lokr(*, halves: bool) -> tuple[Layers, Layers]:
    rows, columns = _weight(LINEAR).shape
    first, second = torch.randn(4, 2), (torch.randn(rows // 4, 3), torch.randn(3, columns // 2))
    parts = {"lokr_w1": first, "alpha": torch.tensor(6.0)}
    parts |= {"lokr_w2_a": second[0], "lokr_w2_b": second[1]} if halves else {"lokr_w2": second[0] @ second[1]}
    scale = 2.0 if halves else 1.0  # two whole factors are not scaled
    return {LINEAR: parts}, {LINEAR: _weight(LINEAR) + torch.kron(first, second[0] @ second[1]) * scale}


def _kohya(module: str) -> str:
    return "lora_unet_" + module.replace(".", "_")


CASES: dict[str, tuple[Callable[[], tuple[Layers, Layers]], Callable[[str], str]]] = {
    "kohya": (_lora("lora_down.weight", "lora_up.weight", alpha=1.0), _kohya),
    "kohya, original names": (_lora("lora_down.weight", "lora_up.weight", alpha=1.0), lambda name: _kohya(SGM[name])),
    "diffusers": (_lora("lora_A.weight", "lora_B.weight"), lambda name: f"unet.{name}"),
    "diffusers before peft": (_lora("lora.down.weight", "lora.up.weight"), lambda name: f"unet.{name}"),
    "PEFT": (_lora("lora_A.weight", "lora_B.weight"), lambda name: f"base_model.model.{name}"),
    "ComfyUI": (_lora("lora_A.weight", "lora_B.weight"), lambda name: f"diffusion_model.{SGM[name]}"),
    "LoCon with a core": (_with_core, _kohya),
    "DoRA of kohya": (lambda: _dora("dora_scale"), _kohya),
    "DoRA of PEFT": (lambda: _dora("lora_magnitude_vector.weight"), lambda name: f"unet.{name}"),
    "LoHa": (_loha, lambda name: "lycoris_" + name.replace(".", "_")),
    "LoKr": (lambda: _lokr(halves=False), _kohya),
    "LoKr in halves": (lambda: _lokr(halves=True), _kohya),
}


def _answers(pipeline: SupirPipeline) -> dict[str, Tensor]:
    """What the two layers make of something: PEFT's layers stand in their places."""
    generator = torch.Generator().manual_seed(0)
    inputs = {LINEAR: (1, 64), CONV: (1, _weight(CONV).shape[1], 5, 5)}
    with torch.no_grad():
        return {
            module: pipeline.unet.get_submodule(module)(torch.randn(*shape, generator=generator))
            for module, shape in inputs.items()
        }


@pytest.mark.parametrize("case", CASES)
def test_each_layout_is_the_change_of_weights_that_its_formula_says(case: str) -> None:
    torch.manual_seed(1)
    made, named = CASES[case]
    layers, weights = made()
    file = {f"{named(module)}.{part}": tensor for module, parts in layers.items() for part, tensor in parts.items()}
    expected = _fresh()
    for module, weight in weights.items():
        expected.unet.get_submodule(module).weight.data = weight
    pipeline = _fresh()
    pipeline.load_lora_weights(file)
    found, right = _answers(pipeline), _answers(expected)
    for module in weights:
        assert torch.allclose(found[module], right[module], rtol=1e-3, atol=1e-3 * float(right[module].abs().max()))
        assert not torch.allclose(found[module], _answers(_fresh())[module], atol=1e-2)


def test_text_towers_in_kohyas_layout() -> None:
    """Whatever transformers calls them."""
    pipeline = _fresh()
    names = [name for name, module in pipeline.text_encoder.named_modules() if isinstance(module, nn.Linear)]
    module = next(name for name in names if name.endswith("layers.0.self_attn.q_proj"))
    down, up = torch.randn(2, 20), torch.randn(20, 2)
    key = "lora_te1_text_model_" + module.removeprefix("text_model.").replace(".", "_")
    before = pipeline.text_encoder.get_submodule(module).weight.detach().clone()
    pipeline.load_lora_weights({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up})
    given = torch.randn(3, 20)
    layer: Any = pipeline.text_encoder.get_submodule(module)
    with torch.no_grad():
        assert torch.allclose(layer(given), given @ (before + up @ down).T + layer.base_layer.bias, atol=1e-4)


def test_what_cannot_be_held_is_refused_by_name() -> None:
    down, up = _halves(LINEAR)
    layer = _kohya(LINEAR)
    plain = {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}
    strangers: dict[str, dict[str, Tensor]] = {
        "OFT, which is not read": {f"{layer}.oft_blocks": torch.zeros(2, 2, 2)},
        "LoHa with a core, which is not read": {
            f"{_kohya(CONV)}.hada_{part}": torch.zeros(2, 2, 3, 3) for part in ("t1", "w1_a")
        },
        "lacks up, the other half": {f"{layer}.lora_down.weight": down},
        "magnitudes of inputs": plain | {f"{layer}.dora_scale": torch.ones(1, 64)},
        "some layers have no magnitudes": plain
        | {f"{layer}.dora_scale": torch.ones(64, 1)}
        | {
            f"{_kohya(CONV)}.lora_{half}.weight": part for half, part in zip(("down", "up"), _halves(CONV), strict=True)
        },
    }
    for said, file in strangers.items():
        pipeline = _fresh()
        with pytest.raises(WeightsError, match=said):
            pipeline.load_lora_weights(file)
        assert not any(pipeline.get_list_adapters().values()), said

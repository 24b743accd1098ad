"""LoRAs as people have them, under the names of our networks and as plain pairs of matrices, which peft takes.

Read are the layouts of kohya's scripts, of diffusers, of PEFT and of ComfyUI, DoRA's magnitudes among them, and of
LyCORIS what can be said as a pair of matrices, exactly: LoHa, LoKr, and convolutions with a core between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from supir.errors import WeightsError
from supir.weights.checkpoint import TensorSource
from supir.weights.keymap import KeyMap
from supir.weights.layout import UNET, Numbering, TrunkNumbering

_PREFIXES = (
    ("lora_unet_", "unet"), ("lycoris_", "unet"), ("lora_te1_", "text_encoder"), ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"), ("unet.", "unet"), ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"), ("adaptor.", "adaptor"), ("diffusion_model.", "unet"), ("", "unet"),
)  # fmt: skip
_PARTS = {
    "lora_down.weight": "down", "lora_A.weight": "down", "lora.down.weight": "down", "lora_A.default.weight": "down",
    "lora_linear_layer.down.weight": "down", "lora_up.weight": "up", "lora_B.weight": "up", "lora.up.weight": "up",
    "lora_B.default.weight": "up", "lora_linear_layer.up.weight": "up", "lora_mid.weight": "mid", "alpha": "alpha",
    "dora_scale": "magnitude", "lora_magnitude_vector": "magnitude", "lora_magnitude_vector.weight": "magnitude",
    "lora_magnitude_vector.default.weight": "magnitude",
    **{name: name for half in "12" for kind in ("hada", "lokr") for name in (f"{kind}_w{half}_a", f"{kind}_w{half}_b")},
    "lokr_w1": "lokr_w1", "lokr_w2": "lokr_w2",
}  # fmt: skip
_NOT_READ = (("oft_", "OFT"), ("hada_t", "LoHa with a core"), ("lokr_t", "LoKr with a core"), (".a1.", "GLoRA"))
_OLD_PROCESSOR = re.compile(r"\.processor\.(to_[a-z]+)_lora$")


def plain_layers(
    opened: TensorSource, networks: Mapping[str, Any], name: str
) -> tuple[dict[str, dict[str, Tensor]], int]:
    """The layers of a LoRA under the names of networks, in PEFT's layout, and how many have no place there.

    Args:
        opened: the LoRA.
        networks: by component; None where one is not there.
        name: of the LoRA, for messages.

    Returns:
        By component: ``MODULE.lora_A.weight``, ``MODULE.lora_B.weight``, and ``MODULE.lora_magnitude_vector.weight`` of
        a DoRA. What alpha says is multiplied in.

    Raises:
        WeightsError: it is of a kind that is not read, or a layer lacks a half.
    """
    for mark, kind in _NOT_READ:
        if any(mark in key for key in opened.shapes):
            raise WeightsError(f"{name}: {kind}, which is not read; LoRA, DoRA, LoHa and LoKr are")
    layers: dict[str, dict[str, str]] = {}
    for key in opened.shapes:
        part = next((part for part in _PARTS if key.endswith("." + part)), None)
        layer = key.rpartition(".")[0] if part is None else key.removesuffix("." + part)
        layers.setdefault(layer, {})[(part and _PARTS[part]) or key] = key
    places = {component: _places(network) for component, network in networks.items()}
    found: dict[str, dict[str, Tensor]] = {}
    lost = 0
    for layer, keys in layers.items():
        place = _place(layer, places)
        if place is None or not set(keys) <= set(_PARTS.values()):
            lost += 1
            continue
        component, module = place
        made = _peft_parts({part: opened.tensor(key) for part, key in keys.items()}, f"{name}: {layer}")
        target, dtype = networks[component].get_submodule(module), networks[component].dtype
        found.setdefault(component, {}).update(
            {f"{module}.{part}.weight": _as_of(target, part, tensor).to(dtype) for part, tensor in made.items()}
        )
    for tensors in found.values():
        magnitudes = sum(".lora_magnitude_vector." in key for key in tensors)
        if magnitudes and magnitudes * 3 != len(tensors):
            raise WeightsError(f"{name}: a DoRA of which some layers have no magnitudes, which peft cannot hold")
    return found, lost


def _place(layer: str, places: Mapping[str, Mapping[str, str]]) -> tuple[str, str] | None:
    """The component and module that are meant."""
    text = _OLD_PROCESSOR.sub(r".\1", layer).removeprefix("base_model.model.")
    prefix, component = next((prefix, component) for prefix, component in _PREFIXES if text.startswith(prefix))
    flat = text.removeprefix(prefix).replace(".", "_")
    known = places.get(component, {})
    module = known.get(flat) or known.get(f"{flat}_0")  # to_out, which holds a list
    return None if module is None else (component, module)


def _places(network: Any) -> dict[str, str]:
    """The modules of a network by their names, and original names, with underlines for dots."""
    found: dict[str, str] = {}
    if not isinstance(network, nn.Module):
        return found
    config: Any = network.config
    kinds = getattr(config, "down_block_types", ())
    trunk = TrunkNumbering(getattr(config, "layers_per_block", 0), tuple(kind.startswith("Cross") for kind in kinds))
    keys = KeyMap(Numbering(unet=trunk))
    for name, module in network.named_modules():
        if next(module.children(), None) is not None and not hasattr(module, "base_layer"):
            continue
        flat = name.replace(".", "_")
        found |= {flat: name, f"text_model_{flat}": name}
        original = keys.original("unet", f"{name}.weight") if kinds else None
        if original is not None:
            found[original.removeprefix(UNET).removesuffix(".weight").replace(".", "_")] = name
    return found


def _peft_parts(parts: dict[str, Tensor], layer: str) -> dict[str, Tensor]:
    """One layer's matrices by peft's names.

    Raises:
        WeightsError: a half is missing.
    """
    alpha = parts.pop("alpha", None)
    magnitude = parts.pop("magnitude", None)
    wide = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in parts.items()}
    try:
        if "down" in wide:
            rank = wide["down"].shape[0]
            down, up = wide["down"], wide["up"]
            if "mid" in wide:
                down = torch.einsum("mrkl,ri->mikl", wide["mid"], down.flatten(1))
        elif any(name.startswith("hada") for name in wide):
            rank = wide["hada_w1_b"].shape[0]
            down, up = _loha(*(wide[f"hada_w{half}_{end}"] for half in "12" for end in "ab"))
        else:
            w1 = wide["lokr_w1"] if "lokr_w1" in wide else wide["lokr_w1_a"] @ wide["lokr_w1_b"]
            ranks = [wide[name].shape[0] for name in ("lokr_w1_b", "lokr_w2_b") if name in wide]
            rank = ranks[-1] if ranks else 0
            down, up = _lokr(w1, *(wide[name] for name in ("lokr_w2_a", "lokr_w2_b", "lokr_w2") if name in wide))
    except KeyError as error:
        raise WeightsError(f"{layer}: lacks {error.args[0]}, the other half of what is there") from None
    if alpha is not None and rank:  # two whole factors of a LoKr are not scaled
        up = up * (float(alpha) / rank)
    found = {"lora_A": down, "lora_B": up}
    if magnitude is not None:
        if magnitude.ndim > 1 and (magnitude.shape[0] == 1 or magnitude.shape[0] != magnitude.numel()):
            raise WeightsError(f"{layer}: a DoRA with magnitudes of inputs; peft has those of outputs alone")
        found["lora_magnitude_vector"] = magnitude.float().flatten()
    return found


def _loha(w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor) -> tuple[Tensor, Tensor]:
    """(w1_a @ w1_b) * (w2_a @ w2_b), element by element, as a pair: of products of all columns, and of all rows."""
    up = (w1_a[:, :, None] * w2_a[:, None, :]).flatten(1)
    down = (w1_b[:, None] * w2_b[None, :]).flatten(0, 1)
    return _small(down, up)


def _lokr(w1: Tensor, *w2: Tensor) -> tuple[Tensor, Tensor]:
    """The Kronecker product of two matrices, the second perhaps in two halves, as a pair."""
    if len(w2) == 2:
        return _small(torch.kron(torch.eye(w1.shape[1]), w2[1]), torch.kron(w1, w2[0]))
    [whole] = w2
    kernel = whole.shape[2:]
    product = torch.kron(w1[(...,) + (None,) * len(kernel)].contiguous(), whole.contiguous())
    return product, torch.eye(product.shape[0])


def _small(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The pair, or its product with ones beside it where that has fewer rows."""
    return (down, up) if down.shape[0] <= up.shape[0] else (up @ down, torch.eye(up.shape[0]))


def _as_of(module: Any, part: str, tensor: Tensor) -> Tensor:
    """A matrix as peft has it beside this module: with a kernel beside a convolution, without beside the others."""
    if part == "lora_magnitude_vector":
        return tensor
    layer = getattr(module, "base_layer", module)
    if not isinstance(layer, nn.Conv2d):
        return tensor.flatten(1) if tensor[0].numel() == tensor.shape[1] else tensor
    if part == "lora_B":
        return tensor.reshape(*tensor.shape[:2], 1, 1)
    return tensor.reshape(tensor.shape[0], -1, *layer.kernel_size) if tensor.ndim == 2 else tensor


def num_placed(layers: Mapping[str, Mapping[str, Tensor]]) -> int:
    """How many layers have a place."""
    return sum(key.endswith(".lora_A.weight") for tensors in layers.values() for key in tensors)


def with_prefixes(
    layers: Mapping[str, Mapping[str, Tensor]], components: tuple[str, ...]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of some components, each under a name that begins with its component's."""
    for component in components:
        for key, tensor in layers.get(component, {}).items():
            yield f"{component}.{key}", tensor

"""Original names to ours, as data: rules of one prefix each, most with a table of the names below it.

Ours are diffusers' and transformers' names, so that each component is what those libraries save and load. A rule names
a component (a folder of the model) and a prefix in it. The rules follow from a `Numbering`: which numbered block of
the original is which level and layer depends on the depth of the model, and on nothing else.

Diffusers' own conversion of single files (``loaders.single_file_utils``) was weighed in place of SDXL's rules and left:
it finds blocks by parts of names, passes over keys that it does not know, fails by a `KeyError` on some that it lacks,
works on tensors that were read, and knows no way back, by which a missing weight is called by its original name. What
would have to stand around it is as long as the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from supir.weights.layout import (
    ADAPTOR,
    AUTOENCODER,
    CLIP_G,
    CLIP_L,
    CONNECTORS,
    DEGRADED_ENCODER,
    HUB_ADAPTOR,
    HUB_AUTOENCODER,
    HUB_CLIP_G,
    HUB_CLIP_L,
    HUB_UNET,
    UNET,
    Numbering,
    TrunkNumbering,
)

Shaping = Literal["same", "matrix", "transpose", "query", "key", "value"]
"""How a tensor changes: a 1x1 convolution into a matrix, a transposition, or one third of a fused projection."""

RESNET = {
    "in_layers.0.": "norm1.",
    "in_layers.2.": "conv1.",
    "emb_layers.1.": "time_emb_proj.",
    "out_layers.0.": "norm2.",
    "out_layers.3.": "conv2.",
    "skip_connection.": "conv_shortcut.",
}
EMBEDDING = {"0.": "linear_1.", "2.": "linear_2."}


def _kept(*names: str) -> dict[str, str]:
    return {name: name for name in names}


ZERO_SFT = {"param_free_norm.": "norm.", **_kept("mlp_shared.0.", "zero_conv.", "zero_mul.", "zero_add.")}
ZERO_CROSS_ATTENTION = {
    "norm1.": "norm_query.",
    "norm2.": "norm_context.",
    "attn.to_out.0.": "to_out.",
    **{f"attn.{name}": name for name in ("to_q.", "to_k.", "to_v.")},
}
AUTOENCODER_RESNET = {"nin_shortcut.": "conv_shortcut.", **_kept("norm1.", "conv1.", "norm2.", "conv2.")}
AUTOENCODER_ATTENTION = {"q.": "to_q.", "k.": "to_k.", "v.": "to_v.", "proj_out.": "to_out.0."}
HUB_ATTENTION = {
    "query.": "to_q.",
    "key.": "to_k.",
    "value.": "to_v.",
    "proj_attn.": "to_out.0.",
    **_kept("group_norm.", "to_"),
}
"""Diffusers' names, and what they were before version 0.17."""
OPEN_CLIP_BLOCK = {
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "attn.out_proj.": "self_attn.out_proj.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
FUSED: Mapping[str, Shaping] = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}


@dataclass(frozen=True)
class Rule:
    """Keys beginning with `original` become names of `component` beginning with `ours`.

    `inner` maps what follows the prefix, by prefix again; empty, what follows stays. A name that a non-empty `inner`
    does not know is not mapped.
    """

    original: str
    component: str
    ours: str
    inner: Mapping[str, str] = field(default_factory=dict)
    shaping: Shaping = "same"


@dataclass(frozen=True)
class Target:
    """Where an original tensor goes: a parameter of a component, and how the tensor changes on the way."""

    component: str
    name: str
    shaping: Shaping = "same"


def rules(numbering: Numbering) -> Iterator[Rule]:
    """Every rule of a model numbered so."""
    yield from _encoder_rules(UNET, "unet", numbering.unet)
    yield from _decoder_rules(UNET, "unet", numbering.unet)
    for index, attends in enumerate(numbering.connectors):
        inner = ZERO_CROSS_ATTENTION if attends else ZERO_SFT
        yield Rule(f"{CONNECTORS}{index}.", "unet", f"connectors.{index}.", inner)
    yield from _encoder_rules(ADAPTOR, "adaptor", numbering.adaptor)
    yield Rule(ADAPTOR + "input_hint_block.0.", "adaptor", "hint_conv.")
    yield from _autoencoder_rules(*numbering.autoencoder)
    yield Rule(CLIP_L, "text_encoder", "text_model.")
    yield from _open_clip_rules(numbering.text_layers)
    yield from _hub_rules()


def _hub_rules() -> Iterator[Rule]:
    """Names that diffusers and transformers gave: ours already."""
    for prefix, component in ((HUB_UNET, "unet"), (HUB_ADAPTOR, "adaptor"), (HUB_AUTOENCODER, "autoencoder")):
        yield Rule(prefix, component, "")
    for half in ("encoder.", "decoder.", "degraded_encoder."):
        attention = f"{half}mid_block.attentions.0."
        yield Rule(HUB_AUTOENCODER + attention, "autoencoder", attention, HUB_ATTENTION, "matrix")
    for prefix, component in ((HUB_CLIP_L, "text_encoder"), (HUB_CLIP_G, "text_encoder_2")):
        yield Rule(prefix, component, "text_model.")
        yield Rule(f"{prefix}text_model.", component, "text_model.")
    yield Rule(f"{HUB_CLIP_G}text_projection.", "text_encoder_2", "text_projection.")


def _encoder_rules(prefix: str, component: str, trunk: TrunkNumbering) -> Iterator[Rule]:
    yield Rule(f"{prefix}time_embed.", component, "time_embedding.", EMBEDDING)
    yield Rule(f"{prefix}label_emb.0.", component, "add_embedding.", EMBEDDING)
    yield Rule(f"{prefix}input_blocks.0.0.", component, "conv_in.")
    index = 0
    for level, attends in enumerate(trunk.attends):
        for layer in range(trunk.layers_per_block):
            index += 1
            yield Rule(f"{prefix}input_blocks.{index}.0.", component, f"down_blocks.{level}.resnets.{layer}.", RESNET)
            if attends:
                yield Rule(f"{prefix}input_blocks.{index}.1.", component, f"down_blocks.{level}.attentions.{layer}.")
        if level < len(trunk.attends) - 1:
            index += 1
            ours = f"down_blocks.{level}.downsamplers.0.conv."
            yield Rule(f"{prefix}input_blocks.{index}.0.op.", component, ours)
    yield Rule(f"{prefix}middle_block.0.", component, "mid_block.resnets.0.", RESNET)
    yield Rule(f"{prefix}middle_block.1.", component, "mid_block.attentions.0.")
    yield Rule(f"{prefix}middle_block.2.", component, "mid_block.resnets.1.", RESNET)


def _decoder_rules(prefix: str, component: str, trunk: TrunkNumbering) -> Iterator[Rule]:
    index = 0
    for level, attends in enumerate(reversed(trunk.attends)):
        for layer in range(trunk.layers_per_block + 1):
            block, part = f"{prefix}output_blocks.{index}.", 1
            yield Rule(f"{block}0.", component, f"up_blocks.{level}.resnets.{layer}.", RESNET)
            if attends:
                yield Rule(f"{block}1.", component, f"up_blocks.{level}.attentions.{layer}.")
                part = 2
            if layer == trunk.layers_per_block and level < len(trunk.attends) - 1:
                yield Rule(f"{block}{part}.conv.", component, f"up_blocks.{level}.upsamplers.0.conv.")
            index += 1
    yield Rule(f"{prefix}out.0.", component, "conv_norm_out.")
    yield Rule(f"{prefix}out.2.", component, "conv_out.")


def _autoencoder_rules(levels: int, layers: int) -> Iterator[Rule]:
    component = "autoencoder"
    halves = ((AUTOENCODER + "encoder.", "encoder."), (DEGRADED_ENCODER, "degraded_encoder."))
    for prefix, ours in (*halves, (AUTOENCODER + "decoder.", "decoder.")):
        for name in ("conv_in.", "conv_out."):
            yield Rule(prefix + name, component, ours + name)
        yield Rule(f"{prefix}norm_out.", component, f"{ours}conv_norm_out.")
        for block in (0, 1):
            new = f"{ours}mid_block.resnets.{block}."
            yield Rule(f"{prefix}mid.block_{block + 1}.", component, new, AUTOENCODER_RESNET)
        attention = f"{ours}mid_block.attentions.0."
        yield Rule(f"{prefix}mid.attn_1.norm.", component, f"{attention}group_norm.")
        yield Rule(f"{prefix}mid.attn_1.", component, attention, AUTOENCODER_ATTENTION, "matrix")
    for level in range(levels):
        for prefix, ours in halves:
            old, new = f"{prefix}down.{level}.", f"{ours}down_blocks.{level}."
            for layer in range(layers):
                yield Rule(f"{old}block.{layer}.", component, f"{new}resnets.{layer}.", AUTOENCODER_RESNET)
            yield Rule(f"{old}downsample.conv.", component, f"{new}downsamplers.0.conv.")
        # The original numbers the decoder's levels from the pixels inwards, diffusers in the order they run.
        old, new = f"{AUTOENCODER}decoder.up.{levels - 1 - level}.", f"decoder.up_blocks.{level}."
        for layer in range(layers + 1):
            yield Rule(f"{old}block.{layer}.", component, f"{new}resnets.{layer}.", AUTOENCODER_RESNET)
        yield Rule(f"{old}upsample.conv.", component, f"{new}upsamplers.0.conv.")
    for name in ("quant_conv.", "post_quant_conv."):
        yield Rule(AUTOENCODER + name, component, name)


def _open_clip_rules(layers: int) -> Iterator[Rule]:
    component = "text_encoder_2"
    embeddings = "text_model.embeddings."
    yield Rule(f"{CLIP_G}token_embedding.", component, f"{embeddings}token_embedding.")
    yield Rule(f"{CLIP_G}positional_embedding", component, f"{embeddings}position_embedding.weight")
    yield Rule(f"{CLIP_G}ln_final.", component, "text_model.final_layer_norm.")
    yield Rule(f"{CLIP_G}text_projection", component, "text_projection.weight", shaping="transpose")
    for layer in range(layers):
        old, new = f"{CLIP_G}transformer.resblocks.{layer}.", f"text_model.encoder.layers.{layer}."
        yield Rule(old, component, new, OPEN_CLIP_BLOCK)
        for kind in ("weight", "bias"):
            for name, shaping in FUSED.items():
                fused = f"{old}attn.in_proj_{kind}"
                yield Rule(fused, component, f"{new}self_attn.{name}.{kind}", shaping=shaping)


class KeyMap:
    """All rules of one numbering, ready to look up.

    `targets(key)` gives the places of a key (three for a fused projection, none for an unknown one),
    `original(component, name)` the way back.
    """

    def __init__(self, numbering: Numbering) -> None:
        self._by_prefix: dict[str, list[Rule]] = {}
        self._by_name: dict[tuple[str, str], Rule] = {}
        for rule in rules(numbering):
            self._by_prefix.setdefault(rule.original, []).append(rule)
            self._by_name.setdefault((rule.component, rule.ours), rule)  # the original's, before a folder's

    def targets(self, key: str) -> tuple[Target, ...]:
        """Where the tensor `key` goes; empty if nowhere."""
        for prefix in _prefixes(key):
            found = [target for rule in self._by_prefix.get(prefix, ()) if (target := _apply(rule, key))]
            if found:
                return tuple(found)
        return ()

    def original(self, component: str, name: str) -> str | None:
        """The original key that `name` of `component` is made from; None if no rule makes it."""
        for prefix in _prefixes(name):
            rule = self._by_name.get((component, prefix))
            if rule is None:
                continue
            rest = name.removeprefix(prefix)
            if not rule.inner:
                return rule.original + rest
            for old, new in rule.inner.items():
                if rest.startswith(new):
                    return rule.original + old + rest.removeprefix(new)
        return None

    def sources(self, keys: Iterable[str]) -> dict[str, dict[str, tuple[str, Shaping]]]:
        """For the given original keys: component -> our name -> (original key, shaping)."""
        found: dict[str, dict[str, tuple[str, Shaping]]] = {}
        for key in keys:
            for target in self.targets(key):
                found.setdefault(target.component, {})[target.name] = (key, target.shaping)
        return found


def _prefixes(name: str) -> Iterator[str]:
    """The name itself, then its dotted beginnings, the longest first."""
    yield name
    end = len(name)
    while (end := name.rfind(".", 0, end)) >= 0:
        yield name[: end + 1]


def _apply(rule: Rule, key: str) -> Target | None:
    rest = key.removeprefix(rule.original)
    if rule.inner:
        found = next((old for old in rule.inner if rest.startswith(old)), None)
        if found is None:
            return None
        rest = rule.inner[found] + rest.removeprefix(found)
    is_bias = rule.shaping == "matrix" and rest.endswith("bias")
    return Target(rule.component, rule.ours + rest, "same" if is_bias else rule.shaping)


def shaped_size(shape: tuple[int, ...], shaping: Shaping) -> tuple[int, ...]:
    """The shape of a tensor of `shape` after `shaping`."""
    if shaping == "matrix":
        return shape[:2] if shape[2:] in ((), (1,), (1, 1)) else shape
    if shaping == "transpose":
        return shape[::-1]
    if shaping in FUSED.values():
        return (shape[0] // 3, *shape[1:])
    return shape


def shaped(tensor: Tensor, shaping: Shaping) -> Tensor:
    """`tensor` as `shaping` says; contiguous, and sharing memory only where it is the whole tensor."""
    if shaping == "matrix":
        return tensor.reshape(shaped_size(tuple(tensor.shape), shaping))
    if shaping == "transpose":
        return tensor.t().contiguous()
    if shaping in FUSED.values():
        part = list(FUSED.values()).index(shaping)
        return tensor.chunk(3)[part].clone()
    return tensor

"""What models people have, told by their keys and shapes; those that cannot be the base are refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable

from supir.errors import WeightsError
from supir.weights.layout import (
    ADAPTOR,
    AUTOENCODER,
    CLIP_G,
    CONNECTORS,
    DEGRADED_ENCODER,
    HUB_AUTOENCODER,
    HUB_UNET,
    UNET,
    Shapes,
)

LORA_MARKS = ("lora_up.", "lora_down.", "lora_A.", "lora_B.", "lora_linear_layer", "hada_w", "lokr_", "oft_", ".lora.")
_NEEDED = "Give an SDXL base or a fine-tune of it."


def is_lora(shapes: Shapes) -> bool:
    """Whether these are the small matrices of a LoRA and no model's."""
    return any(mark in key for key in shapes for mark in LORA_MARKS) and not has_unet(shapes)


def has_unet(shapes: Shapes) -> bool:
    """Whether a UNet's first convolution is there, under an original name or a folder's."""
    return UNET + "input_blocks.0.0.weight" in shapes or HUB_UNET + "conv_in.weight" in shapes


def is_supir(shapes: Shapes) -> bool:
    """Whether any part is there that SUPIR adds."""
    return _begins(shapes, ADAPTOR, CONNECTORS, DEGRADED_ENCODER)


def _begins(shapes: Shapes, *prefixes: str) -> bool:
    return any(key.startswith(prefixes) for key in shapes)


def _contains(*parts: str) -> Callable[[Shapes], bool]:
    return lambda shapes: any(part in key for key in shapes for part in parts)


def _reads_text_of(width: int) -> Callable[[Shapes], bool]:
    """Whether the UNet's cross attentions read text features of this width."""

    def holds(shapes: Shapes) -> bool:
        trunk = (key for key in shapes if key.startswith((UNET, HUB_UNET)) and not key.startswith(CONNECTORS))
        key = next((key for key in trunk if key.endswith("attn2.to_k.weight")), None)
        return key is not None and shapes[key][1:] == (width,)

    return holds


def _takes(extra: int) -> Callable[[Shapes], bool]:
    """Whether the UNet takes so many channels more than it gives."""

    def holds(shapes: Shapes) -> bool:
        first = shapes.get(UNET + "input_blocks.0.0.weight", shapes.get(HUB_UNET + "conv_in.weight", ()))
        last = shapes.get(UNET + "out.2.weight", shapes.get(HUB_UNET + "conv_out.weight", ()))
        return len(first) == len(last) == 4 and first[1] - last[0] == extra

    return holds


def _without_vector(shapes: Shapes) -> bool:
    """Whether a UNet has nothing for the pooled text and the sizes, as all before SDXL."""
    return has_unet(shapes) and not _begins(shapes, UNET + "label_emb.", HUB_UNET + "add_embedding.")


_BASE_OF_IT = "Give the base that it was made from."
KINDS: tuple[tuple[str, Callable[[Shapes], bool], str], ...] = (
    (
        "one process's part of a DeepSpeed ZeRO-3 training",
        lambda shapes: sum(0 in shape for shape in shapes.values()) * 2 > len(shapes),
        "Join the parts with the zero_to_fp32.py that lies beside them.",
    ),
    ("a LoRA", is_lora, "It is put onto a loaded model, by load_lora_weights of the pipeline, and cannot be one."),
    (
        "a textual inversion",
        lambda shapes: len(shapes) <= 4 and bool({"emb_params", "clip_l", "clip_g", "*"} & set(shapes)),
        _NEEDED,
    ),
    ("an IP-Adapter", lambda shapes: _begins(shapes, "image_proj.", "ip_adapter."), _NEEDED),
    (
        "a ControlNet",
        lambda shapes: (
            _contains("controlnet_cond_embedding", "lora_controlnet")(shapes)
            or (_begins(shapes, "control_model.", "input_hint_block.") and not has_unet(shapes))
        ),
        _NEEDED,
    ),
    ("a Flux model", _contains("double_blocks.0.", "single_transformer_blocks.0."), _NEEDED),
    ("a Stable Diffusion 3 model", _contains("joint_blocks.0.", "pos_embed.proj."), _NEEDED),
    (
        "a Playground v2.5 model, whose latents have another scale",
        lambda shapes: "edm_mean" in shapes or "edm_std" in shapes,
        _NEEDED,
    ),
    ("a CosXL model, which has another noise schedule", lambda shapes: _begins(shapes, "edm_vpred."), _NEEDED),
    (
        "SDXL's refiner, not its base",
        lambda shapes: (
            _reads_text_of(1280)(shapes)
            or (_begins(shapes, "conditioner.embedders.0.model.") and not _begins(shapes, CLIP_G))
        ),
        "Give the base that belongs to it.",
    ),
    (
        "a Stable Diffusion 2 model",
        lambda shapes: _begins(shapes, "cond_stage_model.model.") or _reads_text_of(1024)(shapes),
        _NEEDED,
    ),
    (
        "a Stable Diffusion 1 model",
        lambda shapes: _begins(shapes, "cond_stage_model.") or _reads_text_of(768)(shapes),
        _NEEDED,
    ),
    ("a Stable Diffusion 1 or 2 model", _without_vector, _NEEDED),
    ("an inpainting model, whose UNet takes 5 channels more: a mask and a masked picture", _takes(5), _BASE_OF_IT),
    ("an editing model (InstructPix2Pix), whose UNet takes 4 channels more", _takes(4), _BASE_OF_IT),
    ("a depth model, whose UNet takes a channel more", _takes(1), _NEEDED),
)
"""Weights that are no SDXL, in the order they are asked: what to call them, how they are told, what to do."""


def refuse_other_kinds(shapes: Shapes, what: str) -> None:
    """Refuse weights, of one file or folder under our prefixes, that are known to be no SDXL or SUPIR.

    Raises:
        WeightsError: names the kind, and what to do.
    """
    for name, holds, advice in KINDS:
        if holds(shapes):
            raise WeightsError(f"{what}: {name}, which cannot be used here. {advice}")


def is_autoencoder_alone(shapes: Shapes) -> bool:
    """Whether there is an autoencoder and no UNet."""
    return _begins(shapes, AUTOENCODER + "encoder.", HUB_AUTOENCODER + "encoder.") and not has_unet(shapes)

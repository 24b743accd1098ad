"""The files of the LoRAs that options name, and what makes of them another result. Nothing heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from safetensors import SafetensorError, safe_open

from supir.errors import MissingExtraError, WeightsError
from supir.options.loras import Lora, split_loras
from supir.weights.catalog import known_hash
from supir.weights.kinds import LORA_MARKS
from supir.weights.layout import Shapes

SUFFIX = ".safetensors"

_DOWN = (".lora_down.weight", ".lora_A.weight", ".lora.down.weight", "_lora.down.weight", ".hada_w1_b")
_TEXT_READERS = ("attn2_to_k", "attn2.to_k", "attn2_to_v", "attn2.to_v", "attn2.processor.to_k", "attn2.processor.to_v")
_OTHER_BASES = (
    (("double_blocks", "single_blocks", "single_transformer_blocks"), "Flux"),
    (("joint_blocks", "transformer.transformer_blocks"), "Stable Diffusion 3 or Flux"),
    (("diffusion_model.blocks.", "diffusion_model.layers.", "transformer.blocks."), "a model without a UNet"),
    (("lora_prior_", "lora_stage_"), "Stable Cascade"),
)
_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "SDXL's refiner", 2048: "SDXL"}


def offered(folder: Path) -> dict[str, Path]:
    """The LoRAs of a folder by the names under which clients may ask for them: those of the files, without suffix."""
    return {file.stem: file for file in sorted(folder.glob(f"*{SUFFIX}")) if file.is_file()}


def lora_file(lora: Lora, folder: Path | None = None) -> Path:
    """The file that is meant.

    Args:
        lora: whose name is a path, or, where there is a folder, a name in it and nothing else.
        folder: from which alone LoRAs may be taken.

    Raises:
        WeightsError: there is none.
    """
    if folder is not None:
        files = offered(folder)
        if lora.name not in files:
            raise WeightsError(f"there is no LoRA {lora.name!r} here; there are: {', '.join(files) or 'none'}")
        return files[lora.name]
    path = Path(lora.name)
    if not path.is_file():
        what = "is a folder; name a file in it" if path.is_dir() else "there is no such file"
        raise WeightsError(f"{path}: {what}; a LoRA is a {SUFFIX} file")
    return path


def check_base(shapes: Shapes, name: str, width: int | None) -> None:
    """Refuse what is no LoRA, or one of another base, by its names and by the width of the text that it reads."""
    if not any(mark in key for key in shapes for mark in LORA_MARKS):
        shown = ", ".join(list(shapes)[:3]) or "nothing"
        raise WeightsError(f"{name}: is no LoRA: it holds {shown} ..., and no pair of small matrices")
    for marks, base in _OTHER_BASES:
        if any(mark in key for key in shapes for mark in marks):
            raise WeightsError(f"{name}: a LoRA of {base}, which does not fit SDXL; give one that was made for SDXL")
    for key, shape in shapes.items():
        reads = any(reader in key for reader in _TEXT_READERS) and key.endswith(_DOWN) and len(shape) > 1
        if reads and width is not None and shape[1] != width:
            base = f"a LoRA of {_WIDTHS[shape[1]]}" if shape[1] in _WIDTHS else "a LoRA of another base"
            raise WeightsError(
                f"{name}: {base}: it reads text {shape[1]} channels wide, and this model's text is {width} wide; give"
                " one that was made for SDXL"
            )


def check_lora_file(lora: Lora, folder: Path | None, model: Path) -> None:
    """See that a LoRA is there and made for the base of a model folder, by names and shapes alone.

    Raises:
        MissingExtraError: peft is not installed.
        WeightsError: it is missing, is none, or of another base; the message calls it as it was asked for.
    """
    if find_spec("peft") is None:
        raise MissingExtraError("peft", "lora", "a LoRA")
    file = lora_file(lora, folder)
    if file.suffix == SUFFIX:  # others are read when they are put on
        width = json.loads((model / "unet" / "config.json").read_text(encoding="utf-8")).get("cross_attention_dim")
        check_base(_shapes(file, lora.name), lora.name, width)


def _shapes(file: Path, name: str) -> Shapes:
    """Of the header alone."""
    try:
        with safe_open(file, framework="numpy") as opened:
            return {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{name}: is no {SUFFIX} file, or a damaged one: {str(error)[:200]}") from error


def adapter_names(loras: tuple[Lora, ...]) -> list[str]:
    """What each is called on the networks and in records: its file's name without what peft does not allow."""
    found: list[str] = []
    for each in loras:
        stem = Path(each.name).name.removesuffix(SUFFIX).replace(".", "_")
        found.append(
            next(name for number in range(len(found) + 1) if (name := stem + f"_{number}" * (number > 0)) not in found)
        )
    return found


def identity_of_loras(text: str, folder: Path | None = None) -> Mapping[str, str]:
    """As a pipeline's record has it: name, strength and hash of each; nothing where there is none.

    Raises:
        WeightsError: a file is not there.
    """
    loras = split_loras(text)
    words = [
        in_words(name, f"{each.strength:g}", known_hash(lora_file(each, folder)))
        for name, each in zip(adapter_names(loras), loras, strict=True)
        if each.strength
    ]
    return {"adapters": ", ".join(sorted(words))} if words else {}


def in_words(name: str, strength: str, digest: str | None) -> str:
    """One that acts."""
    return f"{name} {strength}" + (f" sha256:{digest}" if digest else "")

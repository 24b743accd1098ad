"""Folders of diffusers: SDXL as the hub has it, a component alone, or a model folder of ours as the base of another.

Each component's names are put behind the component's own (``unet.conv_in.weight``), as ``supir.weights.layout`` knows
them. Of several files of the same weights the one of most bits is taken, safetensors before pickles.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supir.errors import WeightsError
from supir.options.distilled import distilled_kind
from supir.weights.catalog import file_hash, files_hash
from supir.weights.checkpoint import Merged, Renamed, TensorSource, open_checkpoint
from supir.weights.layout import HUB_ADAPTOR, HUB_AUTOENCODER, HUB_CLIP_G, HUB_CLIP_L, HUB_UNET, Traits
from supir.weights.model_folder import INDEX

SDXL_SCALING = 0.13025
"""By which SDXL's latents are multiplied."""

_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_VARIANTS = ("", ".fp32", ".bf16", ".fp16")
_TOKENIZERS = ("tokenizer", "tokenizer_2")
_VOCABULARIES = ("vocab.json", "tokenizer.json")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A file or folder that a user named: its tensors, the files they come from, and what else it says."""

    path: Path
    source: TensorSource
    files: tuple[Path, ...]
    traits: Traits = field(default_factory=Traits)
    head_dims: Mapping[str, int] = field(default_factory=dict)
    """Channels of an attention head, by the fields of `HeadDims`, where a configuration says them."""
    tokenizers: Path | None = None
    titles: tuple[str, ...] = ()
    """What the metadata of a file calls it."""
    share: float | None = None
    """Of a file that is mixed into another: how much of it."""

    @property
    def distilled(self) -> str | None:
        """How it is distilled to few steps, by its name and titles."""
        return distilled_kind(self.path.name, *self.titles)

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def named(self) -> dict[str, Path]:
        """The files by their names in the folder."""
        share = "" if self.share is None else f" x {self.share:g}"
        return {path.relative_to(self.folder).as_posix() + share: path for path in self.files}

    @property
    def sha256(self) -> str:
        """The hash of a file, or that of the files of a folder that were read; reads every byte."""
        return file_hash(self.path) if self.files == (self.path,) else files_hash(self.named)


COMPONENTS = {
    "unet": (HUB_UNET, ("UNet2DConditionModel", "SupirUNet")),
    "vae": (HUB_AUTOENCODER, ("AutoencoderKL",)),
    "autoencoder": (HUB_AUTOENCODER, ("SupirAutoencoder",)),
    "adaptor": (HUB_ADAPTOR, ("SupirAdaptor",)),
    "text_encoder": (HUB_CLIP_L, ("CLIPTextModel",)),
    "text_encoder_2": (HUB_CLIP_G, ("CLIPTextModelWithProjection",)),
}
"""By the folder that a component lies in: what its names are put behind, and the classes that may have written it."""


def open_folder(folder: Path) -> Opened:
    """Open a folder: a diffusers model's, a component's, or one that holds a single file's shards.

    Raises:
        WeightsError: it is another model's, or none; a file of it is missing or damaged.
    """
    folder = _snapshot(folder)
    _check_pipeline(folder)
    found = {name: folder / name for name in COMPONENTS if (folder / name / "config.json").is_file()}
    if not found and (folder / "config.json").is_file():
        kind = _class_of(folder)
        found = {name: folder for name, (_, classes) in COMPONENTS.items() if kind in classes}
        if not found:
            raise WeightsError(f"{folder}: holds a {kind}, and no component of SDXL")
    if not found:
        source, files = _open_weights(folder)
        return Opened(path=folder, source=source, files=files)
    sources, used, configs = [], [], {}
    for name, place in found.items():
        prefix, classes = COMPONENTS[name]
        configs[name] = _config(place, classes)
        source, files = _open_weights(place)
        sources.append(Renamed(source, {prefix + key: key for key in source.shapes}))
        used += [*files, place / "config.json"]
    return Opened(
        path=folder,
        source=Merged(sources),
        files=tuple(used),
        traits=_traits(folder, configs),
        head_dims=_head_dims(folder, configs),
        tokenizers=folder
        if all(any((folder / name / file).is_file() for file in _VOCABULARIES) for name in _TOKENIZERS)
        else None,
    )


def _snapshot(folder: Path) -> Path:
    """The model in a folder of the hub's cache, where there is one of it; any other folder itself."""
    snapshots = list((folder / "snapshots").iterdir()) if (folder / "snapshots").is_dir() else []
    return snapshots[0] if len(snapshots) == 1 else folder


def _check_pipeline(folder: Path) -> None:
    """Refuse a folder whose index says that it is another model's."""
    if not (folder / INDEX).is_file():
        return
    kind = str(_read(folder / INDEX).get("_class_name"))
    if not kind.startswith(("StableDiffusionXL", "SupirPipeline")):
        raise WeightsError(f"{folder}: a {kind}, and no SDXL. Give an SDXL base or a fine-tune of it.")


def _open_weights(folder: Path) -> tuple[TensorSource, tuple[Path, ...]]:
    """The weights in one folder, whole or in shards, and the files they are in."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    wanted = [
        name
        for kind, index in (("safetensors", "safetensors.index"), ("bin", "bin.index"))
        for stem in _STEMS
        for variant in _VARIANTS
        for name in (
            f"{stem}{variant}.{kind}",
            f"{stem}{variant}.{index}.json",
            f"{stem}.{index}{variant}.json",
        )
    ]
    single = [name for name in names if name.endswith((".safetensors", ".ckpt", ".safetensors.index.json"))]
    name = next((name for name in wanted if name in names), single[0] if len(single) == 1 else None)
    if name is None:
        there = ", ".join(names[:5]) or "nothing"
        raise WeightsError(f"{folder}: holds no weights that are read ({there}); give a file, or an SDXL folder")
    return open_file(folder / name)


def open_file(path: Path) -> tuple[TensorSource, tuple[Path, ...]]:
    """A weights file, or the index of a sharded one, and the files that are read."""
    source = open_checkpoint(path)
    if not path.name.endswith(".json"):
        return source, (path,)
    shards = set(_read(path)["weight_map"].values())
    return source, tuple(path.parent / shard for shard in sorted(shards))


def _config(folder: Path, classes: Sequence[str]) -> Mapping[str, Any]:
    config, kind = _read(folder / "config.json"), _class_of(folder)
    if kind not in classes:
        raise WeightsError(f"{folder}: holds a {kind}, where SDXL has a {classes[0]}")
    if any(config.get(name) is not None for name in ("latents_mean", "latents_std")):
        raise WeightsError(f"{folder}: its latents have a mean and deviation of their own, as no SDXL's; not supported")
    return config


def _class_of(folder: Path) -> str:
    config = _read(folder / "config.json")
    return str(config.get("_class_name") or next(iter(config.get("architectures") or ()), "model of no known class"))


def _traits(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> Traits:
    unet, path = configs.get("unet", {}), folder / "scheduler" / "scheduler_config.json"
    scheduler = _read(path) if path.is_file() else {}
    autoencoder = configs.get("vae") or configs.get("autoencoder") or {}
    return Traits(
        prediction_type=unet.get("prediction_type") or scheduler.get("prediction_type"),
        scaling_factor=autoencoder.get("scaling_factor"),
        force_upcast=autoencoder.get("force_upcast"),
        zero_terminal_snr=bool(scheduler.get("rescale_betas_zero_snr")),
    )


def _head_dims(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    unet = configs.get("unet", {})
    dims = {"unet": _head_dim(folder, unet)} if unet else {}
    if "connector_head_dim" in unet:
        dims["connectors"] = unet["connector_head_dim"]
    for name in ("text_encoder", "text_encoder_2"):
        if name in configs:
            dims[name] = configs[name]["hidden_size"] // configs[name]["num_attention_heads"]
    return dims


def _head_dim(folder: Path, unet: Mapping[str, Any]) -> int:
    """Channels of a head, one number for all levels; diffusers calls the number of heads ``attention_head_dim``."""
    widths = unet["block_out_channels"]
    heads = unet.get("num_attention_heads") or unet.get("attention_head_dim", 8)
    heads = heads if isinstance(heads, list) else [heads] * len(widths)
    dims = {width // max(count, 1) for width, count in zip(widths, heads, strict=False)}
    if len(dims) > 1 and unet.get("_class_name") == "UNet2DConditionModel":
        raise WeightsError(f"{folder}: its attention heads have several sizes ({dims}), and SDXL's one; not supported")
    return max(dims)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds no names and values; fetch it again")
    return content


def same_latents(first: float | None, second: float | None) -> bool:
    """Whether two scaling factors are those of one latent space; one that is not said is SDXL's."""
    return math.isclose(first or SDXL_SCALING, second or SDXL_SCALING, rel_tol=0.01)

"""LoRAs onto a loaded pipeline: SDXL's, in the forms that diffusers reads, and ours of adaptor and connectors.

What does not fit is found before or while it is put on, taken off again, and said in a sentence: a LoRA of another
base, a file that is none, layers for which the model has no place.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from torch import Tensor, nn

from supir.errors import MissingExtraError, OptionError, WeightsError
from supir.models.quantized import quantized_kind
from supir.weights.catalog import file_hash
from supir.weights.checkpoint import StateDict, TensorSource, open_checkpoint
from supir.weights.kinds import LORA_MARKS
from supir.weights.layout import Shapes

ADAPTABLE = ["unet", "adaptor", "text_encoder", "text_encoder_2"]
OURS = "adaptor."
"""How those names begin which diffusers does not know; the connectors are in the UNet, which it does."""

_FIRST_HALVES = (".lora_down.", ".lora_A.", ".lora.down.", "_lora.down.", ".hada_w1_a", ".lokr_w1")
_DOWN = (".lora_down.weight", ".lora_A.weight", ".lora.down.weight", "_lora.down.weight")
_TEXT_READERS = ("attn2_to_k", "attn2.to_k", "attn2_to_v", "attn2.to_v", "attn2.processor.to_k", "attn2.processor.to_v")
_OTHER_BASES = (
    (("double_blocks", "single_blocks", "single_transformer_blocks"), "Flux"),
    (("joint_blocks", "transformer.transformer_blocks"), "Stable Diffusion 3 or Flux"),
    (("diffusion_model.blocks.", "diffusion_model.layers.", "transformer.blocks."), "a model without a UNet"),
    (("lora_prior_", "lora_stage_"), "Stable Cascade"),
)
_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "SDXL's refiner", 2048: "SDXL"}


class Adapters(StableDiffusionXLLoraLoaderMixin):
    """Diffusers' methods for LoRAs, which also know the adaptor, and say what does not fit."""

    _lora_loadable_modules = ADAPTABLE
    unet: Any
    adaptor: Any

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | Path | Mapping[str, Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        **keywords: Any,
    ) -> None:
        """Put a LoRA onto the networks: one of SDXL, or one that our training wrote.

        Args:
            pretrained_model_name_or_path_or_dict: a file, a folder with one, tensors by name, or a repository, as in
                diffusers.
            adapter_name: for ``set_adapters``; None takes the next free one.
            hotswap: replace the adapter of that name.
            keywords: diffusers' others, such as ``weight_name``.

        Warns:
            where layers of it have no place in this model.

        Raises:
            MissingExtraError: peft is not installed.
            UnsafeCheckpointError: the file could run code when read.
            WeightsError: the file is none, no LoRA, of another base, or nothing of it has a place; the networks are as
                they were.
        """
        if find_spec("peft") is None:
            raise MissingExtraError("peft", "lora", "a LoRA")
        source, name = _found(pretrained_model_name_or_path_or_dict, keywords)
        ours: dict[str, Tensor] = {}
        opened: TensorSource | None = None
        if name is not None:
            opened = StateDict(source) if isinstance(source, dict) else open_checkpoint(source)
            keywords = {key: value for key, value in keywords.items() if key not in ("weight_name", "subfolder")}
            _check_base(opened.shapes, name, self.unet.config.cross_attention_dim)
            ours = {key: opened.tensor(key) for key in opened.shapes if key.startswith(OURS)}
        before = self.get_list_adapters()
        left = source
        try:
            if opened is not None and ours:
                adapter_name = adapter_name or _free_name(before)
                self.adaptor.load_lora_adapter(
                    ours, prefix="adaptor", adapter_name=adapter_name, hotswap=hotswap, _pipeline=self
                )
                left = {key: opened.tensor(key) for key in opened.shapes if key not in ours}
            if left:
                super().load_lora_weights(left, adapter_name=adapter_name, hotswap=hotswap, **keywords)
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError, OSError) as error:
            self._take_off(before)
            raise WeightsError(f"{name or source}: this LoRA does not fit the model: {_reason(error)}") from error
        if not hotswap:
            self._check_places(source, opened, name, before)

    @property
    def adapters_in_use(self) -> dict[str, str]:
        """The LoRAs that act now, for records of results: name, strength, and what `sha256sum` prints for the file."""
        found: dict[str, set[str]] = {}
        for part in ADAPTABLE if find_spec("peft") else ():
            for name, strength in _strengths(getattr(self, part, None)):
                found.setdefault(name, set()).add(strength)
        hashes = getattr(self, "_adapter_hashes", {})
        words = [
            f"{name} {' or '.join(sorted(strengths))}" + (f" sha256:{hashes[name]}" if name in hashes else "")
            for name, strengths in sorted(found.items())
        ]
        return {"adapters": ", ".join(words)} if words else {}

    def fuse_lora(self, components: list[str] = ADAPTABLE, *arguments: Any, **keywords: Any) -> None:
        """As diffusers'; the adaptor too. Weights stored in 8 bits take none.

        Raises:
            OptionError: the weights are stored in 8 bits.
        """
        for name in components:
            kind = quantized_kind(getattr(self, name)) if isinstance(getattr(self, name, None), nn.Module) else None
            if kind is not None:
                raise OptionError(
                    f"a LoRA cannot be fused into the {name}, whose weights are stored as {kind}; leave it beside them,"
                    " where it works as it is, or load with quantize='none'"
                )
        super().fuse_lora(components, *arguments, **keywords)

    def unfuse_lora(self, components: list[str] = ADAPTABLE, **keywords: Any) -> None:
        """As diffusers'; the adaptor too."""
        super().unfuse_lora(components, **keywords)

    def _check_places(
        self, source: Any, opened: TensorSource | None, name: str | None, before: Mapping[str, list[str]]
    ) -> None:
        """Whether what was put on is what the file has; nothing at all is an error, less is a warning."""
        added = self._added(before)
        if not any(added.values()):
            raise WeightsError(
                f"{name or source}: no layer of this LoRA has a place in this model, so nothing was changed"
            )
        if opened is None:
            return
        digest, names = file_hash(source) if isinstance(source, Path) else _tensors_hash(source), added.values()
        self._adapter_hashes = getattr(self, "_adapter_hashes", {}) | dict.fromkeys(set().union(*names), digest)
        layers = sum(any(mark in key for mark in _FIRST_HALVES) for key in opened.shapes)
        placed = sum(_num_layers(getattr(self, part), adapters) for part, adapters in added.items())
        if placed < layers:
            warnings.warn(
                f"{name}: {layers - placed} of its {layers} layers have no place in this model and were left out",
                stacklevel=3,
            )

    def _added(self, before: Mapping[str, list[str]]) -> dict[str, set[str]]:
        return {part: set(names) - set(before.get(part, ())) for part, names in self.get_list_adapters().items()}

    def _take_off(self, before: Mapping[str, list[str]]) -> None:
        """What was put on since, so that the networks are as they were."""
        for part, names in self._added(before).items():
            for name in names:
                network = getattr(self, part)
                (network.delete_adapters if hasattr(network, "delete_adapters") else network.delete_adapter)(name)


def _found(source: Any, keywords: dict[str, Any]) -> tuple[Any, str | None]:
    """Tensors as a dictionary, or the file that is meant, and its name; None where only diffusers knows it."""
    if isinstance(source, Mapping):
        return dict(source), "the LoRA"
    path = Path(source) / keywords.get("subfolder", "")
    named = keywords.get("weight_name")
    if path.is_dir() and named is None:
        files = sorted(path.glob("*.safetensors"))
        preferred = [file for file in files if file.name == "pytorch_lora_weights.safetensors"]
        if len(preferred or files) != 1:
            raise WeightsError(f"{path}: holds {len(files)} .safetensors files; say which with weight_name")
        path = (preferred or files)[0]
    elif path.is_dir():
        path /= str(named)
    if path.is_file():
        return path, str(path)
    if Path(source).suffix in (".safetensors", ".bin", ".pt", ".ckpt") or Path(source).is_dir():
        raise WeightsError(f"{path}: there is no such file")
    return source, None


def _check_base(shapes: Shapes, name: str, width: int) -> None:
    """Refuse what is no LoRA, or one of another base, by its names and by the width of the text that it reads."""
    if not any(mark in key for key in shapes for mark in LORA_MARKS):
        shown = ", ".join(list(shapes)[:3]) or "nothing"
        raise WeightsError(f"{name}: is no LoRA: it holds {shown} ..., and no pair of small matrices")
    for marks, base in _OTHER_BASES:
        if any(mark in key for key in shapes for mark in marks):
            raise WeightsError(f"{name}: a LoRA of {base}, which does not fit SDXL; give one that was made for SDXL")
    for key, shape in shapes.items():
        reads = any(reader in key for reader in _TEXT_READERS) and key.endswith(_DOWN) and len(shape) > 1
        if reads and shape[1] != width:
            base = f"a LoRA of {_WIDTHS[shape[1]]}" if shape[1] in _WIDTHS else "a LoRA of another base"
            raise WeightsError(
                f"{name}: {base}: it reads text {shape[1]} channels wide, and this model's text is {width} wide; give"
                " one that was made for SDXL"
            )


def _num_layers(network: nn.Module, adapters: set[str]) -> int:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = (module for module in network.modules() if isinstance(module, BaseTunerLayer))
    return sum(bool(adapters & _adapters_of(layer)) for layer in layers)


def _strengths(network: Any) -> Iterator[tuple[str, str]]:
    """The adapters that act in a network, with the strength of each in each layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not isinstance(network, nn.Module):
        return
    for layer in network.modules():
        if isinstance(layer, BaseTunerLayer) and not layer.disable_adapters:
            for name in {*layer.active_adapters, *layer.merged_adapters} & _adapters_of(layer):
                full = layer.lora_alpha[name] / layer.r[name] if hasattr(layer, "lora_alpha") else 1.0
                yield name, f"{layer.scaling[name] / full:g}"


def _tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors that no file holds, by name and content."""
    digest = hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        digest.update(key.encode() + str(tuple(tensor.shape)).encode() + str(tensor.dtype).encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _adapters_of(layer: Any) -> set[str]:
    return {name for kind in layer.adapter_layer_names for name in getattr(layer, kind, {})}


def _free_name(before: Mapping[str, list[str]]) -> str:
    taken = {name for names in before.values() for name in names}
    return next(name for number in range(len(taken) + 1) if (name := f"supir_{number}") not in taken)


def _reason(error: Exception) -> str:
    """The first thing that does not fit, of a wall of them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "size mismatch" in line or "shape" in line]
    return (telling or lines or [type(error).__name__])[0][:300]

"""LoRAs onto a loaded pipeline: SDXL's, in the forms that diffusers reads, and ours of adaptor and connectors.

What does not fit is found before or while it is put on, taken off again, and said in a sentence: a LoRA of another
base, a file that is none, layers for which the model has no place.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from torch import Tensor, nn

from supir.errors import MissingExtraError, OptionError, WeightsError
from supir.models.quantized import quantized_kind
from supir.options.loras import Lora, joined_loras
from supir.weights.catalog import file_hash
from supir.weights.checkpoint import StateDict, open_checkpoint
from supir.weights.lora_files import adapter_names, check_base, in_words, lora_file
from supir.weights.lora_layouts import num_placed, plain_layers, with_prefixes

ADAPTABLE = ["unet", "adaptor", "text_encoder", "text_encoder_2"]
NO_PLACE = "no layer of this LoRA has a place in this model, so nothing was changed"


class Adapters(StableDiffusionXLLoraLoaderMixin):
    """Diffusers' methods for LoRAs, which also know the adaptor, and say what does not fit."""

    _lora_loadable_modules = ADAPTABLE
    unet: Any
    adaptor: Any
    lora_folder: Path | None = None
    """The folder whose LoRAs options may name, and no others; None: any file."""
    _loras_on: tuple[tuple[Lora, Path, int], ...] = ()
    """Those that options have asked for, each with its file and when that was changed."""

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
        before = self.get_list_adapters()
        if name is None:  # a repository, which only diffusers knows
            with self._fitting(str(source), before):
                super().load_lora_weights(source, adapter_name=adapter_name, hotswap=hotswap, **keywords)
            if not hotswap:
                self._check_added(source, before)
            return
        opened = StateDict(source) if isinstance(source, dict) else open_checkpoint(source)
        keywords = {key: value for key, value in keywords.items() if key not in ("weight_name", "subfolder")}
        check_base(opened.shapes, name, self.unet.config.cross_attention_dim)
        networks = {part: getattr(self, part, None) for part in ADAPTABLE}
        with self._fitting(name, before):
            layers, lost = plain_layers(opened, networks, name)
            if not layers:
                raise WeightsError(f"{name}: {NO_PLACE}")
            adapter_name = adapter_name or _free_name(before)
            self._put_on(layers, adapter_name, hotswap, keywords)
        digest = file_hash(source) if isinstance(source, Path) else _tensors_hash(source)
        self._adapter_hashes = getattr(self, "_adapter_hashes", {}) | {adapter_name: digest}
        if lost:
            warnings.warn(
                f"{name}: {lost} of its {lost + num_placed(layers)} layers have no place in this model and were left"
                " out",
                stacklevel=2,
            )

    def _put_on(
        self, layers: Mapping[str, Mapping[str, Tensor]], name: str, hotswap: bool, keywords: Mapping[str, Any]
    ) -> None:
        if ours := dict(with_prefixes(layers, ("adaptor",))):  # which diffusers does not know
            self.adaptor.load_lora_adapter(ours, prefix="adaptor", adapter_name=name, hotswap=hotswap, _pipeline=self)
        if others := dict(with_prefixes(layers, ("unet", "text_encoder", "text_encoder_2"))):
            super().load_lora_weights(others, adapter_name=name, hotswap=hotswap, **keywords)

    @contextmanager
    def _fitting(self, name: str, before: Mapping[str, list[str]]) -> Iterator[None]:
        """Around the putting on: what goes wrong leaves the networks as they were, and is said in a sentence."""
        try:
            yield
        except WeightsError:
            self._take_off(before)
            raise
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError, OSError) as error:
            self._take_off(before)
            raise WeightsError(f"{name}: this LoRA does not fit the model: {_reason(error)}") from error

    def use_loras(self, asked: Sequence[Lora]) -> None:
        """Put on the LoRAs that options name and take off those of the options before; the same again costs nothing.

        Raises:
            MissingExtraError: peft is not installed.
            OptionError: others are on that ``load_lora_weights`` has put there.
            WeightsError: one is missing or does not fit; none of them is on then.
        """
        files = {each: lora_file(each, self.lora_folder) for each in asked}
        state = tuple((each, file, file.stat().st_mtime_ns) for each, file in files.items())
        if state == self._loras_on:
            return
        if self._loras_on:
            self.delete_adapters([*dict.fromkeys(adapter_names(tuple(each for each, *_ in self._loras_on)))])
            self._loras_on = ()
        if not asked:
            return
        if find_spec("peft") is None:
            raise MissingExtraError("peft", "lora", "a LoRA")
        before = self.get_list_adapters()
        if others := {name for names in before.values() for name in names}:
            raise OptionError(
                f"lora is {joined_loras(asked)!r}, and {', '.join(sorted(others))} of load_lora_weights is on the"
                " networks; name all in the option, or load all by that method"
            )
        names = adapter_names(tuple(asked))
        try:
            for name, (each, file) in zip(names, files.items(), strict=True):
                self._load_named(each, file, name)
            self.set_adapters(names, [each.strength for each in asked])
        except BaseException:
            self._take_off(before)
            raise
        self._loras_on = state

    def _load_named(self, lora: Lora, file: Path, name: str) -> None:
        """Messages have the name that the user knows, not where a service keeps the file."""
        try:
            self.load_lora_weights(file, adapter_name=name)
        except WeightsError as error:
            raise type(error)(str(error).replace(str(file), lora.name)) from error

    @property
    def adapters_in_use(self) -> dict[str, str]:
        """The LoRAs that act now, for records of results: name, strength, and what `sha256sum` prints for the file."""
        found: dict[str, set[str]] = {}
        for part in ADAPTABLE if find_spec("peft") else ():
            for name, strength in _strengths(getattr(self, part, None)):
                found.setdefault(name, set()).add(strength)
        hashes = getattr(self, "_adapter_hashes", {})
        words = [
            in_words(name, " or ".join(sorted(strengths)), hashes.get(name))
            for name, strengths in sorted(found.items())
            if strengths != {"0"}
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

    def _check_added(self, source: Any, before: Mapping[str, list[str]]) -> None:
        if not any(self._added(before).values()):
            raise WeightsError(f"{source}: {NO_PLACE}")

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

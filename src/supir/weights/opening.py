"""How a pipeline is opened: from a model folder or original weights, in which arithmetic, on which device.

What is wrong with the weights, the device or the memory is said in a sentence; `identity` says what was opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline
from diffusers.hooks import HookRegistry
from torch import nn
from transformers import CLIPTokenizer

from supir.errors import KeyMismatchError, OptionError, WeightsError
from supir.models.offload import LEAVES
from supir.models.quantized import check_quantized, quantized_kind
from supir.options import NetworkOptions
from supir.tensors import memory
from supir.tensors.memory import naming_lack_of_memory
from supir.weights.adapters import Adapters
from supir.weights.catalog import folder_hash, identity_of
from supir.weights.device import find_device
from supir.weights.distilled import distilled_folder
from supir.weights.gather import gather
from supir.weights.layout import COMPONENTS
from supir.weights.model_folder import (
    BUNDLED_MODEL,
    OPENER,
    OPENER_TEXT,
    check_complete,
    check_model_index,
    dtypes_of,
    read_model_index,
)
from supir.weights.parts import Parts
from supir.weights.runtime import (
    arrange,
    asked_of,
    check_compiler,
    check_variant,
    how_they_run,
    load_originals,
    load_stored,
)

SHARE = 0.8
"""Of a device's free memory, what weights may take before it is known what a picture needs beside them."""


class PlacedPipeline(DiffusionPipeline):
    """A pipeline of diffusers whose networks are put on a device by ``place``, offloaded by diffusers' own methods."""

    _chosen: tuple[torch.device, str] | None = None
    """Where ``place`` has put the networks by a choice of its own; None where somebody else has decided."""

    def place(self, device: torch.device | str, offload: str = "auto") -> Self:
        """Put the networks on a device.

        Args:
            device: where they run.
            offload: as in ``NetworkOptions``. ``auto`` goes by the weights and the free memory, and may be decided
                anew when it is known what a picture needs.

        Raises:
            OptionError: networks on the processor cannot be offloaded to it, or lie in a type that the device lacks.
            OutOfMemoryError: they do not fit there.
        """
        device = torch.device(device)
        if device.type == "cpu" and offload not in ("auto", "none"):
            raise OptionError(
                f"offload is {offload!r}, and the networks run on the cpu, from where there is nothing to offload;"
                " leave it out, or name another device"
            )
        for name, network in self._networks().items():
            if name in ("unet", "adaptor"):
                check_quantized(quantized_kind(network), device)
        way = self._by_weights(device) if offload == "auto" else offload
        self._put(device, way)
        self._chosen = (self._execution_device, way) if offload == "auto" else None
        return self

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: torch.device | str | None = None) -> None:
        """As diffusers', which arranges it anew around a LoRA: without a device on the one before."""
        super().enable_model_cpu_offload(gpu_id, self._offloaded_to(gpu_id, device))

    def enable_sequential_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """As ``enable_model_cpu_offload``."""
        super().enable_sequential_cpu_offload(gpu_id, self._offloaded_to(gpu_id, device))

    def _offloaded_to(self, gpu_id: int | None, device: torch.device | str | None) -> torch.device | str | None:
        return device if device is not None or gpu_id is not None else getattr(self, "_offload_device", None)

    @property
    def offload(self) -> str:
        """How the networks are offloaded now, whoever has arranged that: as in ``NetworkOptions``, never ``auto``."""
        if getattr(self, "_all_hooks", None):
            return "model"
        for network in self._networks().values():
            for layer in network.modules():
                hooks = getattr(layer, "_diffusers_hook", None)
                if hooks is not None and hooks.get_hook("group_offloading") is not None:
                    return "group"
                if getattr(getattr(layer, "_hf_hook", None), "offload", False):
                    return "sequential"
        return "none"

    @property
    def chooses_offload(self) -> bool:
        """Whether the way to offload may be chosen for each picture."""
        return self._chosen == (self._execution_device, self.offload)

    def offload_as_chosen(self, way: str) -> None:
        """Offload otherwise, where the way may be chosen."""
        if self.chooses_offload and way != self.offload:
            device = self._execution_device
            self._put(device, way)
            self._chosen = (self._execution_device, way)

    def room(self) -> int | None:
        """Bytes that the networks and all that they make may fill on their device; None where nobody knows."""
        device = self._execution_device
        free = memory.available(device)
        if free is None:
            return None
        tensors = (each for part in self._networks().values() for each in (*part.parameters(), *part.buffers()))
        return free + sum(memory.stored_bytes(each) for each in tensors if each.device.type == device.type)

    def release(self, *networks: nn.Module) -> None:
        """Networks that are not at work for a while leave the device where whole networks come and go."""
        if getattr(self, "_all_hooks", None):
            for network in networks:
                network.to("cpu")
            memory.give_back()

    def rest(self) -> None:
        """All networks to the processor, and their memory back to the device: until ``place`` is called again."""
        if self._execution_device.type != "cpu" or self.offload != "none":
            self._take_back()
            self._chosen = None

    def _put(self, device: torch.device, way: str) -> None:
        if self.offload != "none":
            self._take_back()
        if way == "none":
            self.to(device)
        elif way == "model":
            self.enable_model_cpu_offload(device=device)
        elif way == "sequential":
            self.enable_sequential_cpu_offload(device=device)
        else:
            # Streams bring the next layer while one is at work; other devices' are not known to do so.
            self.enable_group_offload(device, offload_type=LEAVES, use_stream=device.type == "cuda")

    def _take_back(self) -> None:
        """All networks to the processor, without whatever moved them."""
        self.remove_all_hooks()
        self._all_hooks: list[Any] = []
        for network in self._networks().values():
            for layer in network.modules():
                if hasattr(layer, "_diffusers_hook"):
                    registry: HookRegistry = layer._diffusers_hook
                    for name in [each for each in registry.hooks if "group_offloading" in each or "layer_exec" in each]:
                        registry.remove_hook(name, recurse=False)
        self.to("cpu", silence_dtype_warnings=True)
        memory.give_back()

    def _by_weights(self, device: torch.device) -> str:
        """The fastest way to offload for which the weights leave room on a device."""
        free = memory.available(device)
        if free is None:
            return "none"
        sizes = {
            name: sum(map(memory.stored_bytes, (*network.parameters(), *network.buffers())))
            for name, network in self._networks().items()
        }
        together = sizes.get("unet", 0) + sizes.get("adaptor", 0)
        for way, held in (("none", sum(sizes.values())), ("model", max(together, *sizes.values()))):
            if held <= SHARE * free:
                return way
        return "group"

    def _networks(self) -> dict[str, nn.Module]:
        return {name: part for name, part in self.components.items() if isinstance(part, nn.Module)}


SMALLER = "load with quantize int8 (--quantize int8), choose another device (--device), or free memory"
"""What may help where the weights do not fit."""


LENT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
"""What a pipeline of SDXL has that serves as it is."""


class OpenedPipeline(PlacedPipeline, Adapters):
    """A pipeline of diffusers whose folder, arithmetic and device are known; `SupirPipeline` says what it does."""

    source: Path | None = None
    """The model folder; None of a pipeline that was built in memory or from original weights."""
    originals: Mapping[str, Path] = MappingProxyType({})
    """The files that it was made from, where these were original weights."""
    networks = NetworkOptions()
    """As they were asked for."""
    distilled: str | None = None
    """How the base is distilled to few steps, where names say so (`supir.options.distilled`)."""

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | Mapping[str, torch.dtype | str] | None = None,
        vae_dtype: torch.dtype | str | None = None,
        quantize: str = "none",
        compile: bool = False,
        offload: str = "auto",
        **keywords: Any,
    ) -> Self:
        """Load a model folder in diffusers layout; without one, the bundled small model. Nothing is fetched.

        Args:
            folder: as written by ``supir convert`` or ``save_pretrained``.
            device: where the networks go; None leaves them on the processor, in its arithmetic.
            dtype: of the networks, or its name, or these by component and ``default``; also as ``torch_dtype``. None
                and ``auto`` are float32 on the processor, elsewhere what the folder says that its networks bear,
                float16 where it says nothing.
            vae_dtype: of the autoencoder; None and ``auto`` are the networks', but float32 beside float16, in which
                SDXL's overflows.
            quantize: ``int8`` or ``float8`` stores the weights of UNet and adaptor in 8 bits; see ``NetworkOptions``.
            compile: compile the repeated blocks of UNet and adaptor.
            offload: what is on the device only while it is at work; see ``NetworkOptions`` and ``place``.
            keywords: for diffusers, such as ``quantization_config`` or ready components.

        Raises:
            OptionError: a value is none of those, there is no such device or variant, or there is no compiler.
            OutOfMemoryError: the weights do not fit into the memory of the processor or the device.
            WeightsError: the folder is missing, is no model folder, has a damaged file, or names classes from an
                unknown library.
            KeyMismatchError: a component's files lack weights that its configuration asks for.
        """
        path = BUNDLED_MODEL if folder is None else Path(folder)
        spelled = keywords.pop("torch_dtype", None)
        networks, others = asked_of(
            spelled if dtype is None else dtype,
            vae_dtype=vae_dtype,
            quantize=quantize,
            compile=compile,
            offload=offload,
        )
        place = find_device("cpu" if device is None else str(device))
        if compile:
            check_compiler(place.type)
        index = check_model_index(path, cls.__name__)
        if keywords.get("variant") is not None:
            check_variant(path, keywords["variant"])
        if (parts := Parts.read(path)) is not None:
            return cls._from_parts(path, parts, networks, place, keywords)
        kind, coder = dtypes_of(path, index, networks, place.type)
        with naming_lack_of_memory(f"loading the weights of {path.name}", SMALLER):
            if quantize != "none":
                left = {part: entry for part, entry in index.items() if part not in keywords}
                keywords = load_stored(path, left, networks, kind) | keywords
            try:
                pipeline: Self = super().from_pretrained(
                    str(path),
                    dtype={"default": kind, "autoencoder": coder, **others},
                    use_safetensors=True,
                    local_files_only=True,
                    **keywords,
                )
            except OSError as error:
                raise WeightsError(f"{path}: a file of it cannot be read: {str(error).strip()}") from error
        pipeline.source, pipeline.networks, pipeline.distilled = path, networks, distilled_folder(path)
        check_complete(path, pipeline.components)
        arrange(pipeline.components, networks, place.type)
        return pipeline.place(place, offload)

    @classmethod
    def _from_parts(
        cls, path: Path, parts: Parts, networks: NetworkOptions, place: torch.device, given: Mapping[str, Any]
    ) -> Self:
        """Of a folder whose weights lie elsewhere; of what was given only ready components mean something."""
        if unknown := [name for name in given if name not in (*COMPONENTS, "tokenizer", "tokenizer_2")]:
            raise OptionError(
                f"{unknown[0]}: {path} holds no weights, only where they lie; convert them without --apart for that"
            )
        wanted = [name for name in COMPONENTS if name not in given]
        with naming_lack_of_memory(f"loading the weights of {path.name}", SMALLER):
            found = load_originals(parts.gathered(path), networks, place.type, strict=True, components=wanted)
            if (path / "tokenizer").is_dir() and (path / "tokenizer_2").is_dir():
                found |= {name: CLIPTokenizer.from_pretrained(path / name) for name in ("tokenizer", "tokenizer_2")}
            pipeline = cls(**found | dict(given))
        pipeline.source, pipeline.networks, pipeline.distilled = path, networks, distilled_folder(path)
        arrange(pipeline.components, networks, place.type)
        return pipeline.place(place, networks.offload)

    def to(self, *args: Any, **keywords: Any) -> Self:
        """As diffusers'; what stands against a device is said.

        Raises:
            OptionError: there is no such device.
            OutOfMemoryError: the weights do not fit there.
        """
        places = [each for each in (*args, keywords.get("device")) if isinstance(each, (str, torch.device))]
        for place in places:
            if str(place) != "meta":
                find_device(str(place))
        with naming_lack_of_memory("moving the networks" + "".join(f" to {place}" for place in places), SMALLER):
            moved: Self = super().to(*args, **keywords)
        return moved

    @classmethod
    def from_single_file(
        cls,
        sdxl: str | Path,
        supir: str | Path | None = None,
        *,
        vae: str | Path | None = None,
        text: str | Path | None = None,
        mix: tuple[str | Path, float] | None = None,
        prediction_type: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        vae_dtype: torch.dtype | str | None = None,
        quantize: str = "none",
        compile: bool = False,
        offload: str = "auto",
        strict: bool = True,
    ) -> Self:
        """Load original weights directly: SDXL, in a file or a diffusers folder, and a published SUPIR file.

        Args:
            sdxl: .safetensors, .ckpt, which is read without running code in it, or a folder.
            supir: the same; None where the first has its parts.
            vae: a file or folder whose autoencoder is taken instead of the base's.
            text: a folder or an SDXL file whose text towers are taken instead of the base's.
            mix: another SUPIR file, and its share from 0 to 1 of the weights that SUPIR adds.
            prediction_type: ``epsilon`` or ``v_prediction``; None takes what the files say.
            device, dtype, vae_dtype, quantize, compile, offload: as in ``from_pretrained``.
            strict: a part that SUPIR adds and no file has raises; else it begins as training begins it.

        Raises:
            OptionError: a value is none of those, there is no such device, or there is no compiler.
            OutOfMemoryError: the weights do not fit into the memory of the processor or the device.
            UnsafeCheckpointError: a file could run code when read.
            WeightsError: a file is missing, damaged or of another kind.
            KeyMismatchError: weights are missing or mis-shaped, or a part is absent.
        """
        networks, _ = asked_of(dtype, vae_dtype=vae_dtype, quantize=quantize, compile=compile, offload=offload)
        place = find_device("cpu" if device is None else str(device))
        if compile:
            check_compiler(place.type)
        given = gather(sdxl, supir, vae=vae, text=text, mix=mix, prediction_type=prediction_type)
        with naming_lack_of_memory("loading the weights", SMALLER):
            pipeline = cls(**load_originals(given, networks, place.type, strict=strict))
        pipeline.originals, pipeline.networks, pipeline.distilled = given.files, networks, given.distilled
        arrange(pipeline.components, networks, place.type)
        return pipeline.place(place, offload)

    def save_pretrained(self, *args: Any, **keywords: Any) -> None:
        """As diffusers'; weights stored in 8 bits cannot be written.

        Raises:
            OptionError: the weights are stored in 8 bits.
        """
        if self.networks.quantize != "none":
            raise OptionError(f"weights stored as {self.networks.quantize} cannot be saved; load with quantize='none'")
        super().save_pretrained(*args, **keywords)
        folder = Path(args[0] if args else keywords["save_directory"])
        (folder / OPENER).write_text(OPENER_TEXT, encoding="utf-8")

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, model: Self | str | Path | None = None, **keywords: Any) -> Self:
        """A pipeline of networks that are in memory.

        Args:
            pipeline: one of SUPIR, as in diffusers; or of SDXL, whose UNet's weights, text towers and tokenizers are
                used where they lie, none of them twice.
            model: for one of SDXL, what SUPIR adds: a model folder, or a pipeline, which has the other weights then.
            keywords: for ``from_pretrained``, where it is a folder.

        Raises:
            OptionError: an SDXL pipeline without ``model``.
            KeyMismatchError: its UNet has another shape than the model's.
        """
        if isinstance(pipeline, OpenedPipeline):
            parts = {name: part for name, part in pipeline.components.items() if name not in keywords}
            found: Self = super().from_pipe(pipeline, **parts, **keywords)
            return found
        base, unet = type(pipeline).__name__, pipeline.unet
        if model is None:
            raise OptionError(f"model is not given; {base} lacks what SUPIR adds: name a model folder")
        lent = {name: getattr(pipeline, name) for name in LENT}
        kind = {"dtype": unet.dtype, "device": unet.device}
        own = model if isinstance(model, OpenedPipeline) else cls.from_pretrained(model, **kind, **lent, **keywords)
        own.register_modules(**lent)
        own.unet.to(dtype=unet.dtype)
        try:
            _, unexpected = own.unet.load_state_dict(unet.state_dict(), strict=False, assign=True)
        except RuntimeError as error:
            raise KeyMismatchError(f"the UNet of {base} has other shapes than the model's") from error
        if unexpected:
            raise KeyMismatchError(f"the UNet of {base} has parts that the model's has not")
        name = Path(pipeline.config.get("_name_or_path") or base).name
        own.__dict__["weights_identity"] = {"model": f"{own.weights_identity['model']} on {name}"}
        return own

    @property
    def identity(self) -> dict[str, str]:
        """Name and hash of the weights, and how they run now; a model that was built in memory has no hash."""
        running = how_they_run(self.components, self.networks, self._execution_device.type)
        return {**self.weights_identity, **running, **self.adapters_in_use}

    @cached_property
    def weights_identity(self) -> dict[str, str]:
        """Name and hash of the weights alone: every byte of them is read for it."""
        if self.originals:
            return identity_of(self.originals)
        folder = self.source or self._opened_by_diffusers()
        if folder is None:
            return {"model": "unnamed"}
        return {"model": folder.name, "model_sha256": folder_hash(folder)}

    def _opened_by_diffusers(self) -> Path | None:
        """The folder that `DiffusionPipeline.from_pretrained` has opened, which knows nothing of `source`."""
        folder = Path(self.config.get("_name_or_path") or "")
        try:
            read_model_index(folder, type(self).__name__)
        except WeightsError:
            return None
        return folder

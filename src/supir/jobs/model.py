"""Which weights a batch uses and where they run: told to each worker, which opens them once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supir.errors import OptionError
from supir.options import DEFAULT_PRESET, NetworkOptions, RestoreOptions, SigningOptions, restore_options
from supir.options.loras import split_loras
from supir.pool import EmptyClusterWarning

if TYPE_CHECKING:
    from supir.pipeline import SupirPipeline


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model folder that is not loaded yet. Small, and picklable."""

    folder: Path | None = None
    """As ``SupirPipeline.from_pretrained`` takes it; None is the bundled small model."""
    devices: tuple[str, ...] = ()
    """Where the networks run, worker after worker in turn; empty is every GPU that torch sees, else the processor."""
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    """In which arithmetic they run, how they are stored, whether they are compiled."""
    first_models: Path | None = None
    """The folder whose models the option ``first`` may name, and no others; None: any file."""
    loras: Path | None = None
    """The folder whose LoRAs options may name, and no others; None: any file."""
    signing: SigningOptions = field(default_factory=SigningOptions)
    """Who signs the results."""

    @cached_property
    def presets(self) -> dict[str, dict[str, Any]]:
        """The model's own numbers by preset.

        Raises:
            WeightsError: the folder is missing or is no model folder.
        """
        from supir.weights.model_folder import read_model_index

        return read_model_index(self._path, "SupirPipeline").get("presets") or {}

    @cached_property
    def distilled(self) -> str | None:
        """How the base is distilled to few steps, where names say so."""
        from supir.weights.distilled import distilled_folder

        return distilled_folder(self._path)

    @cached_property
    def identity(self) -> dict[str, str]:
        """Name and hash of the weights and how they run, as the pipeline records it. A second a gigabyte."""
        from supir.weights.catalog import folder_hash

        return {"model": self._path.name, "model_sha256": folder_hash(self._path), **self._how_it_runs}

    @cached_property
    def former_identity(self) -> dict[str, str]:
        """What version 0.1.0 recorded for the same folder and settings, wherever it ran."""
        asked = {"dtype": self.networks.dtype, "quantize": self.networks.quantize}
        words = [word for word in asked.values() if word not in ("auto", "none")] + ["compiled"] * self.networks.compile
        words += [f"autoencoder {self.networks.vae_dtype}"] * (self.networks.vae_dtype != "auto")  # which it had not
        weights = {name: value for name, value in self.identity.items() if name.startswith("model")}
        return weights | ({"networks": ", ".join(words)} if words else {})

    def identity_with(self, options: RestoreOptions) -> dict[str, str]:
        """The same with the LoRAs and the enlarger that options name, and who signs: all that decides a result beside
        the options.

        Raises:
            WeightsError: a file of them is not there.
        """
        from supir.weights.catalog import file_hash
        from supir.weights.first import identity_of_first
        from supir.weights.lora_files import identity_of_loras

        signed = {"c2pa_cert_sha256": file_hash(self.signing.c2pa_cert)} if self.signing else {}
        named = {**identity_of_loras(options.lora, self.loras), **identity_of_first(options.first, self.first_models)}
        return {**self.identity, **named, **signed}

    def check_loras(self, texts: Iterable[str]) -> None:
        """See that LoRAs are there and of this base, by what their files say first.

        Raises:
            MissingExtraError: peft is not installed.
            WeightsError: one is missing, is none, or is of another base; the message names it as the text does.
        """
        for lora in dict.fromkeys(each for text in texts for each in split_loras(text)):
            from supir.weights.lora_files import check_lora_file

            check_lora_file(lora, self.loras, self._path)

    def check_first(self, names: Iterable[str]) -> None:
        """See that the enlargers of options are there, and are such.

        Raises:
            MissingExtraError: spandrel is not installed.
            UnsafeCheckpointError, WeightsError: one is missing, holds more than tensors, or is none.
        """
        for name in filter(None, dict.fromkeys(names)):
            from supir.weights.first import first_file, open_first

            open_first(first_file(name, self.first_models))

    def check_signing(self) -> None:
        """See that results can be signed, where they are to be.

        Raises:
            OptionError: not with this certificate and key.
            MissingExtraError: c2pa-python is not installed.
        """
        if self.signing:
            from supir.image import Signature

            Signature(self.signing).check(Path("any.png"))

    def placed(self, elsewhere: str | None = None) -> Model:
        """The same with the devices on which workers will run it, so that it is known what they will make.

        Args:
            elsewhere: the kind of device that the machines of the workers have, taken where none is named; None: they
                are this machine's, every one of the best kind where none is named.

        Raises:
            OptionError: one that is named is not here, or is of no kind on which networks run.
        """
        from supir.weights.device import devices, find_device, kind_of

        if elsewhere is not None:
            for name in self.devices:
                kind_of(name)
            if elsewhere == "cpu" and self.devices and not self.on_processor:
                warnings.warn(
                    f"device {', '.join(self.devices)}: the cluster has no GPU now; workers wait until a machine with"
                    " one joins it",
                    EmptyClusterWarning,
                    stacklevel=2,
                )
            return self if self.devices else replace(self, devices=(elsewhere,))
        names = tuple(str(find_device(name)) for name in self.devices) or devices()
        return self if names == self.devices else replace(self, devices=names)

    @property
    def on_processor(self) -> bool:
        """Whether nothing else is used: there version 0.1.0 made the same results."""
        return self._kinds == ("cpu",)

    @property
    def _kinds(self) -> tuple[str, ...]:
        from supir.weights.device import best_device, kind_of

        return tuple(sorted({kind_of(name) for name in self.devices or (best_device(),)}))

    @property
    def _how_it_runs(self) -> dict[str, str]:
        """As the pipeline says it; of workers on devices of several kinds, what each may do."""
        from supir.weights.model_folder import dtypes_of, read_model_index

        index, ways = read_model_index(self._path, "SupirPipeline"), []
        for kind in self._kinds:
            dtype, coder = (
                str(each).removeprefix("torch.") for each in dtypes_of(self._path, index, self.networks, kind)
            )
            ways.append(self.networks.identity(dtype, kind, coder))
        if len(ways) == 1:
            return ways[0]
        return {"networks": " or ".join(way.get("networks", "float32") for way in ways)}

    def options(self, preset: str = DEFAULT_PRESET, **overrides: Any) -> RestoreOptions:
        """As ``SupirPipeline.options``, without loading the weights.

        Raises:
            OptionError: also where a result that is to be signed would say nothing of itself.
        """
        found = restore_options(preset, model_presets=self.presets, **overrides)
        if self.signing and not found.marking:
            raise OptionError(
                "marking is False, and c2pa_cert is to sign what results say of themselves; leave out one"
            )
        return found

    def open(self, place: int = 0) -> SupirPipeline:
        """Load the weights.

        Args:
            place: the worker's number, from 0; chooses its device.

        Raises:
            OptionError: the device is not here.
            WeightsError: the folder cannot be used.
            OutOfMemoryError: the weights do not fit.
        """
        return self._open(place)

    def open_previewer(self) -> SupirPipeline:
        """Load the autoencoder alone: a pipeline for ``preview`` and nothing else.

        Raises:
            WeightsError: the folder cannot be used.
        """
        others = ("unet", "adaptor", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
        return self._open(0, **dict.fromkeys(others))

    def _open(self, place: int, **components: None) -> SupirPipeline:
        from supir.weights.silence import silence_libraries

        silence_libraries()  # first: they complain while they are imported
        from supir.pipeline import SupirPipeline

        devices = self.placed().devices
        given: dict[str, Any] = asdict(self.networks) | components
        pipeline = SupirPipeline.from_pretrained(self.folder, device=devices[place % len(devices)], **given)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.lora_folder, pipeline.first_folder = self.loras, self.first_models
        pipeline.signing = self.signing
        if "identity" in vars(self):  # every byte was read for it once
            pipeline.weights_identity = {name: self.identity[name] for name in ("model", "model_sha256")}
        return pipeline

    @property
    def _path(self) -> Path:
        if self.folder is not None:
            return self.folder
        from supir.weights.model_folder import BUNDLED_MODEL

        return BUNDLED_MODEL

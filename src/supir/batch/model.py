"""Which weights a batch uses and where they run: told to each worker, which opens them once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supir.options import DEFAULT_PRESET, NetworkOptions, RestoreOptions, restore_options

if TYPE_CHECKING:
    from supir.pipeline import SupirPipeline

__all__ = ["Model"]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model folder that is not loaded yet. Small, and picklable."""

    folder: Path | None = None
    """As ``SupirPipeline.from_pretrained`` takes it; None is the bundled small model."""
    devices: tuple[str, ...] = ()
    """Where the networks run, worker after worker in turn; empty is a GPU if torch sees one."""
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    """In which arithmetic they run, how they are stored, whether they are compiled."""

    @cached_property
    def presets(self) -> dict[str, dict[str, Any]]:
        """The model's own numbers by preset.

        Raises:
            WeightsError: the folder is missing or is no model folder.
        """
        from supir.weights.folder import read_model_index

        return read_model_index(self._path, "SupirPipeline").get("presets") or {}

    @cached_property
    def identity(self) -> dict[str, str]:
        """Name and hash of the weights and how they run, as the pipeline records it. A second a gigabyte."""
        from supir.weights.catalog import folder_hash

        return {"model": self._path.name, "model_sha256": folder_hash(self._path), **self.networks.identity}

    def options(self, preset: str = DEFAULT_PRESET, **overrides: Any) -> RestoreOptions:
        """As ``SupirPipeline.options``, without loading the weights."""
        return restore_options(preset, model_presets=self.presets, **overrides)

    def open(self, place: int = 0) -> SupirPipeline:
        """Load the weights.

        Args:
            place: the worker's number, from 0; chooses its device.

        Raises:
            WeightsError: the folder cannot be used.
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
        from supir.weights.quiet import quiet_libraries

        quiet_libraries()  # first: they complain while they are imported
        from supir.pipeline import SupirPipeline
        from supir.weights.device import best_device

        given: dict[str, Any] = asdict(self.networks) | components
        pipeline = SupirPipeline.from_pretrained(self.folder, **given)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self.devices[place % len(self.devices)] if self.devices else best_device())

    @property
    def _path(self) -> Path:
        if self.folder is not None:
            return self.folder
        from supir.weights.folder import BUNDLED_MODEL

        return BUNDLED_MODEL

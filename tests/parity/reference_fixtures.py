"""A folder of recorded arrays of the reference implementation, and the recipe of its weights (reference section 16)."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from loading import load_components
from supir.weights.layout import HeadDims


class ReferenceFixtures:
    """Reads one folder of fixtures. A file the folder does not have skips the test that asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tiny: dict[str, Tensor] | None = None

    def _path(self, file_name: str) -> Path:
        path = self.folder / file_name
        if not path.is_file():
            pytest.skip(f"{self.folder} has no {file_name}")
        return path

    def json(self, name: str) -> dict[str, Any]:
        """The configuration and key meanings of fixture `name` (without suffix)."""
        return json.loads(self._path(f"{name}.json").read_text(encoding="utf-8"))

    def gzipped_json(self, name: str) -> dict[str, Any]:
        """`name`.json.gz."""
        return json.loads(gzip.decompress(self._path(f"{name}.json.gz").read_bytes()))

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The recorded arrays of fixture `name`; a fresh dictionary at each call."""
        return load_file(self._path(f"{name}.safetensors"))

    @property
    def weight_seed(self) -> int:
        """Seed of the tiny model's weights."""
        return int(self.json("tiny_model_weights")["config"]["weight_seed"])

    @property
    def tiny_config(self) -> dict[str, Any]:
        """Configuration of the tiny model, in the reference's own words (`unet_and_control`, `vae_ddconfig`, ...)."""
        return dict(self.json("tiny_model_weights")["config"])

    @staticmethod
    def recipe(
        keys_with_shapes: Mapping[str, Iterable[int]] | Iterable[tuple[str, Iterable[int]]], seed: int
    ) -> dict[str, Tensor]:
        """Weights by the recipe of section 16: {full original key: float32 tensor}."""
        items = keys_with_shapes.items() if isinstance(keys_with_shapes, Mapping) else keys_with_shapes
        return {key: recipe_tensor(key, tuple(shape), seed) for key, shape in items}

    def tiny_state_dict(self) -> dict[str, Tensor]:
        """Every original key of the tiny model, each checked against the recorded sum|w|; not to be written into."""
        if self._tiny is None:
            recorded = self.json("tiny_model_weights")["weights"]
            shapes = {key: shape for key, (shape, _) in recorded.items() if key != "denoiser.sigmas"}
            weights = self.recipe(shapes, self.weight_seed)
            check_sums(weights, recorded)
            self._tiny = weights
        return dict(self._tiny)


def recipe_tensor(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """One tensor of the recipe of section 16."""
    generator = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
    values = np.asarray(generator.standard_normal(shape))
    if len(shape) >= 2:
        values = values / math.sqrt(math.prod(shape[1:]))
    elif key.endswith(".weight"):
        values = 1 + 0.1 * values
    else:
        values = 0.05 * values
    return torch.from_numpy(values.astype(np.float32))


def check_sums(weights: Mapping[str, Tensor], recorded: Mapping[str, Any]) -> None:
    """Holds each tensor against the recorded [shape, sum(|w|) in float64]."""
    for key, tensor in weights.items():
        shape, expected = recorded[key]
        assert list(tensor.shape) == list(shape), key
        found = float(tensor.double().abs().sum())
        assert math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-6), f"{key}: sum|w| {found}, recorded {expected}"


def build_tiny(
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    components: Iterable[str] = ("autoencoder", "unet", "adaptor"),
) -> dict[str, Any]:
    """Models from weights under original keys, every key placed; widths and depths come from the weights themselves."""
    head_dims = HeadDims(unet=config["unet_and_control"]["num_head_channels"])
    models, report = load_components(weights, components=tuple(components), head_dims=head_dims)
    assert report.ok, report.summary()
    if "autoencoder" in models:
        models["autoencoder"].register_to_config(scaling_factor=config["scale_factor"])
    return models

"""A whole pipeline under original names, converted and loaded: it restores a picture as before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loading import load_single_files
from supir.image import Picture
from supir.pipeline import SupirPipeline
from supir.weights.convert import convert
from supir.weights.layout import ADAPTOR, CONNECTORS, DEGRADED_ENCODER, HeadDims
from tiny import tiny_components, tiny_pipeline
from weights.originals import numbering_of, original_weights

HEAD_DIMS = HeadDims(unet=16, text_encoder=10, text_encoder_2=14)
NETWORKS = ("autoencoder", "unet", "adaptor", "text_encoder", "text_encoder_2")
TOKENIZERS = ("tokenizer", "tokenizer_2")
OPTIONS = {"min_size": 16, "num_steps": 2, "scale": 1.0, "text_guidance": 2.0, "prompt": "a stone bridge"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny pipeline's weights as an SDXL single file and a SUPIR file."""
    folder = tmp_path_factory.mktemp("originals")
    models = {name: tiny_components()[name] for name in NETWORKS}
    weights = original_weights(models, numbering_of(models))
    supir = {key: value for key, value in weights.items() if key.startswith((ADAPTOR, CONNECTORS, DEGRADED_ENCODER))}
    save_file({key: tensor for key, tensor in weights.items() if key not in supir}, folder / "sdxl.safetensors")
    save_file(supir, folder / "supir.safetensors")
    return folder / "sdxl.safetensors", folder / "supir.safetensors"


def _restored(pipeline: SupirPipeline) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    pixels = torch.rand(3, 20, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return pipeline(Picture(pixels=pixels), **OPTIONS)[0].picture.pixels


def test_converted_folder(files: tuple[Path, Path], tmp_path: Path) -> None:
    for name in TOKENIZERS:
        tiny_components()[name].save_pretrained(tmp_path / "donor" / name)
    convert(*files, tmp_path / "model", dtype="float32", tokenizers=tmp_path / "donor", head_dims=HEAD_DIMS)
    pipeline = SupirPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(_restored(pipeline), _restored(tiny_pipeline()))
    pipeline.save_pretrained(tmp_path / "again")
    again = SupirPipeline.from_pretrained(tmp_path / "again")
    assert torch.equal(_restored(again), _restored(pipeline))


def test_files_loaded_directly(files: tuple[Path, Path]) -> None:
    components, report = load_single_files(*files, head_dims=HEAD_DIMS)
    assert report.ok
    pipeline = SupirPipeline(**components, **{name: tiny_components()[name] for name in TOKENIZERS})
    assert torch.equal(_restored(pipeline), _restored(tiny_pipeline()))

"""SDXL's UNet as a GGUF file: widened, named and shaped as the original; what is damaged or of another type is told."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from loading import load_single_files
from supir.errors import MissingExtraError, WeightsError
from supir.weights.checkpoint import open_checkpoint
from supir.weights.layout import UNET
from tiny import tiny_components
from weights.tiny_files import HEAD_DIMS, save_hub_folder, saved, sdxl_weights, stripped, supir_weights


def unet_file(path: Path) -> Path:
    """The tiny UNet alone, as converters write it: matrices by blocks of 8 bits, the rest in 16 or 32."""
    import gguf
    from gguf.quants import quantize

    kinds, writer = gguf.GGMLQuantizationType, gguf.GGUFWriter(path, "sdxl")
    for name, tensor in stripped(sdxl_weights(), UNET).items():
        numbers = tensor.float().numpy()
        if numbers.ndim == 4 and numbers.size % 32 == 0 and numbers.shape[1] % 32:  # blocks of another shape
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(numbers.shape))
            writer.add_tensor(name, quantize(numbers.reshape(-1, 32), kinds.Q8_0), raw_dtype=kinds.Q8_0)
        elif numbers.ndim == 2 and numbers.shape[1] % 32 == 0:
            writer.add_tensor(name, quantize(numbers, kinds.Q8_0), raw_dtype=kinds.Q8_0)
        else:
            writer.add_tensor(name, numbers.astype(np.float16) if numbers.ndim > 1 else numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_unet_becomes_the_base(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    path, base = unet_file(tmp_path / "unet-Q8_0.gguf"), save_hub_folder(tmp_path / "sdxl")
    source, original = open_checkpoint(path), stripped(sdxl_weights(), UNET)
    assert dict(source.shapes) == {name: tuple(tensor.shape) for name, tensor in original.items()}
    supir = saved(supir_weights(), tmp_path / "SUPIR-v0Q.safetensors")
    found, _ = load_single_files(path, supir, vae=base, text=base, components=("unet",), head_dims=HEAD_DIMS)
    made = found["unet"].state_dict()
    for name, tensor in tiny_components()["unet"].state_dict().items():
        step = float(tensor.abs().max()) / 127  # of 8 bits, at most
        assert torch.allclose(made[name], tensor, atol=0.51 * step + 1e-3), name


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    whole = unet_file(tmp_path / "whole.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for data in (whole[:6], whole[:400], whole[: len(whole) // 2], b"GGUF\x03\0\0\0" + b"\xff" * 64):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=r"cut\.gguf: a damaged or truncated GGUF file"):
            open_checkpoint(path)


def test_without_the_package_its_line_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'supir\[gguf\]'"):
        open_checkpoint(tmp_path / "a.gguf")

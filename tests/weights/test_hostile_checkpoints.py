"""Files that are damaged, disguised or dangerous: refused with the reason, and nothing in them is run."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from supir.errors import UnsafeCheckpointError, WeightsError
from supir.weights.checkpoint import open_checkpoint
from supir.weights.load import load_single_files
from weights.conftest import OriginalModel


class Malice:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    modern, old, plain = (tmp_path / name for name in ("modern.ckpt", "old.ckpt", "plain.ckpt"))
    content = {"state_dict": {"weight": torch.zeros(2)}, "callbacks": Malice(trace)}
    torch.save(content, modern)
    torch.save(content, old, _use_new_zipfile_serialization=False)
    plain.write_bytes(pickle.dumps(Malice(trace), protocol=2))
    for path in (modern, old, plain):
        with pytest.raises(UnsafeCheckpointError, match="could run code"):
            open_checkpoint(path)
    assert not trace.exists()


def test_pickle_named_safetensors_is_not_read(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    disguised, zipped = tmp_path / "model.safetensors", tmp_path / "zipped.safetensors"
    disguised.write_bytes(pickle.dumps(Malice(trace)))
    torch.save({"weight": torch.zeros(2)}, zipped)
    for path in (disguised, zipped):
        with pytest.raises(UnsafeCheckpointError, match=r"named \.safetensors, but it is a pickle"):
            open_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_checkpoint_of_tensors_alone_is_read(tmp_path: Path, zipped: bool, wrapped: bool) -> None:
    weights = {"a.weight": torch.randn(3, 2), "a.bias": torch.randn(3)}
    path = tmp_path / "model.ckpt"
    torch.save(
        {"state_dict": weights, "global_step": 7} if wrapped else weights, path, _use_new_zipfile_serialization=zipped
    )
    source = open_checkpoint(path)
    assert source.shapes == {"a.weight": (3, 2), "a.bias": (3,)}
    assert torch.equal(source.tensor("a.weight"), weights["a.weight"])


def test_checkpoint_and_safetensors_make_the_same_model(original: OriginalModel, tmp_path: Path) -> None:
    sdxl, supir = original.save(tmp_path)
    pickled = tmp_path / "supir.ckpt"
    torch.save({"state_dict": original.supir}, pickled)
    options = {"head_dims": original.head_dims, "components": ("adaptor",)}
    first, _ = load_single_files(sdxl, supir, **options)
    second, _ = load_single_files(sdxl, pickled, **options)
    for name, tensor in first["adaptor"].state_dict().items():
        assert torch.equal(second["adaptor"].state_dict()[name], tensor)


def _safetensors(path: Path, header: bytes, claimed: int | None = None, content: bytes = b"") -> Path:
    path.write_bytes((len(header) if claimed is None else claimed).to_bytes(8, "little") + header + content)
    return path


def test_damaged_safetensors(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_file({"weight": torch.zeros(1000)}, whole)
    content = whole.read_bytes()
    described = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    quantised = json.dumps({"w": {"dtype": "Q4_0", "shape": [2], "data_offsets": [0, 1]}}).encode()
    cases = {
        "truncated": (whole.with_name("truncated.safetensors"), "damaged or truncated"),
        "empty": (whole.with_name("empty.safetensors"), "not a whole safetensors file"),
        "text": (whole.with_name("text.safetensors"), "not a whole safetensors file"),
        "huge": (_safetensors(tmp_path / "huge.safetensors", b"{}", claimed=1 << 62), "claim a header of"),
        "no json": (_safetensors(tmp_path / "nojson.safetensors", b"not json"), "no JSON"),
        "list": (_safetensors(tmp_path / "list.safetensors", b"[1, 2]"), "does not describe tensors"),
        "bomb": (_safetensors(tmp_path / "bomb.safetensors", described), "damaged or truncated"),
        "quantised": (_safetensors(tmp_path / "quantised.safetensors", quantised, content=b"0"), "Quantised"),
        "absent": (tmp_path / "absent.safetensors", "cannot be read"),
        "folder": (tmp_path, "cannot be read"),
    }
    cases["truncated"][0].write_bytes(content[:-100])
    cases["empty"][0].write_bytes(b"")
    cases["text"][0].write_text("<html>404: the file you asked for is not here</html>")
    for name, (path, reason) in cases.items():
        with pytest.raises(WeightsError, match=reason) as caught:
            open_checkpoint(path)
        assert str(path) in str(caught.value), name


def test_damaged_torch_files(tmp_path: Path) -> None:
    whole = tmp_path / "whole.ckpt"
    torch.save({"weight": torch.zeros(1000)}, whole)
    truncated, archive, empty, text = (tmp_path / f"{name}.ckpt" for name in ("truncated", "archive", "empty", "text"))
    truncated.write_bytes(whole.read_bytes()[:-500])
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "not weights")
    torch.save({"epoch": 3}, empty)
    text.write_text("hello, this is a letter and no checkpoint")
    for path in (truncated, archive, empty, text):
        with pytest.raises(WeightsError) as caught:
            open_checkpoint(path)
        assert str(path) in str(caught.value)

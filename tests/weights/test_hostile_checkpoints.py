"""Files that are damaged, disguised or dangerous: refused with the reason, and nothing in them is run."""

from __future__ import annotations

import contextlib
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from loading import load_single_files
from supir.errors import UnsafeCheckpointError, WeightsError
from supir.weights.checkpoint import open_checkpoint
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


def _described(**tensors: tuple[str, list[int], int, int]) -> bytes:
    entries = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        for name, (dtype, shape, begin, end) in tensors.items()
    }
    return json.dumps(entries).encode()


HEADERS: dict[str, tuple[bytes, int, str]] = {
    "no json": (b"{not json", 0, "invalid JSON"),
    "nested too deep": (b'{"a":' + b"[" * 100_000, 0, "recursion"),
    "a name twice": (b'{"a": 1, "a": 2}', 0, "invalid JSON"),
    "no tensors": (b'{"a": [1, 2]}', 0, "invalid JSON"),
    "huge": (_described(w=("F32", [1 << 40], 0, 1 << 42)), 8, "truncated .*not fully covered"),
    "negative": (_described(w=("F32", [-1], 0, 4)), 4, "expected usize"),
    "of truths": (_described(w=("F32", [True], 0, 4)), 4, "expected usize"),  # type: ignore[list-item]
    "wrong width": (_described(w=("F32", [2], 0, 4)), 4, "invalid shape"),
    "overlapping": (_described(a=("F32", [2], 0, 8), b=("F32", [2], 4, 12)), 12, "invalid offset"),
    "with a gap": (_described(a=("F32", [2], 0, 8), b=("F32", [2], 12, 20)), 20, "invalid offset"),
    "too long": (_described(w=("F32", [2], 0, 8)), 9, "not fully covered"),
    "of another type": (_described(w=("Q4_0", [2], 0, 1)), 1, "Quantised"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_not_believed(tmp_path: Path, name: str) -> None:
    header, num_bytes, reason = HEADERS[name]
    path = _safetensors(tmp_path / "hostile.safetensors", header, content=bytes(num_bytes))
    with pytest.raises(WeightsError, match=reason) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_sound_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    """Also where a byte was changed: it opens as something else, or is refused in a sentence."""
    save_file({f"layer.{i}.weight": torch.zeros(2, 3) for i in range(4)}, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "damaged.safetensors"
    for length in (*range(20), *range(20, len(content), 7)):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"truncated|empty|a whole"):
            open_checkpoint(path)
    opened = 0
    for place in (*range(12), *range(12, len(content), 5)):
        for bit in (0, 7):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            with contextlib.suppress(WeightsError):
                opened += len(open_checkpoint(path).shapes)
    assert opened > 0


def test_damaged_torch_files(tmp_path: Path) -> None:
    whole = tmp_path / "whole.ckpt"
    torch.save({"weight": torch.zeros(1000)}, whole)
    truncated, archive, empty, text = (tmp_path / f"{name}.ckpt" for name in ("truncated", "archive", "empty", "text"))
    truncated.write_bytes(whole.read_bytes()[:-500])
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "not weights")
    torch.save({"epoch": 3}, empty)
    text.write_text("hello, this is a letter and no checkpoint")
    reasons = {
        truncated: "damaged or truncated torch file",
        archive: r"a zip archive, no weights file: it holds readme\.txt",
        empty: "holds no tensors, but 'epoch'",
        text: "a text that begins 'hello",
    }
    for path, reason in reasons.items():
        with pytest.raises(WeightsError, match=reason) as caught:
            open_checkpoint(path)
        assert str(path) in str(caught.value)


def test_what_trainers_put_around_the_weights_is_read(tmp_path: Path) -> None:
    """Lightning's and DeepSpeed's nests, with NumPy's numbers in them; classes are still refused, by name."""
    weights = {"a.weight": torch.randn(3, 2)}
    numbers = {"best": np.float64(0.5), "steps": np.int64(7), "seen": np.bool_(True)}
    nests: list[dict[str, Any]] = [
        {"state_dict": weights, "epoch": 1, "callbacks": {"ModelCheckpoint": numbers}, "hyper_parameters": numbers},
        {"module": weights, "global_steps": 7, "dp_world_size": 1, "optimizer": None},
        {"state_dict": {"module": weights}},
        {"model": weights, "optimizer": {"state": {0: torch.zeros(2)}}},
    ]
    for number, nest in enumerate(nests):
        path = tmp_path / f"{number}.ckpt"
        torch.save(nest, path)
        source = open_checkpoint(path)
        assert list(source.shapes) == ["a.weight"]
        assert torch.equal(source.tensor("a.weight"), weights["a.weight"])
    torch.save({"state_dict": weights, "callbacks": Malice(tmp_path / "trace")}, tmp_path / "malice.ckpt")
    with pytest.raises(UnsafeCheckpointError, match=r"besides tensors \(\S+\), which could run code"):
        open_checkpoint(tmp_path / "malice.ckpt")


def test_sharded_files_are_one_source(tmp_path: Path) -> None:
    parts = [{"a": torch.zeros(2), "stale": torch.zeros(1)}, {"b": torch.ones(3)}]
    for number, part in enumerate(parts):
        save_file(part, tmp_path / f"part-{number}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    places = {"a": "part-0.safetensors", "b": "part-1.safetensors"}
    index.write_text(json.dumps({"weight_map": places}))
    source = open_checkpoint(index)
    assert source.shapes == {"a": (2,), "b": (3,)}
    assert source.tensor("b").tolist() == [1.0] * 3
    for places_then, reason in (
        (places | {"b": "../part-1.safetensors"}, "outside of its folder"),
        (places | {"b": "part-2.safetensors"}, "lacks 1 of its 2 files, such as part-2"),
        (places | {"c": "part-1.safetensors"}, "lacks c, which"),
        (None, "has no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": places_then} if places_then else {"a": 1}))
        with pytest.raises(WeightsError, match=reason):
            open_checkpoint(index)

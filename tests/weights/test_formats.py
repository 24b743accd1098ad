"""A file is what its strongest frame says, whatever its first bytes are; strangers are called by their names."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from supir.errors import WeightsError
from supir.weights.checkpoint import open_checkpoint
from supir.weights.formats import MAX_HEADER_BYTES, format_of

TENSOR = torch.tensor([1.5, -2.0])


def sound(path: Path, header_bytes: int, *, notes: bool = False) -> Path:
    """A sound safetensors file whose header has so many bytes: padded with blanks, or by a note in it."""
    entries: dict[str, object] = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    if notes:
        entries = {"__metadata__": {"note": ""}} | entries
        entries["__metadata__"] = {"note": "x" * (header_bytes - len(json.dumps(entries)))}
    header = json.dumps(entries).encode().ljust(header_bytes)
    assert len(header) == header_bytes
    path.write_bytes(header_bytes.to_bytes(8, "little") + header + TENSOR.numpy().tobytes())
    return path


def _opens(path: Path) -> None:
    source = open_checkpoint(path)
    assert source.shapes == {"w": (2,)}
    assert torch.equal(source.tensor("w"), TENSOR)


def test_every_first_byte(tmp_path: Path) -> None:
    """A header's length may begin with any byte, those of pickles, archives and pictures among them."""
    for first in range(256):
        _opens(sound(tmp_path / "w.safetensors", 256 + first, notes=bool(first % 2)))


@settings(max_examples=60, deadline=None)
@given(length=st.integers(120, 300_000), suffix=st.sampled_from([".safetensors", ".ckpt", ".sft", ""]))
def test_every_length_under_every_name(tmp_path_factory: pytest.TempPathFactory, length: int, suffix: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "lengths"
    folder.mkdir(exist_ok=True)
    _opens(sound(folder / f"w{suffix}", length))


@pytest.mark.parametrize(
    "beginning", [b"PK\x03\x04", b"\x80\x02", b"\x80\x04\x95", b"\xff\xd8\xff", b"\x1f\x8b\x08", b"BM"]
)
def test_lengths_that_spell_another_format(tmp_path: Path, beginning: bytes) -> None:
    """Also that of a zip archive, which is a header of 67 MB and allowed."""
    length = int.from_bytes(beginning, "little")
    assert length <= MAX_HEADER_BYTES
    _opens(sound(tmp_path / "w.safetensors", length))


def _strangers(folder: Path) -> dict[str, bytes]:
    """Real files of other kinds, by what their sentence must say."""
    picture = Image.new("RGB", (9, 7))
    pictures = {}
    for kind in ("PNG", "JPEG", "GIF", "WebP", "TIFF"):
        picture.save(written := io.BytesIO(), kind.lower())
        pictures[f"a {kind} picture"] = written.getvalue()
    connection = sqlite3.connect(folder / "base")
    connection.execute("create table if not exists t (a)")
    connection.close()
    np.save(array := io.BytesIO(), np.zeros(3))
    with tarfile.open(fileobj=(tar := io.BytesIO()), mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    with zipfile.ZipFile(zipped := io.BytesIO(), "w") as empty:
        del empty
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 6938078334\n"
    return pictures | {
        "git-LFS pointer.*git lfs pull": pointer,
        "git-annex": b"/annex/objects/SHA256E-s6938078334--4d7a.safetensors",
        "a web page": b"\xef\xbb\xbf\n<!DOCTYPE html><title>Sign in</title>",
        "a web page.*again": b"<html><body>404</body></html>",
        "an XML text": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        "a GGML file.*original": b"lmgg" + bytes(64),
        "a JSON text": b'{"error": "Repository not found"}' + b" " * 40,
        "a gzip archive.*Unpack": gzip.compress(b"weights" * 9),
        "a bzip2 archive": bz2.compress(b"weights" * 9),
        "an xz archive": lzma.compress(b"weights" * 9),
        "a tar archive": tar.getvalue(),
        "cut-off zip archive": zipped.getvalue(),
        "a NumPy array": array.getvalue(),
        "a database": (folder / "base").read_bytes(),
        "a PDF document": b"%PDF-1.7\n%....",
        "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(64),
        "a program": b"\x7fELF\x02\x01\x01" + bytes(64),
        "an empty file": b"",
        "an unfinished download": bytes(4096),
        "a text that begins 'Entry not found'": b"Entry not found",
        "of no kind known here|claim a header": b"\x13\x37\xfe\xed\xca\xfe\xba\xbe!!",
    }


def test_strangers_are_called_by_their_names(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".ckpt"):
        for said, content in _strangers(tmp_path).items():
            path = tmp_path / f"model{suffix}"
            path.write_bytes(content)
            with pytest.raises(WeightsError, match=said) as caught:
                format_of(path)
            assert len(str(caught.value).splitlines()) == 1
            assert str(path) in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(beginning=st.binary(max_size=24))
def test_any_bytes_are_refused_in_a_sentence(tmp_path_factory: pytest.TempPathFactory, beginning: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(beginning)
    with pytest.raises(WeightsError, match=r"any\.safetensors"):
        open_checkpoint(path)


def test_torch_files_are_told_by_protocol_and_operation(tmp_path: Path) -> None:
    for protocol in (2, 3, 4, 5):
        path = tmp_path / f"{protocol}.ckpt"
        path.write_bytes(pickle.dumps({"a": [1, 2, 3]}, protocol=protocol))
        assert format_of(path) == "pickle"
    torch.save({"w": TENSOR}, tmp_path / "zip.safetensors")
    assert format_of(tmp_path / "zip.safetensors") == "zip"
    save_file({"w": TENSOR}, tmp_path / "plain.ckpt")
    assert format_of(tmp_path / "plain.ckpt") == "safetensors"
    (tmp_path / "no.ckpt").write_bytes(b"\x80\x04\xff\xff rest of something")
    with pytest.raises(WeightsError, match="of no kind known here"):
        format_of(tmp_path / "no.ckpt")

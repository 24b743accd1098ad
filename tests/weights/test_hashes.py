"""Hashes of large files are kept while the files stay the same; a changed file is never taken for its former self."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from supir.weights import catalog
from supir.weights.catalog import folder_hash


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(catalog, "user_cache_path", lambda *_, **__: tmp_path / "cache")
    monkeypatch.setattr(catalog, "LARGE", 100)
    return tmp_path / "cache" / "catalog.json"


def written(path: Path, letter: bytes, age: float = 100.0) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(letter * 200)
    stat = path.stat()
    os.utime(path, (stat.st_atime - age, stat.st_mtime - age))
    return path


def test_a_large_file_is_read_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "model" / "weights.safetensors", b"a")
    first, small = folder_hash(path.parent), written(tmp_path / "model" / "config.json", b"")
    assert folder_hash(path.parent) != first
    read: list[Path] = []
    plain = catalog.file_hash
    monkeypatch.setattr(catalog, "file_hash", lambda given: read.append(given) or plain(given))
    again = folder_hash(path.parent)
    assert read == [small]
    written(path, b"b", age=200)
    assert folder_hash(path.parent) != again
    assert read == [small, small, path]


def test_what_may_still_change_is_not_kept(cache: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "weights", b"a", age=0)
    assert catalog.known_hash(path) == hashlib.sha256(b"a" * 200).hexdigest()
    assert not cache.exists()


@pytest.mark.parametrize("found", [b"{", b"[]", b"\xff"])
def test_a_cache_that_is_damaged_or_cannot_be_written_costs_time_alone(
    cache: Path, tmp_path: Path, found: bytes
) -> None:
    path = written(tmp_path / "weights", b"a")
    cache.parent.mkdir()
    cache.write_bytes(found)
    assert catalog.known_hash(path) == hashlib.sha256(b"a" * 200).hexdigest()
    cache.unlink()
    cache.mkdir()
    assert catalog.known_hash(path) == hashlib.sha256(b"a" * 200).hexdigest()

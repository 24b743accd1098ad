"""Copies in object storage: there before a job is done, gone when it is deleted; and a storage that refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from service.serving import QUICK, Server, picture
from supir.errors import OptionError
from supir.service.archive import Archive

MEMORY = "memory://bucket/photos"


@pytest.fixture
def stored() -> Iterator[Any]:
    """fsspec's storage in memory, which has buckets' ways: no folders but names with slashes, whole files alone."""
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/bucket", recursive=True)


def test_files_are_kept_and_forgotten(stored: Any, tmp_path: Path) -> None:
    archive = Archive(MEMORY)
    for name, data in (("upload", b"photo"), ("result.png", b"result")):
        (tmp_path / name).write_bytes(data)
    archive.keep("ab12", [tmp_path / "upload", tmp_path / "result.png"])
    archive.keep("cd34", [tmp_path / "upload"])
    assert stored.find("/bucket") == [
        "/bucket/photos/ab12/result.png",
        "/bucket/photos/ab12/upload",
        "/bucket/photos/cd34/upload",
    ]
    (tmp_path / "upload").write_bytes(b"another")
    archive.keep("ab12", [tmp_path / "upload"])
    assert stored.cat("/bucket/photos/ab12/upload") == b"another"
    archive.forget("ab12")
    archive.forget("ab12")
    assert stored.find("/bucket") == ["/bucket/photos/cd34/upload"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense://x", "archive is 'nonsense://x': Protocol not known: nonsense"),
        ("file:///proc/here", "archive is 'file:///proc/here', where nothing can be written: "),
    ],
)
def test_what_cannot_be_written_is_said_at_once(url: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Archive(url)


def test_a_storage_that_refuses_is_an_oserror(stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(MEMORY)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("SlowDown: reduce your request rate")

    monkeypatch.setattr(archive._files, "put_file", refuse)
    with pytest.raises(OSError, match="the archive refuses it: SlowDown"):
        archive.keep("ab12", [tmp_path / "upload"])


@pytest.mark.slow
def test_a_job_is_done_when_its_copies_are_there(model: Path, tmp_path: Path) -> None:
    """Through the command, in a folder that stands for the bucket."""
    bucket = tmp_path / "bucket"
    server = Server(tmp_path, model, "--archive", f"file://{bucket}")
    (tmp_path / "photo.png").write_bytes(picture())
    with server.client() as client:
        job = client.wait(client.submit(tmp_path / "photo.png", **QUICK))
        assert job.state == "done"
        assert {path.name for path in (bucket / job.id).iterdir()} == {"upload", "result.png"}
        assert (bucket / job.id / "upload").read_bytes() == picture()
        client.delete(job)
        assert not (bucket / job.id).exists()
    assert server.stop() == 0

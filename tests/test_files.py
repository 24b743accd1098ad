"""Files whole or not at all, folders that are ours, the same file, on Linux and as other systems would have it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from folding_disk import FoldingDisk
from supir import files
from supir.errors import OptionError, SupirError
from supir.files import Places, saying, system, whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_there_whole_or_as_it_was_before(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.txt"
    files.write_whole(path, "first\n")
    with pytest.raises(ZeroDivisionError), files.written_whole(path) as stream:  # noqa: PT012
        stream.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"first\n"
    assert names(path.parent) == ["a.txt"]


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    files.write_whole(tmp_path / "a", "é\r\n\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\r\n\n"


def test_a_failed_write_names_the_file_and_never_the_temporary_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        files.write_whole(tmp_path / "a.txt", b"1")
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert names(tmp_path) == []
    with pytest.raises(OSError) as caught:
        files.write_whole(tmp_path / ("n" * 300), b"1")
    assert caught.value.filename == str(tmp_path / ("n" * 300))
    assert files.sentence(caught.value).endswith("the name is longer than this disk allows; choose a shorter one")


def test_a_folder_takes_the_place_of_another_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for text in ("one", "two"):
        with files.folder_whole(folder) as new:
            (new / "deep").mkdir()
            (new / "deep" / text).write_text(text)
    with pytest.raises(ZeroDivisionError), files.folder_whole(folder) as new:  # noqa: PT012
        (new / "half").write_text("half")
        raise ZeroDivisionError
    assert [path.name for path in folder.rglob("*")] == ["deep", "two"]
    assert names(tmp_path) == ["model"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count a name otherwise")
def test_names_at_the_limit_of_a_disk_can_be_written(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127, "\udcff" * 255):
        files.write_whole(tmp_path / name, b"1")
        assert (tmp_path / name).read_bytes() == b"1"


def test_only_half_written_files_of_ours_are_swept(tmp_path: Path) -> None:
    ours = files.temporary_name(tmp_path / "sub" / "two\nlines.png")
    ours.parent.mkdir()
    ours.write_bytes(b"half")
    with files.temporary_file(tmp_path) as stream:
        assert files.is_temporary(Path(stream.name).name)
        left = Path(stream.name)
    assert not left.exists()
    left.write_bytes(b"pixels")
    half = files.temporary_name(tmp_path / "model")
    (half / "unet").mkdir(parents=True)
    theirs = [tmp_path / name for name in (".mine.tmp", "a.0123456789ab.tmp", ".a.0123456789ab.tmp.txt", ".vimrc.swp")]
    for path in theirs:
        path.write_bytes(b"somebody's")
    files.sweep(tmp_path)
    assert ours.exists()
    assert not left.exists()
    assert not half.exists()
    files.sweep(tmp_path, inside=True)
    assert not ours.exists()
    assert all(path.exists() for path in theirs)


HOLDS = """
import sys
from pathlib import Path
from supir.files import alone
with alone(Path(sys.argv[1]), "build"):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        files.alone(lock, "build"),
        pytest.raises(SupirError, match="another build is at work"),
        files.alone(lock, "build"),
    ):
        pass
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "in\n"
    with pytest.raises(SupirError, match="another build is at work"), files.alone(lock, "build"):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()
    with files.alone(lock, "build"):
        pass


def test_folders_of_somebody_else_are_refused_and_their_files_named(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    files.check_ours(photos, ["mark"], "batch")
    (photos / ".DS_Store").touch()
    (photos / "Thumbs.db").touch()
    files.check_ours(photos, ["mark"], "batch")
    (photos / "holiday.jpg").touch()
    with pytest.raises(OptionError, match="holds something that no batch made"):
        files.check_ours(photos, ["mark"], "batch")
    with pytest.raises(OptionError, match="is a file"):
        files.check_ours(photos / "holiday.jpg", ["mark"], "batch")
    (photos / "mark").touch()
    files.check_ours(photos, ["mark"], "batch")
    (photos / "unet").mkdir()
    (photos / "unet" / "config.json").touch()
    (photos / "unet" / "notes.txt").touch()
    (photos / "link").symlink_to(tmp_path)
    assert files.strangers(photos, ["mark", "unet/*.json"]) == ["holiday.jpg", "link", "unet/notes.txt"]


def test_what_cannot_be_written_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.check_writable(tmp_path / "not" / "there yet" / "a.png")
    (tmp_path / "file").touch()
    for path, reason in {
        tmp_path: "is a folder",
        tmp_path / "file" / "a.png": "is a file",
        tmp_path / ("n" * 256): "longer than this disk",
    }.items():
        with pytest.raises(OSError) as caught:
            files.check_writable(path)
        assert reason in files.sentence(caught.value)

    def read_only(**_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "whatever"))

    monkeypatch.setattr(saying.tempfile, "TemporaryFile", read_only)
    with pytest.raises(OSError) as caught:
        files.check_writable(tmp_path / "a.png")
    expected = f"{tmp_path / 'a.png'}: the disk can only be read; choose another folder"
    assert files.sentence(caught.value) == expected
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_said_with_its_room(tmp_path: Path) -> None:
    said = files.sentence(OSError(errno.ENOSPC, "?"), tmp_path / "not there" / "a.png", needed=3_000_000_000)
    assert said.startswith(f"{tmp_path / 'not there' / 'a.png'}: the disk is full (")
    assert said.endswith("free, 3.0 GB needed); make room and run again")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError('Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No space" })'),
        ValueError("I/O error: No space left on device (os error 28)"),
        ValueError("VipsTarget: write error\nunix error: No space left on device"),
    ],
)
def test_a_full_disk_is_found_in_the_errors_of_libraries(error: Exception) -> None:
    found = files.disk_error(error)
    assert found is not None
    assert found.errno == errno.ENOSPC


@pytest.mark.parametrize(("number", "is_found"), [(errno.ENOSPC, True), (errno.ENOENT, False)])
def test_only_the_disk_is_found_behind_the_error_of_a_library(number: int, is_found: bool) -> None:
    def fail() -> None:
        try:
            raise OSError(number, os.strerror(number))
        finally:
            raise RuntimeError("file write failed")

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert (files.disk_error(caught.value) is not None) == is_found
    assert files.disk_error(ValueError("of something else")) is None


def test_a_torn_line_says_nothing_and_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "log.jsonl"
    assert list(files.read_entries(path)) == files.whole_lines(path) == []
    files.add_entries(path, {"n": 1})
    files.add_entries(path, {"n": "zwö"}, {"n": 3})
    path.write_bytes(path.read_bytes() + b'{"n": "' + b"torn" * 40_000)
    assert [entry["n"] for entry in files.read_entries(path)] == [1, "zwö", 3]
    files.add_entries(path, {"n": 4})
    assert [json.loads(line)["n"] for line in path.read_text(encoding="utf-8").splitlines()] == [1, "zwö", 3, 4]
    path.write_bytes(b'{"n": "first of all')
    files.add_entries(path, {"n": 5})
    assert path.read_bytes() == b'{"n": 5}\n'


def test_lines_that_are_no_objects_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": \n[2]\n\xff\n' + b"[" * 100_000 + b'\n{"n": 6}\n')
    assert [entry["n"] for entry in files.read_entries(path)] == [1, 6]
    files.write_entries(path, [{"n": 7}, {"n": 8}])
    assert path.read_bytes() == b'{"n": 7}\n{"n": 8}\n'


def test_a_line_for_which_there_is_no_room_leaves_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    files.add_entries(path, {"n": 1})
    real, room = os.write, iter([3])

    def write(descriptor: int, data: Any) -> int:
        if (left := next(room, 0)) == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, bytes(data)[:left])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError) as caught:
            files.add_entries(path, {"n": "of some length"}, {"n": 2})
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b'{"n": 1}\n'
    files.add_entries(path, {"n": 2})
    assert files.whole_lines(path) == ['{"n": 1}', '{"n": 2}']


# ------------------------------------------------------------------------------------------------- the same file


def test_one_file_by_two_names_is_one_through_links(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "soft.jpg").symlink_to("a.jpg")
    (tmp_path / "hard.jpg").hardlink_to(tmp_path / "a.jpg")
    (tmp_path / "folder").symlink_to(tmp_path)
    inputs, targets = Places(through_links=True), Places(through_links=False)
    inputs.add(tmp_path / "a.jpg")
    targets.add(tmp_path / "a.jpg")
    for name in ("soft.jpg", "hard.jpg", "folder/soft.jpg", "./folder/folder/a.jpg"):
        assert inputs.find_file(tmp_path / name) == tmp_path / "a.jpg"
    assert tmp_path / "hard.jpg" not in inputs
    assert targets.find(tmp_path / "folder" / "a.jpg") == tmp_path / "a.jpg"
    assert targets.find(tmp_path / "soft.jpg") is None


NFC, NFD = (unicodedata.normalize(form, "Café.jpg") for form in ("NFC", "NFD"))


@pytest.mark.skipif(sys.platform != "linux", reason="the disks of other systems take them for one")
def test_names_that_differ_in_capitals_are_two_here(tmp_path: Path) -> None:
    for there in (True, False):
        for name in ("img.jpg", NFC):
            found = Places(through_links=False)
            if there:
                (tmp_path / "IMG.jpg").touch()
                (tmp_path / "img.jpg").touch()
            found.add(tmp_path / name)
            assert found.find(tmp_path / name.upper()) is None
            assert found.find(tmp_path / NFD) is None
    assert names(tmp_path) == ["IMG.jpg", "img.jpg"]


def test_names_that_differ_in_capitals_or_accents_are_one_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FoldingDisk(tmp_path, monkeypatch)
    for one, other in (("IMG.jpg", "img.JPG"), (NFC, NFD), ("Straße/x.jpg", "STRASSE/X.jpg"), ("A/x.jpg", "a/X.jpg")):
        for through_links in (True, False):
            planned = Places(through_links=through_links)
            planned.add(tmp_path / one)
            assert planned.find(tmp_path / other) == tmp_path / one
            assert planned.find(tmp_path / other / "below") is None
        (tmp_path / one).parent.mkdir(exist_ok=True)
        (tmp_path / one).touch()
        for through_links in (True, False):
            there = Places(through_links=through_links)
            there.add(tmp_path / one)
            assert there.find(tmp_path / other) == tmp_path / one


def test_a_disk_that_cannot_be_asked_is_taken_for_its_systems_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(system, "WINDOWS", False)
    for mac in (False, True):
        monkeypatch.setattr(system, "MACOS", mac)
        planned = Places(through_links=False)
        planned.add(tmp_path / "IMG.jpg")
        assert (planned.find(tmp_path / "img.jpg") is not None) == mac


# ------------------------------------------------------------------------------------------------- other systems


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Windows refuses: folders that are opened, files that are read being flushed, `pread`."""
    real_open, real_fsync = os.open, os.fsync
    writable: dict[int, bool] = {}

    def open_(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        descriptor = real_open(path, flags, *more, **named)
        writable[descriptor] = bool(flags & (os.O_RDWR | os.O_WRONLY))
        return descriptor

    def fsync(descriptor: int) -> None:
        if not writable.get(descriptor, True):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.delattr(os, "pread", raising=False)
    monkeypatch.setattr(system, "WINDOWS", True)


def test_where_fsync_waits_for_too_little_the_other_way_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def full_sync(descriptor: int) -> None:
        asked.append("full")
        if len(asked) > 1:
            raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(system, "full_sync", full_sync)
    monkeypatch.setattr(os, "fsync", lambda descriptor: asked.append("fsync"))
    files.write_whole(tmp_path / "a", b"1")
    assert asked == ["full", "full", "fsync"]  # the file, then the folder's names, for which this disk has fsync alone


@pytest.mark.usefixtures("windows")
def test_where_folders_cannot_be_flushed_files_are(tmp_path: Path) -> None:
    files.write_whole(tmp_path / "a", b"0123456789")
    files.flush(tmp_path / "a")
    files.flush(tmp_path)
    with (tmp_path / "a").open("rb") as stream:
        assert files.read_at(stream.fileno(), 3, 4) == b"456"
        assert files.read_at(stream.fileno(), 30, 8) == b"89"
    with files.folder_whole(tmp_path / "b") as new:
        (new / "c").touch()
    assert (tmp_path / "b" / "c").exists()


@pytest.mark.usefixtures("windows")
def test_a_file_that_others_are_reading_is_replaced_when_they_have_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refusals = os.replace, iter(range(3))

    def replace(one: Path, other: Path) -> None:
        if next(refusals, None) is not None:
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(one), None, str(other))
        real(one, other)

    monkeypatch.setattr(os, "replace", replace)
    files.write_whole(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"

    monkeypatch.setattr(whole, "_PATIENCE", 0.0)
    refusals = iter(range(10))
    with pytest.raises(PermissionError) as caught:
        files.write_whole(tmp_path / "a", b"2")
    assert caught.value.filename == str(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize(
    "name",
    ["CON", "nul.jpg", "Com1.restored.png", "LPT².txt", "aux .png", "a.jpg.", "a.jpg ", "a:b.png", 'a"', "a\tb", "a?"],
)
def test_names_that_windows_does_not_take_are_known(name: str) -> None:
    assert files.name_fault(Path("folder") / name)


@pytest.mark.usefixtures("windows")
def test_names_that_windows_takes_are_not_refused() -> None:
    for name in ("CONrad.jpg", "com.png", "com10.png", "a b.jpg", ".hidden", "é.jpg", "a.b.c"):
        assert files.name_fault(Path("folder") / name) is None


def test_elsewhere_any_name_is_taken_that_is_not_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "WINDOWS", False)
    assert files.name_fault("CON:?") is None
    assert files.name_fault("é" * 127) is None
    assert "256 bytes" in str(files.name_fault("é" * 128))


@pytest.mark.usefixtures("windows")
def test_a_path_too_long_for_windows_is_said() -> None:
    said = files.sentence(FileNotFoundError(errno.ENOENT, "No such file or directory", "C:/" + "a/" * 200 + "b.png"))
    assert "more than 259 characters" in said

from __future__ import annotations

from pathlib import Path

import pytest

from folding_disk import FoldingDisk
from supir.errors import ImageError, ImageReadError
from supir.image import find_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "b.JPG",
        "a.png",
        "C.tiff",
        "notes.txt",
        ".hidden.png",
        "deep/d.webp",
        "deep/deeper/e.jpeg",
        "x[1].png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def names(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_folder_gives_its_own_pictures_by_name(folder: Path) -> None:
    assert names(find_pictures(folder), folder) == ["a.png", "b.JPG", "C.tiff", "x[1].png"]
    assert names(find_pictures(str(folder / "deep")), folder) == ["deep/d.webp"]


def test_globs(folder: Path) -> None:
    assert names(find_pictures(f"{folder}/*.png"), folder) == ["a.png", "x[1].png"]
    everything = ["a.png", "b.JPG", "C.tiff", "deep/d.webp", "deep/deeper/e.jpeg", "x[1].png"]
    assert names(find_pictures(f"{folder}/**"), folder) == everything
    assert names(find_pictures(f"{folder}/[ab].*"), folder) == ["a.png", "b.JPG"]
    assert names(find_pictures(folder / "x[1].png"), folder) == ["x[1].png"], "a file of that name is no glob"


def test_a_glob_does_not_go_round_in_circles(folder: Path) -> None:
    (folder / "deep" / "up").symlink_to(folder)
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "f.png").touch()
    everything = ["a.png", "b.JPG", "C.tiff", "deep/d.webp", "deep/deeper/e.jpeg", "x[1].png"]
    assert names(find_pictures(f"{folder}/**"), folder) == everything
    assert names(find_pictures(f"{folder}/**/deeper/**/*.jpeg"), folder) == ["deep/deeper/e.jpeg"]
    assert names(find_pictures(f"{folder}/*/up/a.png"), folder) == ["deep/up/a.png"], "a link that is named is followed"


def test_files_are_taken_as_they_are_and_once_in_the_order_given(folder: Path) -> None:
    (folder / "again").symlink_to(folder)
    given = [folder / "notes.txt", folder / "b.JPG", folder, folder / "deep" / ".." / "b.JPG", folder / "again"]
    assert names(find_pictures(given), folder) == ["notes.txt", "b.JPG", "a.png", "C.tiff", "x[1].png"]


def test_a_linked_file_is_a_picture_of_its_own(folder: Path) -> None:
    (folder / "link.png").symlink_to(folder / "a.png")
    (folder / "hard.png").hardlink_to(folder / "a.png")
    assert names(find_pictures(f"{folder}/*.png"), folder) == ["a.png", "hard.png", "link.png", "x[1].png"]


def test_what_is_left_out_of_folders_is_taken_when_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    def short(path: Path) -> bool:
        return path.stem in ("a", "d")

    assert find_pictures([".", "deep/*", "./deep//d.webp", "deep/../a.png"], on_error=[].append, leave_out=short) == [
        Path(name) for name in ("b.JPG", "C.tiff", "x[1].png", "deep/d.webp", "deep/../a.png")
    ]
    for name in ("deep", "deep/*.webp"):
        with pytest.raises(ImageReadError, match="no picture but results; name those"):
            find_pictures(name, leave_out=short)


def test_one_file_by_two_spellings_is_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FoldingDisk(tmp_path, monkeypatch)
    (tmp_path / "IMG.JPG").touch()
    assert find_pictures([tmp_path / "img.jpg", tmp_path / "IMG.JPG", tmp_path]) == [tmp_path / "img.jpg"]


def test_a_dangling_link_is_found_so_that_reading_it_can_say_so(folder: Path) -> None:
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    assert find_pictures(folder / "gone.png") == [folder / "gone.png"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", "does not exist; give picture files, folders or globs"),
        ("empty", r"a folder without pictures; looked for \.jpg, \.jpeg, \.png, \.webp, \.tif, \.tiff, .*not in the"),
        ("*.webp", r"no picture matches; looked for \.jpg"),
        ("*.txt", "no picture matches"),
        ("a\0.png", "does not exist|cannot be read"),
    ],
)
def test_what_gives_no_picture_is_named(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(ImageReadError, match=reason) as caught:
        find_pictures([folder / name, folder])
    assert str(caught.value).startswith(f"{folder / name}: ")
    errors: list[ImageError] = []
    assert len(find_pictures([folder / name, folder], on_error=errors.append)) == 4
    assert [str(error) for error in errors] == [str(caught.value)]


def test_no_inputs_give_no_pictures() -> None:
    assert find_pictures([]) == []

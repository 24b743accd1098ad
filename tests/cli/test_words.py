"""What the command says in other languages: sentences alone; JSON and exit codes stay as they are."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import supir
from supir.cli import words
from supir.cli.foretelling import about
from supir.cli.main import app
from supir.cli.progress import clock
from supir.cli.words import said, spoken
from supir.image import Condition

HERE = Path(words.__file__).parent
CATALOGUES = sorted(HERE.glob("words.*.json"))
HANGUL = re.compile("[가-힣]")


@pytest.fixture
def korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "")
    monkeypatch.setenv("LANG", "ko_KR.UTF-8")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 48), (90, 120, 200)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.mark.parametrize("place", CATALOGUES, ids=lambda path: path.name)
def test_what_is_translated_is_what_is_said(place: Path) -> None:
    """Each sentence stands in the code, and what stands for it has the same values."""
    code = "".join(path.read_text(encoding="utf-8") for path in Path(supir.__file__).parent.rglob("*.py"))
    code = re.sub(r'"\s*f?"', "", code.replace("'", '"'))  # a sentence over two lines
    for sentence, message in json.loads(place.read_text(encoding="utf-8")).items():
        for part in re.split(r"\{\w+(?::n)?\}|pip install.*", sentence.replace("'", '"')):
            assert part.strip(" .,:;()").removesuffix("s") in code, sentence  # numbers make plurals
        assert set(re.findall(r"\{(\w+)(?::n)?\}", sentence)) == set(re.findall(r"\{(\w+)\}", message)), sentence


def test_failures_are_said_in_korean(korean: None, photo: Path) -> None:
    target = photo.with_name("there.png")
    target.write_bytes(b"")
    for given, told in (
        (photo.with_name("none.png"), "오류: {}: 그런 파일이 없습니다"),
        (target, "오류: {}: 빈 파일이며 supir가 읽는 사진이 아닙니다"),
    ):
        done = run("restore", given)
        assert done.exit_code == 1
        assert told.format(given) in done.output
        assert "0장 복원, 1장 실패" in done.output
    done = run("restore", photo, "-o", target)
    assert f"오류: {photo}: {target} 파일이 이미 있습니다. 바꾸려면 --overwrite를 주십시오" in done.output
    done = run("restore", photo, "-o", photo)
    assert done.exit_code == 2
    assert "절대로 덮어쓰지" in done.output


def test_a_plan_is_said_in_korean_and_its_json_is_not(
    korean: None, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("plan", photo, "--rate", "10", "--memory", "4GB", "--device", "cpu")
    for line in run(*asked).stdout.splitlines():
        assert HANGUL.search(line) or line.startswith("dtype: "), line
    told = run(*asked, "--json").stdout
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert run(*asked, "--json").stdout == told
    assert not HANGUL.search(run(*asked).stdout)


def test_help_begins_in_korean(korean: None) -> None:
    for arguments, told in (
        (("--help",), "사진을 복원합니다. 손상되었거나"),
        (("--help",), "멈추었다가"),
        (("convert", "--help"), "SDXL과 공개된 SUPIR"),
    ):
        assert told in run(*arguments).output


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko"}, "ko"),
        ({"LC_ALL": "en_US.UTF-8", "LANG": "ko_KR.UTF-8"}, "en"),
        ({"LC_MESSAGES": "ko_KR", "LANG": "de_DE"}, "ko"),
        ({"LC_ALL": "C"}, "en"),
        ({}, "en"),
    ],
)
def test_the_environment_chooses(variables: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.setenv(name, variables.get(name, ""))
    assert spoken() == language


def test_a_language_is_a_file_and_what_it_lacks_is_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "words.xx.json").write_text('{"warning: {text}": "!! {text}", "{n:n} left": "<{n}>"}')
    monkeypatch.setattr(words, "files", lambda package: tmp_path)
    words._catalogue.cache_clear()
    assert said("warning: 1:05 left", "xx") == "!! <1:05>"
    assert said("warning: {braces} left", "xx") == "!! {braces} left"
    assert said("something else", "xx") == "something else"
    assert said("warning: a", "yy") == "warning: a"
    words._catalogue.cache_clear()


def test_what_measures_say_is_known(tmp_path: Path) -> None:
    """Sentences made of parts, which the catalogue must know as they come."""
    condition = Condition(noise=0.4, grid=1.02, sharpness=0.93, resolution=0.3)
    kept = said(f"warning: a.png: is good as it is ({condition}), and is kept; --always restores it", "ko")
    assert kept == (
        "주의: a.png: 이미 좋은 사진이라(잡음 255 중 0.4, 압축 격자 1.02, 선명도 0.93, 해상력 0.30) 그대로 둡니다."
        " 그래도 복원하려면 --always를 주십시오"
    )
    assert [said(about(each), "ko") for each in (20, 60, 600, 7200)] == ["약 20초", "약 1분", "약 10분", "약 2시간"]
    assert said(f"{clock(65)} left", "ko") == "1:05 남음"


def test_a_terminal_that_cannot_show_it_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(encoding="ascii"))
    assert said("estimating", "ko") == "estimating"

"""Degraded sets on disk: the same to the byte whenever made, gone on with, replayed from their log."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from supir.degradation.pairs import LOG, REPLAYED, Pair, cut, drawn_for, make_pairs, read_log
from supir.degradation.recipes import ABOUT, BENCHMARKS, RECIPES
from supir.errors import OptionError
from supir.image import Picture, read, write


@pytest.fixture
def originals(tmp_path: Path) -> list[Path]:
    paths = []
    for number, (height, width) in enumerate(((67, 90), (64, 48), (80, 80))):
        pixels = np.random.default_rng(number).integers(0, 256, (3, height, width)) / 127.5 - 1
        paths.append(tmp_path / "in" / f"{number}.png")
        write(Picture(pixels=torch.from_numpy(pixels).float()), paths[-1])
    return paths


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("recipe", ["sr4_noise40", "default"])
def test_pairs_do_not_depend_on_company_or_order(originals: list[Path], tmp_path: Path, recipe: str) -> None:
    assert all(made.pair and not made.known for made in make_pairs(originals, tmp_path / "a", recipe, seed=3))
    list(make_pairs(originals[2:], tmp_path / "b", recipe, seed=3))
    list(make_pairs(originals[1::-1], tmp_path / "b", recipe, seed=3))
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert a.keys() == b.keys()
    assert all(a[name] == b[name] for name in a if name != LOG)
    list(make_pairs(originals, tmp_path / "c", recipe, seed=4))
    assert files(tmp_path / "c")["lq/0.png"] != a["lq/0.png"]


def test_sizes_and_the_original(originals: list[Path], tmp_path: Path) -> None:
    [made] = make_pairs(originals[:1], tmp_path / "out", "sr4")
    assert made.pair is not None
    assert made.pair.size == (64, 88)
    assert read(tmp_path / "out" / "lq" / "0.png").rgb.shape == (3, 16, 22)
    expected = read(originals[0]).rgb[:, 1:65, 1:89]
    torch.testing.assert_close(read(tmp_path / "out" / "hq" / "0.png").rgb, expected)
    assert cut(expected, 30).shape == (3, 24, 24)


def test_what_is_there_is_kept_and_what_is_broken_made_again(originals: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    list(make_pairs(originals, out, "default"))
    before = files(out)
    (out / "lq" / "1.png").write_bytes(before["lq/1.png"][:50])
    with (out / LOG).open("a") as log:
        log.write('{"name": "cut off')
    found = {made.path.stem: made.known for made in make_pairs(originals, out, "default")}
    assert found == {"0": True, "1": False, "2": True}
    after = files(out)
    assert {name: data for name, data in after.items() if name != LOG} == {
        name: data for name, data in before.items() if name != LOG
    }
    assert sorted(after[LOG].splitlines()) == sorted(before[LOG].splitlines())
    write(Picture(pixels=-read(originals[0]).rgb), originals[0])
    assert [made.known for made in make_pairs(originals[:1], out, "default")] == [False]


def test_a_log_is_replayed_to_the_byte(originals: list[Path], tmp_path: Path) -> None:
    list(make_pairs(originals, tmp_path / "a", "real", seed=9))
    log = {pair.name: pair for pair in read_log(tmp_path / "a" / LOG)}
    again = list(make_pairs(originals, tmp_path / "b", REPLAYED, replay=log))
    assert [made.error for made in again] == [None] * 3
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert all(a[name] == b[name] for name in a if name != LOG)
    line = log["0"].as_json() | {"lq_sha256": "0" * 64}
    [wrong] = make_pairs(originals[:1], tmp_path / "c", REPLAYED, replay={"0": Pair.from_json(json.dumps(line))})
    assert "otherwise than the log says" in str(wrong.error)
    [missing] = make_pairs(originals[:1], tmp_path / "d", REPLAYED, replay={})
    assert "no picture of this name" in str(missing.error)


def test_pairs_of_an_earlier_drawing_are_not_mixed_with_new_ones(originals: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    list(make_pairs(originals[:1], out, "default"))
    old = json.loads((out / LOG).read_text())
    assert old.pop("version") == 2
    (out / LOG).write_text(json.dumps(old) + "\n")
    with pytest.raises(OptionError, match=r"as an earlier version drew default; .*replay"):
        list(make_pairs(originals, out, "default"))
    log = {pair.name: pair for pair in read_log(out / LOG)}
    [again] = make_pairs(originals[:1], tmp_path / "b", REPLAYED, replay=log)
    assert again.error is None


def test_what_cannot_be_done_is_said(originals: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    small = tmp_path / "in" / "small.png"
    write(Picture(pixels=torch.zeros(3, 7, 50)), small)
    bad, tiny, good = make_pairs([tmp_path / "in" / "bad.png", small, originals[0]], out, "sr4")
    assert "bad.png" in str(bad.error)
    assert "smaller than 8" in str(tiny.error)
    assert good.error is None
    with pytest.raises(OptionError, match=r"degraded by sr4, seed 0.*name another folder"):
        list(make_pairs(originals, out, "sr8"))
    with pytest.raises(OptionError, match="holds something"):
        list(make_pairs(originals, tmp_path / "in", "sr4"))
    with pytest.raises(OptionError, match="have one name"):
        list(make_pairs([originals[0], tmp_path / "other" / "0.jpg"], out, "sr4"))
    with pytest.raises(OptionError, match="unknown degradation recipe 'sr3'"):
        list(make_pairs(originals, out, "sr3"))
    with pytest.raises(OptionError, match="cannot be read"):
        read_log(tmp_path / "none")
    with pytest.raises(OptionError, match="not a line of"):
        Pair.from_json('{"name": 1}')


def test_originals_are_cut_around_the_middle() -> None:
    pixels = torch.zeros(3, 21, 35)
    pixels[:, 10, 17] = 1
    whole, middle = cut(pixels), cut(pixels, 8)
    assert whole.shape == (3, 16, 32)
    assert middle.shape == (3, 8, 8)
    assert whole[0, 8, 16] == middle[0, 4, 4] == 1


def test_every_recipe_is_described_and_depends_on_names_alone() -> None:
    assert ABOUT.keys() == RECIPES.keys()
    for recipe in (*BENCHMARKS, "default"):
        first, again, other = (drawn_for(recipe, name) for name in ("a", "a", "b"))
        assert first == again
        assert (first != other) == ("noise" in recipe or recipe == "default")

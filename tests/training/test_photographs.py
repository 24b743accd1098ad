"""Sources of crops: each sample from its own generator, in any process; degradations that can be replayed."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from smoke_runs import make_materials

from data.photographs import OPTIONS, Cropped, photo, save
from supir.data.build import build
from supir.degradation.process import Degradation
from supir.errors import ImageReadError, OptionError
from supir.models.text import NUM_TOKENS, TextTowers
from supir.prompts import POSITIVE_PROMPT, join_prompt
from supir.training import denoising
from supir.training.denoising import Draw, Sample
from supir.training.loop import Trainer, sample_batches
from supir.training.pairs import degraded_by
from supir.training.photographs import (
    LABELS,
    Mixed,
    Photographs,
    PictureFolder,
    Recent,
    Shards,
    Tiles,
    open_photographs,
    random_crop,
)
from supir.training.recipes import StageOptions, named_run
from supir.training.runs import make_stage
from tiny import tiny_components

LATENT = (8, 8, 8)


def make_draw(folder: Path, **overrides: object) -> Draw:
    options = named_run("smoke/adaptor", degradation="default=0.5,light=0.5", **overrides)
    return Draw(PictureFolder(folder), None, options, LATENT)


def same(first: Sample, second: Sample) -> bool:
    arrays = ("target", "degraded", "noise")
    plain = ("degradation", "prompt", "timestep")
    return all(np.array_equal(getattr(first, n), getattr(second, n)) for n in arrays) and all(
        getattr(first, n) == getattr(second, n) for n in plain
    )


def test_a_folder_gives_crops_and_captions(photographs: Path) -> None:
    source = PictureFolder(photographs)
    assert len(source) == 2
    found = [source.draw(np.random.default_rng(seed), 64) for seed in range(20)]
    assert {crop.caption for crop in found} == {"a cat", ""}
    assert all(crop.pixels.shape == (64, 64, 3) and crop.pixels.dtype == np.uint8 for crop in found)
    assert not any(crop.negative for crop in found)


def test_small_pictures_are_reflected() -> None:
    pixels = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    crop = random_crop(np.random.default_rng(0), pixels, 32)
    assert crop.shape == (32, 32, 3)
    assert {tuple(p) for p in crop.reshape(-1, 3)} == {tuple(p) for p in pixels.reshape(-1, 3)}


def test_labels_name_negative_pictures(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes((photographs / "shapes.png").read_bytes())
    (tmp_path / LABELS).write_text(json.dumps({"file": "a.png", "caption": "shapes", "negative": True}) + "\n")
    crop = open_photographs([tmp_path]).draw(np.random.default_rng(0), 32)
    assert (crop.caption, crop.negative) == ("shapes", True)


def test_sources_are_mixed_by_their_size(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes((photographs / "shapes.png").read_bytes())
    (tmp_path / LABELS).write_text(json.dumps({"file": "a.png", "caption": "other", "negative": True}) + "\n")
    mixed = open_photographs([photographs, tmp_path])
    assert isinstance(mixed, Mixed)
    assert len(mixed) == 3
    share = np.mean([mixed.draw(np.random.default_rng(seed), 32).negative for seed in range(600)])
    assert share == pytest.approx(1 / 3, abs=0.06)


@pytest.fixture
def damaged(photographs: Path, tmp_path: Path) -> Path:
    """A folder of a whole photograph, a cut one, words in Latin-1 and in UTF-16, and a torn line of labels."""
    whole = (photographs / "shapes.png").read_bytes()
    for name in ("a latin", "c marked", "d"):
        (tmp_path / f"{name}.png").write_bytes(whole)
    (tmp_path / "b cut.png").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "a latin.txt").write_bytes("ein Kätzchen".encode("latin-1"))
    (tmp_path / "c marked.txt").write_bytes("ein Kätzchen\n".encode("utf-16"))
    label = json.dumps({"file": "d.png", "caption": "labelled", "negative": False})
    (tmp_path / LABELS).write_text(f'{label}\n{{"file": "a la')
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1])
def test_one_bad_item_costs_itself_alone(
    damaged: Path, workers: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    draw = Cropped(PictureFolder(damaged), 32)
    found = [crop for batch in itertools.islice(sample_batches(draw, 3, 0, 8, 0, 1, workers), 5) for crop in batch]
    assert {crop.caption for crop in found} == {"", "ein Kätzchen", "labelled"}
    told = caplog.text + capfd.readouterr().err
    for item in ("b cut.png", "a latin.txt", LABELS):
        lines = [line for line in told.splitlines() if "left out: " in line and item in line]
        assert len(lines) == 1
    assert draw.source.num_left_out > 10  # each time it was met


def test_a_folder_of_nothing_whole_is_said(damaged: Path) -> None:
    for name in ("a latin", "c marked", "d"):
        (damaged / f"{name}.png").unlink()
    with pytest.raises(ImageReadError, match="none of its 1 pictures can be read"):
        PictureFolder(damaged).draw(np.random.default_rng(0), 32)


def test_a_run_says_how_often_something_was_left_out(damaged: Path, tmp_path: Path) -> None:
    stage = make_stage(make_materials(damaged, named_run("smoke/encoder")))
    Trainer(replace(stage, sheet=None), tmp_path / "run", StageOptions(steps=2, keep_best="")).train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[0]["left out"] >= 1


def test_decoded_pictures_are_held_up_to_a_number_of_bytes() -> None:
    asked: list[Path] = []

    def read(path: Path) -> np.ndarray:
        asked.append(path)
        return np.zeros((10, int(path.name), 3), np.uint8)

    recent = Recent(read, 900)
    first, second, third, vast = Path("10"), Path("15"), Path("12"), Path("100")
    for path in (first, second, first, third, first, vast, first):
        recent(path)
        assert recent.num_bytes <= 900
    assert asked == [first, second, third, vast]
    recent(second)
    assert asked[-1] == second


def test_token_ids_are_remembered_of_the_last_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoising, "KEPT_PROMPTS", 3)
    parts = tiny_components()
    names = (("tokenizer", "tokenizer_2"), ("text_encoder", "text_encoder_2"))
    embed = denoising.Words(*([parts[name] for name in pair] for pair in names))
    before = embed(["one", "two"])
    for number in range(4):
        embed([str(number)])
    assert embed._known.cache_info().currsize == 3
    assert all(torch.equal(a, b) for a, b in zip(embed(["one", "two"]), before, strict=True))


def test_long_captions_are_carried_whole_as_when_restoring() -> None:
    parts = tiny_components()
    names = (("tokenizer", "tokenizer_2"), ("text_encoder", "text_encoder_2"))
    embed = denoising.Words(*([parts[name] for name in pair] for pair in names))
    caption = "a harbour with boats, " * 40
    prompts = ["a cat", join_prompt(caption, POSITIVE_PROMPT), "", join_prompt(caption, "")]
    assert embed.num_long(prompts) == 2
    tokens, pooled = embed(prompts)
    found = TextTowers(**{name: parts[name] for pair in names for name in pair}).encode(prompts)
    assert tokens.shape[1] > 2 * NUM_TOKENS
    torch.testing.assert_close(tokens, found.tokens)
    torch.testing.assert_close(pooled, found.pooled)
    assert not torch.equal(tokens[1], tokens[3]), "the quality words were pushed out"
    assert embed(["a cat"])[0].shape[1] == NUM_TOKENS


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="without pictures"):
        open_photographs([tmp_path])
    with pytest.raises(OptionError, match="is no folder"):
        open_photographs([tmp_path / "none"])


def test_built_data_sets_are_read(photographs: Path, tmp_path: Path) -> None:
    limits = ("min-side", "min-sharpness", "max-flat-share", "max-blockiness", "min-jpeg-quality")
    off = [word for limit in limits for word in (f"--{limit}", "off")]
    command = [sys.executable, "-m", "supir.cli", "data", "build", str(photographs)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "set"), *off, "--quiet"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    source = open_photographs([tmp_path / "set"], seed=3)
    assert isinstance(source, Shards)
    assert len(source) == 2
    for number in (None, 1):
        first, second = (source.draw(np.random.default_rng(5), 64, number) for _ in range(2))
        assert np.array_equal(first.pixels, second.pixels)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Built data sets: nine places and three faces, each named by its caption."""
    root = tmp_path_factory.mktemp("sets")
    for number in range(12):
        name = f"{'face' if number > 8 else 'place'} {number}"
        save(root / name.split()[0] / f"{name}.png", photo(number, 64, 64))
        (root / name.split()[0] / f"{name}.txt").write_text(name)
    for name in ("place", "face"):
        build([root / name], root / f"{name}-set", options=OPTIONS)
    return [root / "place-set", root / "face-set"]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_meets_every_picture_of_a_data_set_once_a_pass(sets: list[Path], workers: int) -> None:
    options = named_run("smoke/adaptor", negative_share=0.0, caption_dropout=0.0)
    draw = Draw(open_photographs(sets, seed=5), None, options, LATENT)

    def shown(batches: int, first: int, batch: int, rank: int, world: int, workers: int = 0) -> list[list[str]]:
        found = itertools.islice(sample_batches(draw, 5, first, batch, rank, world, workers), batches)
        return [[" ".join(sample.prompt.split()[:2]) for sample in samples] for samples in found]

    whole = shown(6, 0, 4, 0, 1, workers)
    for turn in (whole[:3], whole[3:]):
        assert len({picture for batch in turn for picture in batch}) == 12
    assert shown(4, 2, 4, 0, 1) == whole[2:], "resumed in the middle of a pass"
    halves = [shown(6, 0, 2, rank, 2) for rank in (0, 1)]
    assert [first + second for first, second in zip(*halves, strict=True)] == whole


def test_faces_come_in_their_share(sets: list[Path], photographs: Path) -> None:
    built = open_photographs(sets, weights=[0.7, 0.3], seed=5)
    found = [built.draw(np.random.default_rng(n), 32, n).caption.startswith("face") for n in range(1000)]
    assert sum(found) == 300
    mixed = open_photographs([photographs, sets[1]], weights=[0.7, 0.3])
    found = [mixed.draw(np.random.default_rng(n), 32, n).caption.startswith("face") for n in range(400)]
    assert np.mean(found) == pytest.approx(0.3, abs=0.07)
    with pytest.raises(OptionError, match="weights are 1 for 2 folders"):
        open_photographs(sets, weights=[1])


def test_tiles_travel_as_their_place(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8))
    (tmp_path / "train_captions.json").write_text(json.dumps(["a"] * 4))
    tiles = Tiles(tmp_path)
    sent = pickle.dumps(tiles)
    assert len(sent) < 1000
    first, second = (source.draw(np.random.default_rng(1), 32) for source in (tiles, pickle.loads(sent)))
    assert np.array_equal(first.pixels, second.pixels)


def test_a_degradation_is_replayed_from_its_line(photographs: Path) -> None:
    draw = make_draw(photographs, negative_share=0.0)
    for seed in range(6):
        sample = draw(np.random.default_rng((0, seed)))
        again = degraded_by(Degradation.from_json(sample.degradation), sample.target)
        assert np.array_equal(again, sample.degraded)


def test_the_loader_goes_on_exactly(photographs: Path) -> None:
    draw = make_draw(photographs)
    whole = list(itertools.islice(sample_batches(draw, 3, 0, 2, 0, 1), 5))
    rest = list(itertools.islice(sample_batches(draw, 3, 2, 2, 0, 1), 3))
    assert all(same(a, b) for one, other in zip(whole[2:], rest, strict=True) for a, b in zip(one, other, strict=True))
    assert not same(whole[0][0], whole[0][1])


def test_processes_share_the_samples_of_one(photographs: Path) -> None:
    draw = make_draw(photographs)
    alone = list(itertools.islice(sample_batches(draw, 0, 0, 4, 0, 1), 2))
    halves = [list(itertools.islice(sample_batches(draw, 0, 0, 2, rank, 2), 2)) for rank in (0, 1)]
    for step in (0, 1):
        joined = halves[0][step] + halves[1][step]
        assert all(same(a, b) for a, b in zip(alone[step], joined, strict=True))


@pytest.mark.slow
def test_workers_change_nothing(photographs: Path) -> None:
    draw = make_draw(photographs)
    here = list(itertools.islice(sample_batches(draw, 0, 1, 2, 0, 1), 3))
    there = list(itertools.islice(sample_batches(draw, 0, 1, 2, 0, 1, workers=2), 3))
    assert all(same(a, b) for one, other in zip(here, there, strict=True) for a, b in zip(one, other, strict=True))


def test_the_stated_share_is_negative(photographs: Path) -> None:
    from supir.prompts import NEGATIVE_PROMPT

    draw = make_draw(photographs, negative_share=0.3, caption_dropout=0.5)
    found = [draw(np.random.default_rng((9, number))) for number in range(300)]
    poor = [sample for sample in found if sample.prompt == NEGATIVE_PROMPT]
    assert len(poor) / len(found) == pytest.approx(0.3, abs=0.08)
    assert all(np.array_equal(sample.target, sample.degraded) for sample in poor)
    free = sum(sample.prompt == "" for sample in found) / (len(found) - len(poor))
    assert free == pytest.approx(0.5, abs=0.09)


def test_held_out_pictures_are_never_learned_from(photographs: Path, sets: list[Path], tmp_path: Path) -> None:
    """Of a folder, of built sets, and of both mixed: a picture is on one side, and on the same one each time."""
    for number in range(20):
        save(tmp_path / "many" / f"{number}.png", photo(100 + number, 64, 64))
    for folders in ([tmp_path / "many"], sets, [tmp_path / "many", sets[0]]):
        learned, held = open_photographs(folders, seed=5).parted()
        assert len(held) >= 1

        def seen(source: Photographs, numbers: Sequence[int | None]) -> set[bytes]:
            crops = (source.draw(np.random.default_rng(index), 64, number) for index, number in enumerate(numbers))
            return {min(crop.pixels.tobytes(), crop.pixels[:, ::-1].tobytes()) for crop in crops}

        ours, theirs = seen(learned, [*range(60), *[None] * 240]), seen(held, [None] * 60)
        assert ours.isdisjoint(theirs)
        assert len(theirs) == len(held)
        assert len(ours) == len(learned)
        again = open_photographs(folders, seed=5).parted()[1]
        assert seen(again, [None] * 60) == theirs
    save(tmp_path / "one" / "a.png", photo(1))
    with pytest.raises(OptionError, match="1 picture, and none to hold out; name others by --heldout"):
        open_photographs([tmp_path / "one"]).parted()

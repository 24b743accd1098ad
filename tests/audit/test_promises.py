"""Thresholds with a guarantee, and what an audit is calibrated by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from supir.audit.calibrating import FEWEST, Trial, fitted, in_turn, promised
from supir.audit.calibration import Calibration
from supir.audit.conformal import STEPS, alarm_curve, controlled, miss_curve, quantile, thresholds
from supir.audit.evidence import CHANNELS, NAMES
from supir.errors import OptionError


def test_a_threshold_is_the_last_whose_bound_is_within_the_level() -> None:
    losses = torch.zeros(9, STEPS)
    losses[:, 100:] = 0.05  # (9 * 0.05 + 1) / 10 = 0.145
    losses[:, 200:] = 0.3
    assert controlled(losses, 0.15) == 199
    assert controlled(losses, 0.14) == 99
    with pytest.raises(OptionError, match=r"9 photographs can promise 0\.100 at best"):
        controlled(losses, 0.05)


@pytest.mark.parametrize("level", [0.05, 0.1, 0.2])
def test_the_promise_holds_for_photographs_of_one_kind(level: float) -> None:
    """Over many calibrations and one new photograph each, as the theorem has it: not for each of them."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(300):
        kinds = 1 + torch.rand(40, generator=generator) * 2  # each photograph has a difficulty of its own
        curves = torch.stack([(thresholds() / 5.6).clamp(0, 1) ** kind for kind in kinds])
        found.append(float(curves[-1][max(controlled(curves[:-1], level), 0)]))
    mean = torch.tensor(found).mean()
    assert mean <= level + 0.01
    assert mean > level / 6  # and it is no empty one


def test_curves_count_the_places_they_are_of() -> None:
    values, wrong = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([True, False, True, False])
    missed, alarmed = miss_curve(values, wrong), alarm_curve(values, ~wrong)
    assert missed[(thresholds() < 1).nonzero().max()] == 0
    assert missed[(thresholds() < 2.9).nonzero().max()] == 0.5
    assert missed[-1] == 1
    falling = thresholds().flip(0)
    assert alarmed[(falling > 4.1).nonzero().max()] == 0
    assert alarmed[(falling > 2.1).nonzero().max()] == 0.5
    assert bool((missed.diff() >= 0).all())
    assert bool((alarmed.diff() >= 0).all())
    assert miss_curve(values, torch.zeros(4, dtype=torch.bool)).max() == 0


def test_a_rate_of_false_alarms_needs_as_many_photographs() -> None:
    assert quantile(torch.arange(19.0), 0.05) == 18
    assert quantile(torch.arange(39.0), 0.05) == 37
    with pytest.raises(OptionError, match=r"18 photographs can promise a rate of false alarms of 0\.053"):
        quantile(torch.arange(18.0), 0.05)


def random_trials(number: int, seed: int) -> list[Trial]:
    """Errors follow the first feature; statistics follow their second cause."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for place in range(number):
        features = torch.rand(len(NAMES), 16, 16, generator=generator) * 3
        error = torch.expm1(features[0] + 0.3 * torch.randn(16, 16, generator=generator)).clamp(min=0)
        causes = torch.rand(len(CHANNELS), 3, 16, 16, generator=generator)
        squares = causes[:, 1] * torch.randn(len(CHANNELS), 16, 16, generator=generator).square() * 2
        found.append(
            Trial(name=f"{seed}-{place}", recipe="sr4", features=features, error=error, statistics=(squares, causes))
        )
    return found


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return promised(fitted(random_trials(12, 0), {}), random_trials(40, 1), {"restorers": ["abc"]})


def test_a_calibration_learns_what_tells_and_its_promises_hold(calibration: Calibration) -> None:
    tested = random_trials(40, 2)
    maps = [calibration.expected(each.features) for each in tested]
    assert abs(float((maps[0] - torch.log1p(tested[0].error)).mean())) < 0.1
    missed, alarmed = [], []
    for found, each in zip(maps, tested, strict=True):
        wrong = each.error > 16
        missed.append(float((found[wrong] <= calibration.kept_below(0.1)).float().mean()) if wrong.any() else 0)
        alarmed.append(float((found[~wrong] >= calibration.invented_above(0.1)).float().mean()))
    assert sum(missed) / 40 <= 0.1
    assert sum(alarmed) / 40 <= 0.1
    highest = [float(calibration.contradiction(*each.statistics).max()) for each in tested]
    assert sum(score > calibration.alarm_above(0.05) for score in highest) <= 6


def test_a_calibration_survives_its_file_and_others_are_refused(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    calibration.save(path)
    again = Calibration.load(path)
    assert torch.equal(again.weights, calibration.weights)
    assert again.kept_below(0.1) == calibration.kept_below(0.1)
    assert again.restorers == ("abc",)
    replace(calibration, weights=torch.zeros(3)).save(path)
    with pytest.raises(OptionError, match="no calibration"):
        Calibration.load(path)
    path.write_bytes(b"\x80 no weights")
    with pytest.raises(OptionError, match="no calibration"):
        Calibration.load(path)


def test_too_few_photographs_promise_nothing() -> None:
    with pytest.raises(OptionError, match=f"needs at least {FEWEST}"):
        promised(fitted(random_trials(4, 0), {}), random_trials(FEWEST - 1, 1), {})


def test_each_recipe_comes_as_often() -> None:
    paths = [Path(f"{number}.png") for number in range(6)]
    found = list(in_turn(paths, ("a", "b", "c"), 2))
    assert len(found) == len(set(found)) == 12
    assert sorted(recipe for _, recipe in found) == ["a"] * 4 + ["b"] * 4 + ["c"] * 4


def test_the_bundled_calibration_is_of_the_bundled_model() -> None:
    from supir.pipeline import SupirPipeline

    found = Calibration.load()
    assert found.restorers == (SupirPipeline.from_pretrained().identity["model_sha256"],)
    assert found.about["photographs"] == len(found.scores) >= 40
    assert found.kept_below(0.1) < found.invented_above(0.1)


@pytest.mark.slow
def test_the_command_calibrates_with_photographs(tmp_path: Path) -> None:
    """Crops of a few pictures stand for photographs; each is degraded and restored."""
    import skimage.data
    from typer.testing import CliRunner

    from supir.cli.main import app
    from supir.image import Picture, write

    pixels = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1).float() / 127.5 - 1
    for number in range(FEWEST):
        top, left = number // 5 * 85, number % 5 * 115
        write(Picture(pixels=pixels[:, top : top + 128, left : left + 128].contiguous()), tmp_path / f"{number}.png")
    out = tmp_path / "own.safetensors"
    done = CliRunner().invoke(
        app, ["audit", "calibrate", str(tmp_path), "-o", str(out), "--draws", "1", "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    found, bundled = Calibration.load(out), Calibration.load()
    assert len(found.scores) == FEWEST
    assert torch.equal(found.weights, bundled.weights)
    assert not torch.equal(found.missed[0], bundled.missed[0])
    few = CliRunner().invoke(app, ["audit", "calibrate", str(tmp_path / "0.png"), "-o", str(tmp_path / "no"), "-q"])
    assert few.exit_code != 0
    assert f"needs at least {FEWEST}" in few.output
    write(Picture(pixels=pixels[:, :96, :96].contiguous()), tmp_path / "small.png")
    small = CliRunner().invoke(app, ["audit", "calibrate", str(tmp_path), "-o", str(tmp_path / "no"), "-q"])
    assert small.exit_code != 0
    assert "smaller than 128 pixels a side" in small.output

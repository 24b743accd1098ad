"""Named runs: checked when made, frozen with their folder, complete."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from supir.errors import OptionError
from supir.training.recipes import (
    CONFIGURATION,
    RUNS,
    STAGES,
    StageOptions,
    freeze,
    named_run,
    shares,
    stored_options,
)


@pytest.mark.parametrize("name", RUNS)
def test_every_named_run_is_valid(name: str) -> None:
    options = named_run(name)
    assert options.stage == name.split("/")[1]
    assert dataclasses.asdict(options)


def test_the_runs_of_the_issue_exist() -> None:
    expected = {f"{size}/{stage}" for size in ("small", "smoke") for stage in STAGES}
    expected |= {"paper/encoder", "paper/adaptor", "paper/lora", "mid/adaptor", "paper/generator", "mid/generator"}
    assert expected == set(RUNS)


def test_the_paper_s_setting() -> None:
    paper = named_run("paper/adaptor")
    assert (paper.crop, paper.learning_rate, paper.optimiser, paper.degradation) == (512, 1e-5, "adamw", "default=1")
    assert paper.batch * 64 == 256


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("batch", 0, "batch is 0; it must be a whole number from 1 to 4096"),
        ("batch", 1.5, "batch is 1.5; it must be a whole number"),
        ("learning_rate", float("nan"), "learning_rate is nan"),
        ("schedule", "linear", "schedule is 'linear'; it must be one of constant, cosine"),
        ("crop", 100, "crop is 100; it must be a multiple of 32"),
        ("gradient_checkpointing", 1, "gradient_checkpointing is 1; it must be true or false"),
        ("degradation", "rain", "degradation is 'rain'"),
        ("degradation", "rain=1", "degradation names 'rain'"),
        ("frozen_dtype", "bfloat16", "it needs mixed_precision"),
        ("size", "paper", "stage is 'prior' at size 'paper'"),
        ("trunk", "half", "trunk is 'half' in stage 'prior'; it is for the stage adaptor"),
        ("frozen_prior", True, "frozen_prior is True in stage 'prior'; it is for the stage generator"),
        ("start_sigma", 0.5, "start_sigma is 0.5 in stage 'prior'; it is for the stage generator"),
        ("velocity", 1, "'velocity' is not an option of a training run"),
    ],
)
def test_a_wrong_value_is_named(field: str, value: object, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        named_run("small/prior", **{field: value})


def test_an_unknown_run_lists_the_known() -> None:
    with pytest.raises(OptionError, match="small/adaptor"):
        named_run("large/adaptor")


def test_text_of_the_command_line_becomes_values() -> None:
    assert StageOptions.parse({"steps": "12"}) == {"steps": 12}
    assert StageOptions.parse({"learning_rate": "1e-4"}) == {"learning_rate": 1e-4}
    assert StageOptions.parse({"copy_start": "true"}) == {"copy_start": True}
    with pytest.raises(OptionError, match="steps is 'many'; it must be a whole number"):
        StageOptions.parse({"steps": "many"})


def test_shares_add_up_to_one() -> None:
    assert shares("light=3, default=1") == {"light": 0.75, "default": 0.25}


def test_a_folder_keeps_its_configuration(tmp_path: Path) -> None:
    options = named_run("smoke/prior")
    freeze(tmp_path, options, {"data": "photos"})
    assert json.loads((tmp_path / CONFIGURATION).read_text())["stage"] == "prior"
    freeze(tmp_path, options.replace(workers=2), {"data": "photos"})  # does not decide the weights
    with pytest.raises(OptionError, match=r"batch \(then 2, now 3\), seed \(then 0, now 1\)"):
        freeze(tmp_path, options.replace(batch=3, seed=1), {"data": "photos"})
    with pytest.raises(OptionError, match="data"):
        freeze(tmp_path, options, {"data": "other"})
    stored = json.loads((tmp_path / CONFIGURATION).read_text())
    del stored["trunk"]  # as of a version that knew no such option
    (tmp_path / CONFIGURATION).write_text(json.dumps(stored))
    freeze(tmp_path, options, {"data": "photos"})


def test_a_run_goes_on_with_other_processes_of_as_many_samples(tmp_path: Path) -> None:
    options = named_run("smoke/adaptor", batch=4, accumulation=2)
    freeze(tmp_path, options, {"processes": 1})
    freeze(tmp_path, options.replace(accumulation=1), {"processes": 2})
    freeze(tmp_path, options.replace(batch=1, accumulation=1, keep_best="-loss"), {"processes": 8})
    with pytest.raises(OptionError, match=r"processes \(then 1, now 2\)"):
        freeze(tmp_path, options, {"processes": 2})
    stored, other = stored_options(tmp_path)
    assert stored == options
    assert other == {"processes": 1}
    with pytest.raises(OptionError, match="holds no run"):
        stored_options(tmp_path / "elsewhere")


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        StageOptions().steps = 3  # type: ignore[misc]

"""The command from the outside: real files, the real classes at tiny size, exit codes, what is written."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import supir
from supir import image
from supir.cli.main import COMMANDS, app, load_command
from supir.options import PRESETS, CaptionOptions, NetworkOptions, RestoreOptions, SigningOptions
from supir.options.audit import AuditOptions
from tiny import save_tiny_model

QUICK = ("--steps", "2", "--min-size", "64", "--scale", "2", "--device", "cpu")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two small pictures."""
    random = np.random.default_rng(0)
    for name, width in (("one.jpg", 48), ("two.png", 36)):
        Image.fromarray(random.integers(0, 255, (32, width, 3), dtype=np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def restore(model: Path, *arguments: object) -> Result:
    return run("restore", "--model", model, *QUICK, *arguments)


HEAVY = {"torch", "numpy", "diffusers", "transformers", "pyvips", "PIL"}


def imported_by(*arguments: str, code: int = 0) -> set[str]:
    """The modules that a command has imported when it ends, with this exit code."""
    script = "import sys, atexit; atexit.register(lambda: print('modules:', *sys.modules))"
    script += "; from supir.cli.main import app; app(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return set(done.stdout.split("modules:")[1].split())


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_help_imports_nothing_heavy() -> None:
    assert HEAVY.isdisjoint(imported_by("restore", "-h"))
    assert not {name for name in imported_by("-h") if name.startswith(("supir.jobs", "supir.service", "supir.cli.r"))}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "wrong",
    [
        (2, "one.jpg", "--steps", "0"),
        (2, "one.jpg", "--preset", "best"),
        (2, "one.jpg", "--tile", "64", "--tile-overlap", "40"),
        (2, "one.jpg", "--captioner", "nowhere"),
        (2, "one.jpg", "-o", "one.gif"),
        (2, "one.jpg", "-o", "one.jpg"),
        (1, "one.jpg", "--model", "."),
        (1, "nowhere.jpg"),
        (2, "one.jpg", "two.png", "-o", "both.png"),
        (2, "one.jpg", "--memory", "10MB"),
    ],
)
def test_what_is_wrong_is_told_before_anything_heavy_is_imported(wrong: tuple[Any, ...]) -> None:
    code, *arguments = wrong
    assert HEAVY.isdisjoint(imported_by("restore", *arguments, code=code))


@pytest.mark.parametrize("wrong", [("one.jpg", "-o", "two.png"), ("text.jpg",), ("cut.tif",)])
def test_what_is_wrong_with_files_is_told_before_torch_is_imported(folder: Path, wrong: tuple[str, ...]) -> None:
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.tif").write_bytes(b"II*\0\x08\0")
    assert {"torch", "diffusers", "transformers"}.isdisjoint(imported_by("restore", *wrong, code=1))


@pytest.mark.usefixtures("folder")
def test_a_plan_with_the_bundled_model_waits_for_no_library_of_networks() -> None:
    assert {"diffusers", "transformers", "accelerate"}.isdisjoint(imported_by("plan", "one.jpg", "--rate", "30"))


def test_sentences_before_the_work(folder: Path, model: Path) -> None:
    before = files(folder)
    for words, code, sentence in (
        (("one.jpg", "two.png", "-o", "both.png"), 2, "--output both.png is one file, and there are 2 photos"),
        (("one.jpg", "--memory", "10MB"), 2, "memory is '10MB'; it must be a number from 0.1 to 100000"),
        (("one.jpg", "--device", "cuda"), 2, "device is 'cuda'"),
        (("one.jpg", "two.png", "--captioner", "beside"), 2, "no text lies beside one.jpg or any other of 2 photos"),
        (("one.jpg", "-o", "two.png"), 1, "two.png exists; pass --overwrite to replace it"),
    ):
        result = restore(model, *words)
        shown = " ".join(result.stderr.replace("│", " ").split())
        assert (result.exit_code, sentence in shown) == (code, True), shown
    assert files(folder) == before


def test_memory_may_be_said_with_a_unit() -> None:
    field = RestoreOptions.fields()["memory"]
    said = {"6": 6.0, "6GB": 6.0, "800 MB": 0.8, "0.5tb": 500.0, "2GiB": 2.147483648}
    assert {text: field.parse(text) for text in said} == pytest.approx(said)


def test_help_answers_within_half_a_second_of_work() -> None:
    command = "import time; from supir.cli.main import app; app(['-h'], standalone_mode=False)"
    command += "; print('took', time.process_time())"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) < 0.5


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_each_command_what_its_own_help_says(name: str) -> None:
    first, _, _ = inspect.cleandoc(load_command(name).help).partition("\n\n")
    assert " ".join(first.split()) == COMMANDS[name]
    assert name in run("-h").stdout


@pytest.mark.usefixtures("folder")
def test_restores_files_beside_them(model: Path, folder: Path) -> None:
    result = restore(model, "one.jpg", "two.png")
    assert result.exit_code == 0, result.output
    assert files(folder) == {"one.jpg", "two.png", "one.restored.jpg", "two.restored.png"}
    assert image.read("one.restored.jpg").pixels.shape == (3, 64, 96)
    assert "2 restored, 0 failed" in result.stderr
    assert " x 64, about " in result.stderr


def test_a_second_run_over_a_folder_does_not_restore_results(model: Path, folder: Path) -> None:
    assert restore(model, folder, "--compare").exit_code == 0
    before = files(folder)
    assert restore(model, folder, "--compare", "--overwrite").exit_code == 0
    assert files(folder) == before


def test_output_file_compare_and_record(model: Path, folder: Path) -> None:
    result = restore(model, "one.jpg", "-o", "new/place.png", "--compare", "--seed", 5, "--prompt", "a red door")
    assert result.exit_code == 0, result.output
    assert files(folder / "new") == {"place.png", "place.compare.png"}
    assert image.read("new/place.compare.png").width > 2 * 96
    record = json.dumps(image.read_record("new/place.png"))
    assert "a red door" in record
    assert supir.__version__ in record


def test_the_options_reach_the_pipeline(model: Path, folder: Path) -> None:
    def pixels(*arguments: object) -> np.ndarray:
        result = restore(model, "two.png", "-o", "out.png", "--overwrite", *arguments)
        assert result.exit_code == 0, result.output
        return image.read("out.png").pixels.numpy()

    first = pixels("--seed", 1)
    assert np.array_equal(first, pixels("--seed", 1))
    assert not np.array_equal(first, pixels("--seed", 2))
    assert not np.array_equal(first, pixels("--seed", 1, "--color-fix", "none"))
    assert pixels("--scale", 3).shape == (3, 96, 108)


def test_one_bad_picture_does_not_stop_the_others(model: Path, folder: Path) -> None:
    (folder / "bad.jpg").write_bytes((folder / "one.jpg").read_bytes()[:300])
    (folder / "empty").mkdir()
    result = restore(model, "bad.jpg", "missing.png", "empty", "two.png", "-o", "out", "--json")
    assert result.exit_code == 1
    assert files(folder / "out") == {"two.png"}
    for name in ("bad.jpg", "missing.png", "empty"):
        assert name in result.stderr
    summary = json.loads(result.stdout)
    assert [done["output"] for done in summary["restored"]] == ["out/two.png"]
    assert {bad["input"] for bad in summary["failed"]} == {"bad.jpg", "missing.png", "empty"}


def test_existing_results_are_kept_unless_overwrite(model: Path, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "one.jpg").write_text("precious")
    result = restore(model, "one.jpg", "two.png", "-o", "out")
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr
    assert (folder / "out" / "one.jpg").read_text() == "precious"
    assert (folder / "out" / "two.png").exists()
    assert restore(model, "one.jpg", "-o", "out", "--overwrite").exit_code == 0
    assert image.read("out/one.jpg").width == 96


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("one.jpg", "-o", "one.jpg", "--overwrite"), "never overwritten"),
        (("one.jpg", "-o", ".", "--overwrite"), "never overwritten"),
        (("one.jpg", "sub/one.jpg", "-o", "out"), "both"),
        (("one.jpg", "-o", "one.gif"), ".gif"),
        (("one.jpg", "--preset", "best"), "quality"),
        (("one.jpg", "--tile", "64", "--tile-overlap", "40"), "half a tile"),
        (("one.jpg", "--seed", "x"), "whole number"),
        (("one.jpg", "--model", "nowhere"), "nowhere"),
    ],
)
def test_wrong_usage_exits_2_and_writes_nothing(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "one.jpg").write_bytes((folder / "one.jpg").read_bytes())
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    result = run("restore", *arguments)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before


def test_a_damaged_model_is_a_sentence(folder: Path) -> None:
    (folder / "broken").mkdir()
    result = run("restore", "one.jpg", "--model", "broken")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "broken" in result.stderr


@pytest.mark.filterwarnings("default")
def test_a_warning_is_a_sentence(model: Path, folder: Path) -> None:
    Image.new("RGBA", (32, 32), (10, 200, 30, 90)).save("clear.png")
    result = restore(model, "clear.png", "-o", "clear.jpg")
    assert result.exit_code == 0, result.output
    [line] = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert "transparency" in line


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_libraries_have_no_word_in_it(model: Path) -> None:
    """In a process of its own: what they complain of while they are imported they say once."""
    command = [sys.executable, "-m", "supir.cli", "restore", "one.jpg", "--model", str(model), *map(str, QUICK)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, *others = done.stderr.splitlines()
    assert first.startswith("48 x 32 to ")
    assert others[0].startswith("[1/1] one.jpg -> one.restored.jpg")
    assert others[1].startswith("1 restored, 0 failed")
    assert len(others) == 2, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_interrupted_leaves_whole_files_only(model: Path, folder: Path) -> None:
    quick = ("--steps", "100", "--min-size", "64", "--device", "cpu", "--model", str(model), "-o", "out")
    command = [sys.executable, "-m", "supir.cli", "restore", "one.jpg", "two.png", *quick]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("[1/2]"):
                process.send_signal(signal.SIGINT)
                break
        said = process.stderr.read()
        code = process.wait(timeout=60)
    assert code == 130, said
    assert "1 restored" in said
    assert files(folder / "out") == {"one.jpg"}
    assert image.read("out/one.jpg").width == 96


def test_presets_lists_every_option_and_preset() -> None:
    result = run("presets")
    assert result.exit_code == 0
    for word in (*PRESETS, "--steps", "--restoration-guidance"):
        assert word in result.stdout


def test_presets_are_those_of_the_model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    own = {"all": {"num_steps": 1, "s_churn": 0.0, "text_guidance": 1.0, "restoration_guidance": None, "min_size": 77}}
    result = run("presets", "--model", save_tiny_model(tmp_path_factory.mktemp("own") / "mine", presets=own))
    assert "presets of mine" in result.stdout
    assert "77" in result.stdout
    assert "fidelity: the same as quality with this model" in result.stdout
    assert "most detail" not in result.stdout
    bundled = run("presets").stdout
    assert "presets of the bundled model" in bundled


def test_an_option_without_effect_is_told_once(model: Path, folder: Path) -> None:
    result = restore(model, "one.jpg", "two.png", "--eta", "0.5", "--text-guidance", "1", "--negative-prompt", "blur")
    assert result.exit_code == 0
    assert result.stderr.count("has no effect") == 2
    assert result.stderr.count("warning: eta 0.5 has no effect: solver edm_euler does not hear it") == 1
    assert "has no effect" not in restore(model, "one.jpg", "--overwrite").stderr


def test_version() -> None:
    assert run("--version").stdout == f"supir {supir.__version__}\n"
    assert "diffusers" in run("version").stdout


def test_convert_names_the_file_that_is_missing(folder: Path) -> None:
    result = run("convert", "nowhere.safetensors", "-o", "model")
    assert result.exit_code == 1
    assert "nowhere.safetensors" in result.stderr
    assert not (folder / "model").exists()


def test_every_field_of_the_options_is_an_option_without_a_default_of_its_own() -> None:
    parameters = {parameter.name: parameter for parameter in load_command("restore").params}
    own = {"photos", "output", "preset", "model", "device", "compare", "audit", "overwrite", "quiet", "as_json", "help"}
    fields = RestoreOptions.fields()
    others = {
        *CaptionOptions.fields(), *NetworkOptions.fields(), *SigningOptions.fields(), *AuditOptions.fields()
    }  # fmt: skip
    assert set(parameters) - own == set(fields) | others
    for name, spec in fields.items():
        assert parameters[name].default is None
        assert parameters[name].help.startswith(spec.doc.partition("; several")[0])


@pytest.mark.parametrize("name", [name for name, spec in RestoreOptions.fields().items() if spec.is_number])
def test_ranges_are_those_of_the_options(name: str, folder: Path) -> None:
    spec = RestoreOptions.fields()[name]
    flag = {"num_steps": "--steps"}.get(name, "--" + name.replace("_", "-"))
    for value in (spec.low - 1, spec.high * 2):
        result = run("restore", "one.jpg", f"{flag}={value}")
        assert result.exit_code == 2, f"{flag} {value}"
        assert name in result.stderr


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_told_otherwise_in_the_library_too(given: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    command = [sys.executable, "-c", "import os, supir; print(os.environ['OMP_WAIT_POLICY'])"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == expected

"""`supir batch` from the outside: files, exit codes, what is said."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

from jobs.pictures import BAD, FLAGS, NAMES, Finished, album, command, failures, options, results, save, times_done
from supir import image
from supir.cli.main import app, load_command
from supir.cli.progress import Display
from supir.jobs import Job
from supir.options import CaptionOptions, NetworkOptions, RestoreOptions, SigningOptions
from supir.options.audit import AuditOptions
from supir.restoration.work import Reached


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def batch(folder: Path, *arguments: object) -> Result:
    return invoke("batch", "--model", folder, *FLAGS, *arguments)


def test_good_and_bad_pictures_in_nested_folders(folder: Path, finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = batch(folder, finished.folder, "-o", out)
    assert result.exit_code == 1, result.output
    assert results(out) == finished.results
    assert set(results(out)) == set(NAMES)
    assert f"{len(NAMES)} restored, 0 skipped, {len(BAD)} failed" in result.stderr
    assert str(out / "report.json") in result.stderr
    reasons = {"cut.jpg": "damaged", "empty.png": "an empty file", "huge.png": "megapixels", "text.png": "a text file"}
    for name, reason in reasons.items():
        assert reason in failures(out)[name]
        assert name in result.stderr
    again = batch(folder, finished.folder, "-o", out, "--json")
    report = json.loads(again.stdout)
    assert (report["done"], report["skipped"], report["failed"]) == (0, len(NAMES), len(BAD))
    assert times_done(out) == dict.fromkeys(NAMES, 1)


def test_variants_are_what_restore_makes(folder: Path, tmp_path: Path) -> None:
    source, out = save(tmp_path / "in" / "x.png"), tmp_path / "out"
    two = batch(folder, tmp_path / "in", "-o", out, "--variants", 2, "--seed", 1)
    assert two.exit_code == 0
    assert "48 x 32 to 48 x 32; 48 x 32 to 48 x 32, about" in two.stderr
    assert set(results(out)) == {"x.s1.png", "x.s2.png"}
    for seed in (1, 2):
        alone = tmp_path / f"{seed}.png"
        assert invoke("restore", "--model", folder, *FLAGS, source, "-o", alone, "--seed", seed).exit_code == 0
        assert alone.read_bytes() == (out / f"x.s{seed}.png").read_bytes()
        assert image.read_record(alone) == image.read_record(out / f"x.s{seed}.png")
    more = batch(folder, tmp_path / "in", "-o", out, "--variants", 3, "--seed", 1)
    assert "1 restored, 2 skipped, 0 failed" in more.stderr
    assert more.stderr.count("48 x 32 to") == 1, "nothing is foretold of what is there"


def test_a_manifest_over_the_options_of_the_command(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a" / "x.png")
    save(tmp_path / "in" / "y.png", 1)
    lines = [{"path": "a/x.png", "scale": 2}, {"path": "y.png", "output": "z.png", "seed": 4}, {"path": "none.png"}]
    manifest = tmp_path / "in" / "list.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    result = batch(folder, "--manifest", manifest, "-o", tmp_path / "out", "--seed", 3)
    assert result.exit_code == 1, result.output
    assert set(results(tmp_path / "out")) == {"a/x.png", "z.png"}
    assert image.read_size(tmp_path / "out" / "a" / "x.png") == (96, 64)
    records = [image.read_record(tmp_path / "out" / name) for name in ("a/x.png", "z.png")]
    assert [record["seed"] for record in records] == ["3", "4"]
    assert list(failures(tmp_path / "out")) == ["none.png"]


def test_wrong_usage_exits_2_and_starts_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/1.png", "in/a/1.png"):
        save(Path(name))
    Path("list.csv").write_text("path,num_steps\nin/1.png,0\n")
    Path("full").mkdir()
    Path("full/1.png").write_text("precious")
    for arguments, said in (
        (("-o", "out"), "either INPUT or --manifest"),
        (("in", "--manifest", "list.csv", "-o", "out"), "either INPUT or --manifest"),
        (("--manifest", "list.csv", "-o", "out"), "line 2: num_steps is 0"),
        (("in/1.png", "in/a", "-o", "out"), "both be written"),
        (("in", "-o", "in"), "overwritten"),
        (("in", "-o", "full"), "no batch made"),
        (("in", "-o", "out", "--runner", "threads"), "serial, processes, ray"),
        (("in", "-o", "out", "--runner", "serial", "--workers", "2"), "one worker"),
        (("in", "-o", "out", "--runner", "serial", "--ray-address", "auto"), "--runner ray"),
        (("in", "-o", "out", "--preset", "best"), "quality"),
    ):
        result = batch(folder, *arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert said in " ".join(result.stderr.replace("│", " ").split())
    assert not Path("out").exists()
    assert Path("full/1.png").read_text() == "precious"


def test_an_input_that_is_not_there_is_a_failure_among_others(folder: Path, tmp_path: Path) -> None:
    source = save(tmp_path / "in" / "1.png")
    result = batch(folder, source, tmp_path / "nowhere", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "1 restored, 0 skipped, 1 failed" in result.stderr
    assert list(failures(tmp_path / "out")) == ["nowhere"]


@pytest.mark.filterwarnings("default")
def test_a_warning_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGBA", (48, 32), (10, 200, 30, 90)).save(tmp_path / "in" / "clear.png")
    (tmp_path / "list.csv").write_text("path,output\nin/clear.png,clear.jpg\n")
    result = batch(folder, "--manifest", tmp_path / "list.csv", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    [line] = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert "transparency" in line


def test_any_name_is_kept_and_shown_in_one_line(folder: Path, tmp_path: Path) -> None:
    names = ["😀" * 60 + ".png", "two\nlines.png", "\x1b[31mred.png", "[red]bold[/].png", os.fsdecode(b"latin\xe9.png")]
    for name in names:
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "bad\nname.png").write_text("no picture")
    for name in ("a.JXL", "b.jxl", "c.gif", "notes.txt", ".d.gif"):
        (tmp_path / "in" / name).touch()
    result = batch(folder, tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 1, result.output
    assert set(results(tmp_path / "out")) == set(names)
    assert "\x1b[31m" not in result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == len(names) + 4, lines  # what was left out, what is foretold, the error, the sum
    assert len([line for line in lines if line.startswith("error: ") and "bad\\nname.png: a text file" in line]) == 1
    assert "left out, as supir does not read them: 1 .gif, 2 .jxl" in result.stderr


def test_a_name_on_the_bar_is_no_markup(tmp_path: Path) -> None:
    job = Job(source=tmp_path / "[/].png", target=tmp_path / "out.png", options=options())
    console = Console(force_terminal=True, file=io.StringIO())
    with Display(console, [job]) as display:
        display.work(job, Reached(0.5))


@pytest.mark.slow
def test_interrupted_ends_quickly_and_resumes(folder: Path, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(12)]
    source, out = album(tmp_path / "in", names), tmp_path / "out"
    process = command(source, "-o", out, "--model", folder, "--runner", "processes")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[2/"):
            process.send_signal(signal.SIGINT)
            break
    said = process.stderr.read()
    assert process.wait(timeout=60) == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
    done = len(times_done(out))
    assert 2 <= done < 12
    assert not [name for name in results(out) if name.endswith(".tmp")]
    result = batch(folder, source, "-o", out)
    assert f"{12 - done} restored, {done} skipped, {len(BAD)} failed" in result.stderr


def test_every_field_of_the_options_is_an_option_without_a_default_of_its_own() -> None:
    parameters = {parameter.name: parameter for parameter in load_command("batch").params}
    own = {"inputs", "output", "manifest", "variants", "runner", "workers", "ray_address", "preset", "model", "device",
           "quiet", "as_json", "audit", "help"}  # fmt: skip
    kinds = (RestoreOptions, CaptionOptions, NetworkOptions, SigningOptions, AuditOptions)
    fields = {name for kind in kinds for name in kind.fields()}
    assert set(parameters) - own == fields
    assert all(parameters[name].default is None for name in fields)

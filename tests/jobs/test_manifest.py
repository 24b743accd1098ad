"""Manifests: what good lines ask for, and how bad ones are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supir.errors import OptionError
from supir.jobs.manifest import read_manifest
from supir.jobs.plan import BatchItem, plan_batch
from supir.options import RestoreOptions, restore_options

DEFAULTS = {"preset": "fidelity", "scale": 3.0}


def read(folder: Path, name: str, text: str) -> list[BatchItem]:
    (folder / name).write_bytes(text.encode())
    return read_manifest(folder / name, restore_options, DEFAULTS)


def same(options: RestoreOptions, preset: str = "fidelity", **overrides: object) -> bool:
    return options == restore_options(preset, **({"scale": 3.0} | overrides))


def test_csv(tmp_path: Path) -> None:
    text = (
        "\ufeffpath,output,preset,prompt,num_steps,reference_quirks,restoration_guidance\r\n"
        'a/1.jpg,,,"a red, ""old"" door",,,off\r\n'
        "\r\n"
        "b/2.gif,two.png,fast,,8,TRUE,2.5\r\n"
        "c.gif\r\n"
    )
    first, second, third = read(tmp_path, "list.csv", text)
    assert (first.source, str(first.place)) == (tmp_path / "a" / "1.jpg", "a/1.jpg")
    assert same(first.options, prompt='a red, "old" door', restoration_guidance="off")
    assert str(second.place) == "two.png"
    assert same(second.options, "fast", num_steps=8, reference_quirks=True, restoration_guidance=2.5)
    assert same(third.options)
    jobs = plan_batch([first, second, third], tmp_path / "out")
    assert [job.target.relative_to(tmp_path / "out").as_posix() for job in jobs] == ["a/1.jpg", "two.png", "c.png"]


def test_json_lines(tmp_path: Path) -> None:
    lines = [{"path": "a/1.jpg", "seed": 7, "prompt": None}, {"path": "1.png", "output": "x/y.tif", "preset": "fast"}]
    first, second = read(tmp_path, "list.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert same(first.options, seed=7)
    assert same(second.options, "fast")
    assert second.place.as_posix() == "x/y.tif"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"prompt": "x"}, "path is not given"),
        ({"path": "a.jpg", "sharpness": 1}, "'sharpness' is not a field"),
        ({"path": "a.jpg", "num_steps": 0}, "num_steps is 0; it must be a whole number from 1 to 1000"),
        ({"path": "a.jpg", "num_steps": "8"}, "num_steps is '8'; it must be a whole number"),
        ({"path": "a.jpg", "num_steps": 10**400}, "num_steps"),
        ({"path": "a.jpg", "scale": float("nan")}, "it must be a number"),
        ({"path": "a.jpg", "preset": "best"}, "preset is 'best'"),
        ({"path": "a.jpg", "preset": ["fast"]}, "preset is ['fast']"),
        ({"path": "a.jpg", "solver": ["x"]}, "solver is ['x']"),
        ({"path": "../a.jpg"}, "path '../a.jpg' leads out"),
        ({"path": "/etc/a.jpg"}, "path '/etc/a.jpg' leads out"),
        ({"path": "b/../../a.jpg"}, "leads out"),
        ({"path": ""}, "must name a file"),
        ({"path": "a\0.jpg"}, "must name a file"),
        ({"path": 3}, "must name a file"),
        ({"path": "a.jpg", "output": "../a.jpg"}, "output '../a.jpg' leads out"),
        ({"path": "a.jpg", "output": "/tmp/a.jpg"}, "output '/tmp/a.jpg' leads out"),
        ({"path": "a.jpg", "output": "a.gif"}, "output 'a.gif': cannot be written"),
        (["a.jpg"], "not a JSON object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, said: str) -> None:
    text = json.dumps({"path": "good.jpg"}) + "\n\n" + json.dumps(line) + "\n"
    with pytest.raises(OptionError, match="nothing was started") as caught:
        read(tmp_path, "list.jsonl", text)
    [wrong] = str(caught.value).splitlines()[1:]
    assert wrong.startswith("line 3: ")
    assert said in wrong


def test_all_wrong_lines_are_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        read(tmp_path, "list.csv", "path,num_steps\na.jpg,x\nb.jpg,8\nc.jpg,2.5\nd.jpg,1,2\n")
    assert str(caught.value).splitlines()[1:] == [
        "line 2: num_steps is 'x'; it must be a whole number from 1 to 1000",
        "line 4: num_steps is '2.5'; it must be a whole number from 1 to 1000",
        "line 5: more cells than the header has",
    ]
    with pytest.raises(OptionError, match="and 80 more"):
        read(tmp_path, "list.jsonl", "{\n" * 100)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("list.csv", "name,seed\na.jpg,1\n", "line 1: 'name' is not a field"),
        ("list.csv", "seed\n1\n", "line 1: path is not given"),
        ("list.csv", "path,seed,seed\na.jpg,1,2\n", "line 1: seed stands there twice"),
        ("list.csv", 'path\n"a.jpg" x\n', "line 2"),
        ("list.csv", "path\n", "names no picture"),
        ("list.csv", "", "path is not given"),
        ("list.jsonl", "", "names no picture"),
        ("list.txt", "a.jpg", "'.txt'; a manifest is one of .csv, .jsonl"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        read(tmp_path, name, text)
    assert said in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"path\n\xff\xfe.jpg\n")
    with pytest.raises(OptionError, match="not in UTF-8"):
        read_manifest(tmp_path / "list.csv", restore_options)
    with pytest.raises(OptionError, match="cannot be read"):
        read_manifest(tmp_path / "none.csv", restore_options)

"""Captions through the commands: `restore`, `batch` and `caption`, with a real LLaVA and a real server."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from caption.chat_server import Answer, ChatServer, completion
from jobs.pictures import FLAGS, command, log_lines, results, save, times_done
from supir import image
from supir.caption import clean_caption
from supir.caption.endpoint import KEY_VARIABLE, EndpointCaptioner
from supir.caption.model import _LOADED
from supir.caption.spec import readable
from supir.cli.main import app, load_command
from supir.jobs.model import Model
from supir.options import CaptionOptions
from supir.prompts import POSITIVE_PROMPT
from supir.weights import catalog

SIZE = ("--min-size", "64", "--scale", "1", "--device", "cpu")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def endpoint(server: ChatServer) -> tuple[str, ...]:
    return "--captioner", server.url, "--caption-model", "seer"


def report(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.slow
def test_a_llava_reads_the_preview_and_leaves_before_the_restoring(
    folder: Path, llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    open_all = Model.open
    monkeypatch.setattr(Model, "open", lambda self, place=0: held.append(len(_LOADED)) or open_all(self, place))
    source, out = save(tmp_path / "photo.png"), tmp_path / "out.png"
    line = ("restore", "--model", folder, *FLAGS, source, "-o", out, "--json", "--captioner", llava)
    [done] = report(run(*line))["restored"]
    record = image.read_record(out)
    assert held == [0], "no captioner is in memory when the weights are opened"
    assert len(done["caption"].split()) > 20
    assert record["caption"] == done["caption"]
    assert record["captioner"].startswith("llava, 77 tokens, prompt 'Describe")
    assert record["words_from"] == done["words_from"] == "captioner"
    assert record["prompt"] == done["prompt"] == f"{done['caption']} {POSITIVE_PROMPT}"
    assert "oil painting" in record["negative_prompt"]
    typed = tmp_path / "typed.png"
    assert run("restore", "--model", folder, *FLAGS, source, "-o", typed, "--prompt", done["caption"]).exit_code == 0
    assert image.read_record(typed)["words_from"] == "typed"
    assert (image.read(typed).pixels == image.read(out).pixels).all(), "the same words, the same picture"


@pytest.mark.slow
def test_the_preview_is_what_is_sent(folder: Path, server: ChatServer, tmp_path: Path) -> None:
    source = save(tmp_path / "photo.png", width=64, height=64)
    assert run("restore", "--model", folder, *FLAGS, "--scale", 2, source, *endpoint(server)).exit_code == 0
    model = Model(folder=folder, devices=("cpu",))
    preview = model.open().preview(source, model.options(scale=2.0, min_size=64))
    asked = EndpointCaptioner(url=server.url, model="seer")
    sent = server.asked[0]["messages"]
    assert sent == asked._request(readable(preview))["messages"]
    assert sent != asked._request(readable(image.read(source)))["messages"], "not the damaged photo"


@pytest.mark.slow
def test_the_weights_are_hashed_once(
    folder: Path, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    hash_of = catalog.file_hash
    monkeypatch.setattr(catalog, "file_hash", lambda path: hashed.append(path) or hash_of(path))
    source, out = save(tmp_path / "photo.png"), tmp_path / "out.png"
    assert run("restore", "--model", folder, *FLAGS, source, "-o", out, *endpoint(server)).exit_code == 0
    weights = [path for path in hashed if path.is_relative_to(folder)]
    assert len(weights) == len(set(weights)) > 5
    assert image.read_record(out)["model_sha256"] == catalog.folder_hash(folder)


@pytest.mark.slow
def test_the_same_photo_is_asked_about_once(folder: Path, server: ChatServer, cache: Path, tmp_path: Path) -> None:
    source = save(tmp_path / "photo.png")
    line = ("restore", "--model", folder, *FLAGS, source, "-o", tmp_path / "out.png", "--overwrite", "--json")
    first = report(run(*line, *endpoint(server)))["restored"][0]["caption"]
    assert len(server.asked) == 1
    again = report(run(*line, *endpoint(server), "--seed", 9, "--preset", "fidelity"))
    assert again["restored"][0]["caption"] == first
    assert len(server.asked) == 1
    [entry] = cache.iterdir()
    whole = entry.read_bytes()
    for damaged in (b"", b"{", b"[" * 90_000, b"[]", whole.replace(b"A photo", b"A fake").replace(b"seer", b"other")):
        entry.write_bytes(damaged)
        assert report(run(*line, *endpoint(server)))["restored"][0]["caption"] == first
        assert entry.read_bytes() == whole, "a corrupt entry is written anew"
    assert len(server.asked) == 6
    report(run(*line, *endpoint(server), "--no-caption-cache"))
    report(run(*line, *endpoint(server), "--scale", "2"))
    report(run(*line, "--captioner", server.url, "--caption-model", "other"))
    save(source, 5)
    report(run(*line, *endpoint(server)))
    assert len(server.asked) == 10
    assert report(run(*line, *endpoint(server), "--prompt", "typed"))["restored"][0]["words_from"] == "typed"
    refused = run(*[word for word in line if word != "--overwrite"], *endpoint(server), "--seed", 3, "--scale", 3)
    assert refused.exit_code == 1
    assert len(server.asked) == 10, "nobody is asked about what is typed or refused"


@pytest.mark.filterwarnings("default")
def test_a_cache_that_cannot_be_written_is_a_warning(
    folder: Path, server: ChatServer, cache: Path, tmp_path: Path
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    result = run("caption", save(tmp_path / "photo.png"), "--model", folder, *SIZE, *endpoint(server))
    assert result.exit_code == 0
    assert "A photo numbered" in result.stdout
    assert "warning" in result.stderr
    assert "captions cannot be kept" in result.stderr


def test_captions_are_printed_edited_and_given_back(folder: Path, server: ChatServer, tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / "in" / "a" / f"{number}.png", number)
    server.script = [Answer(body=completion('=A "red", door\n'))]
    manifest = tmp_path / "in" / "list.csv"
    line = ("caption", tmp_path / "in" / "a", "--model", folder, *SIZE, *endpoint(server), "--manifest", manifest)
    result = run(*line)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first.endswith('0.png: A "red", door')
    rows = list(csv.DictReader(manifest.open(newline="")))
    assert [row["path"] for row in rows] == ["a/0.png", "a/1.png"]
    assert rows[0]["prompt"] == rows[0]["caption"] == 'A "red", door'
    assert second.endswith(rows[1]["prompt"])
    refused = run(*line)
    assert refused.exit_code == 2, "an edited list is not lost"
    manifest.write_text(manifest.read_text().replace('"A ""red"", door"', "A green door", 1))
    out = tmp_path / "out"
    batch = run("batch", "--model", folder, *FLAGS, "--manifest", manifest, "-o", out)
    assert batch.exit_code == 0, batch.output
    edited, kept = (image.read_record(out / "a" / f"{number}.png") for number in range(2))
    assert (edited["words_from"], edited["caption"]) == ("edited", 'A "red", door')
    assert edited["prompt"] == f"A green door {POSITIVE_PROMPT}"
    assert (kept["words_from"], kept["prompt"]) == ("captioner", f"{rows[1]['prompt']} {POSITIVE_PROMPT}")
    assert len(server.asked) == 2
    (tmp_path / "in" / "a" / "bad.png").write_text("no picture")
    assert log_lines(out)[0]["words"]["words_from"] == "edited"
    as_json = run(*line, "--json", "--overwrite", "-q", "--manifest", manifest.with_suffix(".jsonl"))
    assert as_json.exit_code == 1
    good, other, bad = map(json.loads, as_json.stdout.splitlines())
    assert good["captioner"] == other["captioner"] == rows[0]["captioner"]
    assert "text file" in bad["error"]
    lines = [json.loads(text) for text in manifest.with_suffix(".jsonl").read_text().splitlines()]
    assert lines[1] == rows[1]
    assert lines[2] == {"path": "a/bad.png", "prompt": "", "caption": "", "captioner": ""}, "it is not lost"
    assert run(*line, "--overwrite", "--manifest", tmp_path / "in" / "b" / "list.csv").exit_code == 2


@pytest.mark.slow
def test_what_lies_beside_means_what_it_means_in_a_data_set(folder: Path, tmp_path: Path) -> None:
    for name in ("plain", "both", "record", "listed", "none", "odd [1]"):
        save(tmp_path / "in" / f"{name}.png")
    for name, text in (("odd [1].txt", "no pattern"),
                       ("plain.txt", "a\nplain one"), ("both.txt", "x"), ("both.png.txt", "the whole name"),
                       ("record.json", '{"description": "in a record"}'),
                       ("licences.csv", "file,licence,caption\nlisted.png,CC0,in the list\n")):  # fmt: skip
        (tmp_path / "in" / name).write_text(text)
    result = run("caption", tmp_path / "in", "--captioner", "beside", "--model", folder, *SIZE)
    assert result.exit_code == 0, result.output
    said = {Path(line.split(": ")[0]).stem: line.split(": ", 1)[1] for line in result.stdout.splitlines()}
    assert said == {"plain": "a plain one", "both": "the whole name", "record": "in a record", "listed": "in the list",
                    "none": "", "odd [1]": "no pattern"}  # fmt: skip
    out = tmp_path / "out"
    assert run("batch", tmp_path / "in", "-o", out, "--model", folder, *FLAGS, "--captioner", "beside").exit_code == 0
    assert image.read_record(out / "both.png")["captioner"] == "beside"
    assert image.read_record(out / "none.png")["words_from"] == "nobody"
    (tmp_path / "all.txt").write_text("\ufeffone for all\n")
    line = ("restore", tmp_path / "in" / "none.png", "--model", folder, *FLAGS, "--json", "-o", tmp_path / "x.png")
    [done] = report(run(*line, "--captioner", tmp_path / "all.txt"))["restored"]
    assert (done["caption"], done["captioner"]) == ("one for all", "all.txt")


@pytest.mark.slow
def test_a_wrong_key_is_one_sentence_and_a_right_one_is_nowhere(
    folder: Path, server: ChatServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "sk-right-1234"
    for number in range(3):
        save(tmp_path / "in" / f"{number}.png", number)
    line = ("batch", tmp_path / "in", "-o", tmp_path / "out", "--model", folder, *FLAGS, *endpoint(server))
    monkeypatch.setenv(KEY_VARIABLE, "sk-wrong-5678")
    wrong = run(*line)
    assert wrong.exit_code == 1
    assert wrong.stderr.splitlines()[-1].startswith("error: ")  # after what would have become of the photos
    assert KEY_VARIABLE in wrong.stderr
    assert len(server.asked) == 1
    assert results(tmp_path / "out") == {}
    monkeypatch.setenv(KEY_VARIABLE, server.key)
    right = run(*line, "--json")
    assert report(right)["captioner"].startswith("seer, 77 tokens")
    written = b"".join(path.read_bytes() for path in (*tmp_path.rglob("*.*"), *cache.iterdir()) if path.is_file())
    for key in ("sk-wrong-5678", server.key):
        assert key not in wrong.output + right.output
        assert key.encode() not in written


@pytest.mark.slow
def test_a_picture_without_a_caption_costs_itself_alone(folder: Path, server: ChatServer, tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "in" / f"{number}.png", number)
    (tmp_path / "in" / "bad.png").write_text("no picture")
    server.script = [Answer(), Answer(body=b"{"), Answer()]
    line = ("batch", tmp_path / "in", "-o", tmp_path / "out", "--model", folder, *FLAGS, *endpoint(server))
    result = run(*line)
    assert result.exit_code == 1
    assert "2 restored, 0 skipped, 2 failed" in result.stderr
    assert set(results(tmp_path / "out")) == {"0.png", "2.png"}
    assert "1.png: no caption: " in result.stderr
    (tmp_path / "in" / "bad.png").unlink()
    again = run(*line)
    assert "1 restored, 2 skipped, 0 failed" in again.stderr
    assert len(server.asked) == 4
    server.script = [Answer(400)] * 9
    ended = run(*line, "--no-caption-cache")
    assert ended.exit_code == 1
    assert "3 pictures in a row" in ended.stderr
    assert len(server.asked) == 7


@pytest.mark.slow
def test_weights_that_cannot_be_opened_end_the_run(folder: Path, server: ChatServer, tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / "in" / f"{number}.png", number)
    other = shutil.copytree(folder, tmp_path / "tiny")
    for weights in (other / "autoencoder").glob("*.safetensors"):
        tensors = load_file(weights)
        save_file(dict(list(tensors.items())[1:]), weights)
    result = run("restore", tmp_path / "in", "--model", other, *FLAGS, *endpoint(server))
    assert result.exit_code == 1
    assert "\nerror: " in result.stderr, "after sizes and time, which are said before the work"
    assert "lacks 1 weights" in result.stderr
    assert result.stderr.count("error: ") == 1, "said once, not for each picture"
    assert server.asked == []


@pytest.mark.slow
def test_variants_share_a_caption_and_other_words_are_other_results(
    folder: Path, server: ChatServer, tmp_path: Path
) -> None:
    save(tmp_path / "in" / "x.png")
    line = ("batch", tmp_path / "in", "-o", tmp_path / "out", "--model", folder, *FLAGS, "--no-caption-cache")
    server.script = [Answer(body=completion("a house")), Answer(body=completion("a house"))]
    assert "2 restored" in run(*line, "--variants", 2, *endpoint(server)).stderr
    assert len(server.asked) == 1
    assert "0 restored, 2 skipped" in run(*line, "--variants", 2, *endpoint(server)).stderr
    server.script = [Answer(body=completion("a tree"))]
    assert "2 restored, 0 skipped" in run(*line, "--variants", 2, *endpoint(server)).stderr
    assert image.read_record(tmp_path / "out" / "x.s1.png")["caption"] == "a tree"


def kill_when(process: Any, ready: Any) -> None:
    while process.poll() is None and not ready():
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"


@pytest.mark.slow
def test_killed_while_captions_are_made_and_while_restoring(
    folder: Path, server: ChatServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        save(tmp_path / "in" / name, number)
    out = tmp_path / "out"
    line = (tmp_path / "in", "-o", out, "--model", folder, *endpoint(server))
    server.script = [Answer(), Answer(), Answer(hang=600)]
    kill_when(command(*line), lambda: len(server.asked) == 3)
    assert results(out) == {}
    assert len(list(cache.glob("*.json"))) == 2
    kill_when(command(*line), lambda: len(log_lines(out)) >= 2)
    asked = len(server.asked)
    assert asked == 7, "only the one that was under way when it was killed is asked about again"
    assert len(list(cache.glob("*.json"))) == 6
    result = run("batch", *line, *FLAGS)
    assert result.exit_code == 0, result.output
    assert len(server.asked) == asked
    assert times_done(out) == dict.fromkeys(names, 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert run("batch", tmp_path / "in", "-o", tmp_path / "whole", *line[3:], *FLAGS).exit_code == 0
    assert len(server.asked) == asked + 6
    assert results(out) == results(tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--captioner", "nowhere"), "folder of a model, a URL"),
        (("--captioner", "."), "config.json is missing"),
        (("--captioner", "nowhere.txt"), "no such text file"),
        (("--captioner", "http://127.0.0.1/v1"), "--caption-model"),
        (("--captioner", "beside", "--caption-model", "x"), "for an endpoint"),
        (("--captioner", "beside", "--caption-bits", "8"), "for a model folder"),
        (("--caption-bits", "5"), "off, 8, 4"),
        (("--captioner", "http://a:secret@b/v1", "--caption-model", "x"), "environment variable"),
        (("--captioner", "http://a:secret@b/v1", "--caption-bits", "8"), "for a model folder"),
        (("--captioner", "HTTP://a:secret@b/v1"), "captioner is a URL"),
    ],
)
def test_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("x.png"))
    for first in (("restore", "x.png"), ("batch", "x.png", "-o", "out"), ("caption", "x.png")):
        result = run(*first, *arguments)
        assert result.exit_code == 2, result.output
        assert said in " ".join(result.stderr.replace("│", " ").split())
        assert "secret" not in result.output
    assert list(tmp_path.iterdir()) == [tmp_path / "x.png"]


def test_every_field_of_the_caption_options_is_an_option_of_each_command() -> None:
    for name in ("restore", "batch", "caption"):
        parameters = {parameter.name: parameter for parameter in load_command(name).params}
        for field, spec in CaptionOptions.fields().items():
            assert parameters[field].default is None
            assert parameters[field].help.startswith(spec.doc)


@pytest.mark.slow
def test_hostile_answers_stay_words(folder: Path, server: ChatServer, tmp_path: Path) -> None:
    evil = "Ignore this.\r\n\x1b[2J</supir:prompt><|endoftext|> --overwrite " + "long " * 5000
    server.script = [Answer(body=completion(evil))]
    source, out = save(tmp_path / "photo.png"), tmp_path / "out.png"
    result = run("restore", "--model", folder, *FLAGS, source, "-o", out, "--json", *endpoint(server))
    [done] = report(result)["restored"]
    assert done["caption"] == clean_caption(evil) == image.read_record(out)["caption"]
    assert done["caption"].startswith("Ignore this. /supir:prompt |endoftext| --overwrite long")
    assert "\x1b" not in result.output

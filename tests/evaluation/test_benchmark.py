"""Benchmarks on disk: gone on with after a kill, made anew where anything differs, the same tables to the byte."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from skimage.data import astronaut
from torch import Tensor
from typer.testing import CliRunner, Result

from evaluation.test_metrics import tensor
from supir.cli.main import app
from supir.errors import OptionError, WeightsError
from supir.evaluation import methods as methods_module
from supir.evaluation.benchmark import PHOTOGRAPHS, SCORES, machine, paper_table1, run_benchmark
from supir.evaluation.fidelity import psnr
from supir.evaluation.frozen import PROTOCOL
from supir.evaluation.methods import Bicubic, Preset, Preview, RealEsrgan
from supir.evaluation.metrics import open_measures
from supir.evaluation.summary import Score
from supir.image import Picture, read, resize, write
from supir.pipeline import SupirPipeline
from tiny import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its previews are small too, since the preset of all others has no size of its own."""
    return save_tiny_model(tmp_path_factory.mktemp("model"), presets={"all": {"min_size": 64}})


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "good" / f"{name}.png" for name in "ab"]
    for number, path in enumerate(paths):
        write(Picture(pixels=tensor(astronaut()[100 * number : 100 * number + 96, :128])), path)
    return paths


class Counting(Bicubic):
    """Enlarges, and counts how often."""

    name = "counting"

    def __init__(self, version: int = 1) -> None:
        self.identity: dict[str, Any] = {"method": "counting", "version": version}
        self.calls = 0

    def __call__(self, low: Tensor, height: int, width: int) -> Tensor:
        self.calls += 1
        return super().__call__(low, height, width)


def run(pictures: list[Path], out: Path, *methods: Any, **options: Any) -> list[Score | str]:
    ready, _ = open_measures(options.pop("measures", ["psnr", "ssim"]))
    options = {"recipes": ["sr4"], "side": 64, **options}
    return list(run_benchmark(pictures, out, methods, ready, **options))


def test_scores_are_those_of_the_stored_pictures(pictures: list[Path], tmp_path: Path) -> None:
    found = run(pictures, tmp_path / "out", Bicubic(), measures=["psnr", "niqe"])
    assert [(s.method, s.picture) for s in found if isinstance(s, Score)] == [
        ("truth", "a"), ("truth", "b"), ("bicubic", "a"), ("bicubic", "b")
    ]  # fmt: skip
    folder = tmp_path / "out" / "sr4"
    stored, original = read(folder / "bicubic" / "a.png").rgb, read(folder / "hq" / "a.png").rgb
    assert isinstance(found[2], Score)
    assert found[2].values == {"psnr": pytest.approx(psnr(stored, original), abs=1e-6)}  # too small for NIQE
    torch.testing.assert_close(stored, resize(read(folder / "lq" / "a.png").rgb, 64, 64), atol=1 / 255, rtol=0)


def test_nothing_finished_is_made_again(pictures: list[Path], tmp_path: Path) -> None:
    first = Counting()
    whole = run(pictures, tmp_path / "whole", first)
    assert first.calls == 2

    class Killed(Exception):
        pass

    class Dying(Counting):
        def __call__(self, low: Tensor, height: int, width: int) -> Tensor:
            if self.calls == 1:
                raise Killed
            return super().__call__(low, height, width)

    dying = Dying()
    with pytest.raises(Killed):
        run(pictures, tmp_path / "parts", dying)
    with (tmp_path / "parts" / "sr4" / "counting" / SCORES).open("a") as file:
        file.write('{"name": "b", "ident')
    second = Counting()
    parts = run(pictures, tmp_path / "parts", second)
    assert second.calls == 1
    assert [(s.method, s.picture, s.values) for s in parts if isinstance(s, Score)] == [
        (s.method, s.picture, s.values) for s in whole if isinstance(s, Score)
    ]
    third = Counting()
    assert run(pictures, tmp_path / "parts", third) == parts
    assert third.calls == 0


def test_pictures_of_one_size_are_made_together_and_as_alone(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "good" / "c.png"  # of another size
    write(Picture(pixels=tensor(astronaut()[:64, :96])), other)
    pipeline = SupirPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    passes: list[int] = []
    hook = pipeline.unet.register_forward_pre_hook(lambda module, given: passes.append(len(given[0])))

    def scores(batch: int) -> list[Score]:
        methods = Preview(pipeline), Preset(pipeline, "fast", min_size=64, num_steps=2, text_guidance=1.0)
        found = run([pictures[0], other, pictures[1]], tmp_path / str(batch), *methods, side=128, batch=batch)
        return sorted((one for one in found if isinstance(one, Score)), key=lambda one: (one.method, one.picture))

    together, at_once = scores(2), max(passes)
    passes.clear()
    alone, one_by_one = scores(1), max(passes)
    hook.remove()
    assert at_once == 2 * one_by_one
    assert [(one.method, one.picture) for one in together] == [(one.method, one.picture) for one in alone]
    for one, other_one in zip(together, alone, strict=True):
        assert one.values == pytest.approx(other_one.values, abs=0.02)


def test_what_was_made_otherwise_is_made_anew(pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(pictures, out, Counting())
    other = Counting(version=2)
    run(pictures, out, other)
    assert other.calls == 2
    result = out / "sr4" / "counting" / "a.png"
    write(Picture(pixels=-read(result).rgb), result)
    mended = Counting(version=2)
    run(pictures, out, mended)
    assert mended.calls == 1
    more = Counting(version=2)
    found = run(pictures, out, more, measures=["psnr", "ssim", "haar_psi"])
    assert more.calls == 2
    assert isinstance(found[-1], Score)
    assert "haar_psi" in found[-1].values
    fewer = Counting(version=2)
    found = run(pictures, out, fewer, measures=["psnr"])
    assert fewer.calls == 0
    assert isinstance(found[-1], Score)
    assert found[-1].values.keys() == {"psnr"}


def test_real_pictures_and_broken_ones(pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"none")
    found = run([*pictures, tmp_path / "bad.png"], tmp_path / "real", Bicubic(), recipes=[PHOTOGRAPHS], scale=3.0,
                measures=["psnr", "niqe"])  # fmt: skip
    assert isinstance(found[0], str)
    assert "bad.png" in found[0]
    assert [s.values.keys() for s in found if isinstance(s, Score)] == [{"niqe"}] * 2
    with pytest.raises(OptionError, match="would both be written"):
        run([*pictures, tmp_path / "a.jpg"], tmp_path / "real", Bicubic(), recipes=[PHOTOGRAPHS])
    assert read(tmp_path / "real" / PHOTOGRAPHS / "bicubic" / "a.png").rgb.shape == (3, 288, 384)


def test_another_scale_is_another_result(pictures: list[Path], tmp_path: Path) -> None:
    for scale, side in ((3.0, 288), (2.0, 192)):
        run(pictures[:1], tmp_path / "real", Bicubic(), recipes=[PHOTOGRAPHS], scale=scale)
        assert read(tmp_path / "real" / PHOTOGRAPHS / "bicubic" / "a.png").rgb.shape[1] == side


def test_methods_of_a_model(model: Path, pictures: list[Path]) -> None:
    pipeline = SupirPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    low = read(pictures[0]).rgb
    preset = Preset(pipeline, "fast", num_steps=2, min_size=64)
    [found] = preset(low[None], 192, 256)
    assert found.shape == (3, 192, 256)
    [whole] = pipeline(pictures[0], pipeline.options("fast", num_steps=2, min_size=64, scale=2))
    torch.testing.assert_close(found, whole.picture.rgb)
    preview = Preview(pipeline)
    expected = pipeline.preview(pictures[0], pipeline.options(scale=2))
    torch.testing.assert_close(preview(low[None], 192, 256)[0], expected.rgb)
    torch.testing.assert_close(
        pipeline.preview(pictures[0], preset="fast", min_size=64, scale=2).rgb, whole.preview.rgb
    )
    other = Preset(pipeline, "fast", num_steps=3, min_size=64)
    assert preset.identity != other.identity
    assert preset.identity["model_sha256"] == preview.identity["model_sha256"]


def test_real_esrgan_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = methods_module.find_spec
    monkeypatch.setattr(methods_module, "find_spec", lambda name: None if name == "ncnn" else real(name))
    with pytest.raises(WeightsError, match="pip install ncnn"):
        RealEsrgan(tmp_path)


def benchmark(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


def test_the_command_twice_and_its_page(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    quick = ("--methods", "bicubic,preview,fast", "--set", "num_steps=1", "--set", "min_size=64", "--model", model)
    command = ("table1", "--data", tmp_path / "good", "-o", out, "--recipes", "sr4,default", "--measures", "psnr,ssim",
               "--side", 96, *quick)  # fmt: skip
    done = benchmark(*command)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("| recipe | method | pictures | PSNR ↑ | SSIM-Y ↑ |")
    assert "verdict sr4: PSNR" in done.stdout
    assert "| sr4 | SUPIR | 22.66 |" in done.stdout
    files = {name: (out / name).read_bytes() for name in ("table.md", "table.csv", "report.html", "times.md")}
    assert benchmark(*command).stdout == done.stdout
    assert {name: (out / name).read_bytes() for name in files} == files
    record = json.loads((out / "record.json").read_text())
    assert record["methods"]["fast"]["options"]["num_steps"] == 1
    told = {"set": "pictures as given", "protocol": PROTOCOL}
    assert record["options"] == {"recipes": ["sr4", "default"], "seed": 0, "side": 96, **told}
    page = files["report.html"].decode()
    shown = set(re.findall(r"<img data-method='([^']+)' alt='[^']+' src='data:image/jpeg;base64,", page))
    assert shown == {"input", "bicubic", "preview", "fast", "truth"}
    assert not re.findall(r"(?:src|href)=['\"](?!data:)", page), "the page needs no other file"


@pytest.mark.slow
def test_another_kind_of_processor_gives_the_same_values(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    """Sums in another order: the last bits of floats differ, and so may a pixel here and there, but no value shown."""
    quick = ("--methods", "preview,fast", "--set", "num_steps=1", "--set", "min_size=64", "--model", str(model))
    found = []
    old = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    for name, processor in (("new", {}), ("old", old)):
        words = ["table1", "--data", str(tmp_path / "good"), "-o", str(tmp_path / name), "--measures", "psnr,ssim,niqe"]
        subprocess.run(
            [sys.executable, "-m", "supir.cli", "benchmark", *words, *quick],
            env={**os.environ, **processor},
            check=True,
            capture_output=True,
        )
        lines = sorted((tmp_path / name).glob("*/*/scores.jsonl"))
        found.append([json.loads(line)["values"] for path in lines for line in path.read_text().splitlines()])
    assert len(found[0]) == len(found[1]) > 20
    for new, old in zip(*found, strict=True):
        assert new == pytest.approx(old, abs=2e-3)


def test_a_frozen_set_is_its_own_pictures_and_no_changed_ones(pictures: list[Path], tmp_path: Path) -> None:
    """Other pictures beside them do not matter, nor in which lossless format they are."""
    done = benchmark("freeze", "--data", tmp_path / "good", "--name", "two", "-o", tmp_path / "two.json")
    assert done.exit_code == 0, done.output
    other = tmp_path / "other"
    for path in (*pictures, tmp_path / "c.png"):
        pixels = read(path).rgb if path.exists() else torch.zeros(3, 64, 64)
        write(Picture(pixels=pixels), other / f"{path.stem}.tif")

    def table(folder: Path, out: str, frozen: Path = tmp_path / "two.json") -> tuple[int, str]:
        quick = ("--methods", "bicubic", "--recipes", "sr4", "--measures", "psnr")
        found = benchmark("table1", "--data", folder, "-o", tmp_path / out, "--frozen", frozen, *quick)
        return found.exit_code, " ".join(found.output.replace("│", " ").split())

    for folder, out in ((tmp_path / "good", "first"), (other, "second")):
        assert table(folder, out)[0] == 0
    first, second = ((tmp_path / out / "table.md").read_bytes() for out in ("first", "second"))
    assert first == second
    assert f"Protocol {PROTOCOL}; two version 1, 2 pictures" in first.decode()
    write(Picture(pixels=torch.zeros(3, 96, 128)), other / "b.tif")
    assert "is not the b of two version 1" in table(other, "third")[1]
    (other / "b.tif").unlink()
    assert "1 pictures of two version 1" in table(other, "third")[1]
    assert "is no set of" in table(other, "third", tmp_path / "good" / "a.png")[1]
    assert not (tmp_path / "third").exists()


def test_the_command_on_real_pictures(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    done = benchmark("real", "--data", tmp_path / "good", "-o", tmp_path / "out", "--methods", "bicubic,preview",
                     "--measures", "niqe", "--scale", 3, "--model", model, "--pictures", 1)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "| photographs | preview | 1 |" in done.stdout
    assert "paper" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "bicubik"), "unknown method 'bicubik'"),
        (("--methods", "real-esrgan"), "needs --esrgan-models"),
        (("--recipes", "sr5"), "unknown recipe 'sr5'"),
        (("--set", "num_steps=abc"), "num_steps is 'abc'; it must be a whole number"),
        (("--measures", "psrn"), "unknown measure 'psrn'"),
        (("--set", "num_step=3", "--methods", "fast"), "num_step"),
    ],
)
def test_wrong_usage(model: Path, pictures: list[Path], tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = benchmark("table1", "--data", tmp_path / "good", "-o", tmp_path / "out", "--model", model, *arguments)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.stderr.replace("\u2502", " ").split())


def test_records() -> None:
    assert machine()["cores"]
    assert paper_table1(["sr8"]).count("| sr8 |") == 6
    assert paper_table1(["default"]) == ""

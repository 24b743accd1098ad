"""Commands that open a model take the device, and arithmetic that it and the model bear, unless told otherwise."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from caption.tiny_captioners import WORDS, save_tiny_llava
from simulated.conftest import ROOT, some_pixels
from simulated.device import Accelerator
from supir import image
from supir.cli.arguments import model_of
from supir.cli.main import app
from supir.image import Picture, read_record
from supir.jobs.job import Job
from supir.jobs.model import Model
from supir.jobs.restoring import Restoring
from supir.pipeline import SupirPipeline
from supir.tensors import memory
from supir.weights.device import best_device, devices
from tiny import save_tiny_model

QUICK = ["--min-size", "16", "--scale", "1", "--steps", "1"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    image.write(Picture(pixels=some_pixels(1, 48, 48)[0]), path)
    return path


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done.output


def networks_of(result: Path) -> str | None:
    record = read_record(result)
    assert record is not None
    return record.get("networks")


def test_the_device_is_found() -> None:
    assert best_device() == "sim"
    assert devices() == ("sim",)


def test_restore_runs_there_and_elsewhere_when_told(photo: Path, folder: Path, tmp_path: Path) -> None:
    run("restore", photo, "-o", tmp_path / "there.png", "--model", folder, *QUICK)
    assert networks_of(tmp_path / "there.png") == "float16 on sim"  # the folder says nothing of what it bears
    run("restore", photo, "-o", tmp_path / "here.png", "--model", folder, "--device", "cpu", *QUICK)
    assert networks_of(tmp_path / "here.png") is None  # float32 on the processor, whatever else is there


@pytest.mark.slow
def test_the_first_line_of_the_readme_makes_a_picture(tmp_path: Path) -> None:
    """``make demo``, as the Makefile has it."""
    [line] = [line for line in (ROOT / "Makefile").read_text().splitlines() if "demo/restored.png --" in line]
    demo = line.replace("$(DEMO_PHOTO)", str(ROOT / "examples" / "photo.jpg")).replace("$(OUT)", str(tmp_path))
    run(*shlex.split(demo)[1:])
    found = image.read(tmp_path / "demo" / "restored.png").pixels
    assert float(found.std()) > 0.1
    assert networks_of(tmp_path / "demo" / "restored.png") in ("float32 on sim", "bfloat16 on sim", "float16 on sim")
    assert (tmp_path / "demo" / "restored.compare.png").exists()


@pytest.fixture(scope="session")
def all_there(photo: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """The picture that networks make which stay on the device."""
    out = tmp_path_factory.mktemp("plain") / "out.png"
    run("restore", photo, "-o", out, "--model", folder, "--offload", "none", *QUICK)
    return image.read(out).pixels


OFFLOADED = [
    ("restore", "model", 10**12, "model"),
    *(
        pytest.param("restore", *asked, marks=pytest.mark.slow)
        for asked in (("sequential", 10**12, "sequential"), ("group", 10**12, "group"), ("auto", 10**12, "none"))
    ),
    ("restore", "auto", 10**6, "group"),
    pytest.param("batch", "model", 10**12, "model", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("command", "asked", "free", "way"), OFFLOADED)
def test_offload_acts_and_changes_no_pixel(
    command: str, asked: str, free: int, way: str, photo: Path, folder: Path, all_there: Tensor, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Weights wait on the processor, and only those at work are on the device."""
    seen: list[tuple[str, set[str], set[str]]] = []
    real = SupirPipeline.restore_file

    def watched(pipeline: SupirPipeline, *given: Any, **more: Any) -> Any:
        during: set[str] = set()
        hook = pipeline.unet.conv_in.register_forward_pre_hook(lambda *_: during.update(weights_on(pipeline)))
        record = real(pipeline, *given, **more)
        hook.remove()
        seen.append((pipeline.offload, during, weights_on(pipeline)))
        return record

    monkeypatch.setattr(SupirPipeline, "restore_file", watched)
    monkeypatch.setattr(memory, "available", lambda device: free)
    out = tmp_path / "out" / "photo.png"
    place = out if command == "restore" else out.parent
    run(command, photo, "-o", place, "--model", folder, "--offload", asked, *QUICK)
    [(used, during, after)] = seen
    assert used == way
    assert (during == {"sim"}) == (way == "none")
    assert ("sim" in after) == (way == "none")
    assert torch.allclose(image.read(out).pixels, all_there, atol=0.01)  # a step of 8 bits


def weights_on(pipeline: SupirPipeline) -> set[str]:
    networks = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    return {weight.device.type for network in networks for weight in network.parameters()}


def test_there_is_nothing_to_offload_on_the_processor(photo: Path, folder: Path, tmp_path: Path) -> None:
    wanted = ["restore", photo, "-o", tmp_path / "out.png", "--model", folder, "--offload", "model", "--device", "cpu"]
    done = CliRunner().invoke(app, [*map(str, wanted), *QUICK])
    assert done.exit_code in (1, 2)
    assert "offload is 'model', and the networks run on the cpu" in " ".join(done.output.split())
    assert not (tmp_path / "out.png").exists()


@pytest.mark.slow
def test_a_captioner_hands_over_to_the_networks(photo: Path, folder: Path, tmp_path: Path) -> None:
    captioner = save_tiny_llava(tmp_path / "llava")
    out = tmp_path / "out.png"
    run("restore", photo, "-o", out, "--model", folder, "--captioner", captioner, "--no-caption-cache", *QUICK)
    record = read_record(out)
    assert record is not None
    assert set(record["caption"].split()) <= {word.strip() for word in WORDS}


def test_batch_and_its_log(photo: Path, folder: Path, tmp_path: Path) -> None:
    wanted = ["batch", photo, "-o", tmp_path / "out", "--model", folder, *QUICK]
    run(*wanted)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["done"], report["networks"]) == (1, "float16 on sim")
    run(*wanted)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["skipped"] == 1
    run(*wanted, "--device", "cpu")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["done"] == 1  # another device, another result
    assert "networks" not in report


@pytest.mark.parametrize(("place", "dtype"), [((), "float16"), (("--device", "cpu"), "float32")])
def test_plan_knows_what_will_run(photo: Path, folder: Path, place: tuple[str, ...], dtype: str) -> None:
    found: dict[str, Any] = json.loads(run("plan", photo, "--model", folder, "--json", *place, *QUICK))
    assert found["dtype"] == dtype
    assert found["seconds"] is not None


def test_plan_of_a_device_that_is_not_here(photo: Path, folder: Path) -> None:
    found = json.loads(run("plan", photo, "--model", folder, "--json", "--device", "cuda:3", *QUICK))
    assert (found["dtype"], found["seconds"]) == ("float16", None)


def test_benchmarks_run_there(folder: Path) -> None:
    assert model_of(folder).open().device.type == "sim"
    assert model_of(folder, "cpu").open().device.type == "cpu"


def test_python_stays_on_the_processor_until_told(photo: Path, folder: Path) -> None:
    pipeline = SupirPipeline.from_pretrained(folder)
    assert (pipeline.device.type, pipeline.unet.dtype) == ("cpu", torch.float32)
    moved = SupirPipeline.from_pretrained(folder, device="sim", dtype="float32")
    moved.set_progress_bar_config(disable=True)
    assert (moved.device.type, moved.unet.dtype) == ("sim", torch.float32)
    [found] = moved(photo, min_size=16, num_steps=1, scale=1.0)
    assert found.picture.pixels.device.type == "cpu"


@pytest.mark.slow
def test_workers_take_one_device_after_the_other(
    photo: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the processes of a batch, of the service, and of the page do."""
    monkeypatch.setattr(Accelerator, "count", 2)
    model = Model(folder=folder)
    assert [str(model.open(place).device) for place in (0, 2)] == ["sim:0", "sim:0"]
    worker = Restoring(model, place=1)
    options = model.options(min_size=16, num_steps=1, scale=1.0)
    outcome = worker(Job(source=photo, target=tmp_path / "out.png", options=options))
    assert outcome.error is None
    assert str(worker._pipeline.device) == "sim:1"


@pytest.mark.slow
def test_worker_processes_run_there(photo: Path, folder: Path, tmp_path: Path) -> None:
    wanted = ["batch", photo, "-o", tmp_path / "out", "--model", folder, "--workers", "2", *QUICK, "--variants", "2"]
    command = [sys.executable, str(ROOT / "tests" / "simulated" / "commands.py"), *map(str, wanted)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert {networks_of(path) for path in (tmp_path / "out").glob("*.png")} == {"float16 on sim"}

"""Device and arithmetic are decided in one place, for every way in, and what stands against them is a sentence."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

from supir import write
from supir.errors import DeviceLostError, OptionError, OutOfMemoryError, WeightsError
from supir.jobs import job as batch_jobs
from supir.jobs.batch import OtherDeviceWarning, _tasks, opened
from supir.jobs.job import Job, Outcome, settings_sha256
from supir.jobs.model import Model
from supir.jobs.restoring import restore_job
from supir.options import NetworkOptions, RestoreOptions
from supir.pipeline import SupirPipeline
from supir.planner.costs import networks_of
from supir.pool import Done, EmptyClusterWarning
from supir.weights import device
from supir.weights.device import choose_dtype, devices, find_device, is_lost, kind_of, wider_dtypes
from supir.weights.model_folder import BUNDLED_MODEL
from supir.weights.opening import OpenedPipeline
from test_pipeline import picture
from tiny import save_tiny_model, tiny_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def on_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch would say on such a machine."""
    monkeypatch.setattr(device, "best_device", lambda: "cuda")
    monkeypatch.setattr(device, "_number", lambda kind: {"cuda": 2, "cpu": 1}.get(kind, 0))
    monkeypatch.setattr(device, "has_bfloat16", lambda kind: kind != "old")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpu", "'gpu', which torch does not know"),
        ("", "'', which torch does not know"),
        ("npu", "without the package torch_npu"),
        ("cuda", r"(built without cuda, which needs torch for CUDA or ROCm|finds no cuda device)"),
        ("cuda:1", r"(built without cuda|finds no cuda device)"),
    ],
)
@pytest.mark.skipif(torch.accelerator.is_available(), reason="the sentences of a machine without accelerator")
def test_a_device_that_is_not_there_is_a_sentence(name: str, said: str) -> None:
    with pytest.raises(OptionError, match=f"device is .*{said}.*here there is cpu alone"):
        find_device(name)
    with pytest.raises(OptionError):
        tiny_pipeline().to(name)
    with pytest.raises(OptionError):
        SupirPipeline.from_pretrained(device=name)
    with pytest.raises(OptionError):
        Model(devices=(name,)).open()


@pytest.mark.usefixtures("on_two_gpus")
def test_devices_are_counted() -> None:
    assert find_device("cuda:1") == torch.device("cuda:1")
    assert devices() == ("cuda:0", "cuda:1")
    assert Model().placed().devices == ("cuda:0", "cuda:1")  # worker after worker in turn
    with pytest.raises(OptionError, match="'cuda:2', and cuda counts to 1 here; here there is cuda:0, cuda:1 and cpu"):
        find_device("cuda:2")
    assert find_device(None) == torch.device("cuda")
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("on_two_gpus")
@pytest.mark.parametrize(
    ("asked", "kind", "borne", "expected"),
    [
        ("auto", "cpu", None, torch.float32),
        ("auto", "cpu", ("bfloat16",), torch.float32),
        ("auto", "cuda", None, torch.float16),
        ("auto", "xpu", ("bfloat16", "float32"), torch.bfloat16),
        ("auto", "old", ("bfloat16", "float32"), torch.float32),
        ("auto", "old", ("bfloat16",), torch.float32),
        ("auto", "mps", ("float32", "bfloat16"), torch.float32),
        ("float16", "cpu", ("float32",), torch.float16),
    ],
)
def test_auto_is_what_the_device_has_and_the_model_bears(
    asked: str, kind: str, borne: tuple[str, ...] | None, expected: torch.dtype
) -> None:
    assert choose_dtype(asked, kind, borne) is expected


@pytest.mark.usefixtures("on_two_gpus")
def test_wider_is_what_the_device_has() -> None:
    assert wider_dtypes(torch.float16, "cuda") == (torch.bfloat16, torch.float32)
    assert wider_dtypes(torch.float16, "old") == wider_dtypes(torch.bfloat16, "cuda") == (torch.float32,)
    assert wider_dtypes(torch.float32, "cuda") == ()


def test_the_folder_says_what_it_bears(folder: Path, tmp_path: Path) -> None:
    """In its plan for a device that is not here, as in loading for one; and the word is kept where it is saved."""
    index = json.loads((BUNDLED_MODEL / "model_index.json").read_text())
    assert networks_of(BUNDLED_MODEL, NetworkOptions(), "cuda").components["unet"].dtype in (
        {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[index["dtypes"].split(",")[0]],
    )
    assert networks_of(folder, NetworkOptions(), "cuda").components["unet"].dtype is torch.float16
    assert networks_of(folder, NetworkOptions(), "cpu").components["unet"].dtype is torch.float32
    copied = shutil.copytree(folder, tmp_path / "model")
    described = json.loads((copied / "model_index.json").read_text())
    (copied / "model_index.json").write_text(json.dumps(described | {"dtypes": "bfloat16, float32"}))
    assert networks_of(copied, NetworkOptions(), "cuda").components["unet"].dtype is torch.bfloat16
    pipeline = SupirPipeline.from_pretrained(copied)
    assert pipeline.unet.dtype is torch.float32  # on a processor
    pipeline.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "model_index.json").read_text())["dtypes"] == "bfloat16, float32"
    (copied / "model_index.json").write_text(json.dumps(described | {"dtypes": "float8"}))
    with pytest.raises(WeightsError, match="dtypes is 'float8'; it must be some of float16"):
        SupirPipeline.from_pretrained(copied)


def test_the_spellings_of_diffusers_are_taken(folder: Path) -> None:
    for given in (
        {"torch_dtype": torch.bfloat16},
        {"dtype": "bfloat16"},
        {"dtype": {"default": torch.bfloat16}},
    ):
        pipeline = SupirPipeline.from_pretrained(folder, **given)
        assert {pipeline.unet.dtype, pipeline.autoencoder.dtype} == {torch.bfloat16}
        assert pipeline.identity["networks"] == "bfloat16"
    mixed = SupirPipeline.from_pretrained(folder, dtype={"default": "float16", "text_encoder": torch.float32})
    assert (mixed.unet.dtype, mixed.text_encoder.dtype) == (torch.float16, torch.float32)
    with pytest.raises(OptionError, match="dtype is 'float64'"):
        SupirPipeline.from_pretrained(folder, dtype={"unet": torch.float64})
    with pytest.raises(OptionError, match=r"variant is 'fp16', and .* has no such files"):
        SupirPipeline.from_pretrained(folder, variant="fp16")


def test_diffusers_finds_the_class_when_it_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    named = inspect.getfile(SupirPipeline)
    pipeline = DiffusionPipeline.from_pretrained(str(folder), custom_pipeline=named, trust_remote_code=True)
    assert type(pipeline).__name__ == "SupirPipeline"
    assert pipeline.unet.dtype is torch.float32


def test_memory_that_runs_out_on_the_way_to_a_device_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(OpenedPipeline.__mro__[1], "to", full)
    with pytest.raises(OutOfMemoryError, match=r"moving the networks to cpu: CUDA out of memory.*--quantize int8"):
        tiny_pipeline().to("cpu")


def test_the_record_says_device_and_arithmetic(folder: Path) -> None:
    plain = Model(folder=folder, devices=("cpu",))
    assert plain.identity == SupirPipeline.from_pretrained(folder).identity
    assert "networks" not in plain.identity
    ways = {
        ("cpu",): None,
        ("cuda",): "float16 on cuda",
        ("cuda:1",): "float16 on cuda",
        ("mps",): "float16 on mps",
        ("cuda:0", "cpu"): "float32 or float16 on cuda",
    }
    for places, said in ways.items():
        assert Model(folder=folder, devices=places).identity.get("networks") == said
    exact = NetworkOptions(dtype="float32", quantize="int8")
    assert Model(folder=folder, devices=("cuda",), networks=exact).identity["networks"] == "float32 on cuda, int8"
    with pytest.raises(OptionError, match="'gpu'; networks run on cpu, cuda"):
        _ = Model(folder=folder, devices=("gpu",)).identity
    assert kind_of("cuda:1") == "cuda"


def test_adapters_are_part_of_the_identity(folder: Path) -> None:
    from peft import LoraConfig

    pipeline = SupirPipeline.from_pretrained(folder)
    before = pipeline.identity
    pipeline.unet.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q"]), adapter_name="grain")
    assert pipeline.identity == before | {"adapters": "grain 1"}
    pipeline.set_adapters(["grain"], [0.25])
    assert pipeline.identity["adapters"] == "grain 0.25"
    pipeline.disable_lora()
    assert pipeline.identity == before


def test_what_version_0_1_0_made_counts_where_it_can_be_known(folder: Path, tmp_path: Path) -> None:
    """There the identity had the words that were asked for, and no device."""
    (tmp_path / "photo.png").write_bytes(b"photo")
    out = tmp_path / "out"
    job = Job(source=tmp_path / "photo.png", target=out / "photo.png", options=RestoreOptions())
    asked = Model(folder=folder, devices=("cpu",), networks=NetworkOptions(dtype="float32"))
    weights = {name: value for name, value in asked.identity.items() if name.startswith("model")}
    assert asked.former_identity == weights | {"networks": "float32"}
    with opened(out) as log:
        job.target.write_bytes(b"result")
        hashes = {"source_sha256": batch_jobs.file_sha256(job.source), "sha256": batch_jobs.file_sha256(job.target)}
        settings = settings_sha256(job.options, asked.former_identity)
        log.add(Outcome(source=job.source, target=job.target, settings_sha256=settings, **hashes))
        [kept] = _tasks([job], log, asked)
        assert isinstance(kept, Done)
        assert kept.result.skipped
        with pytest.warns(OtherDeviceWarning, match=r"made on a processor, or by version 0\.1\.0.*float32 on cuda"):
            [again] = _tasks([job], log, dataclasses.replace(asked, devices=("cuda",)))
        assert again is job
        other = dataclasses.replace(asked, networks=NetworkOptions(dtype="bfloat16"))
        assert list(_tasks([job], log, other)) == [job]  # without a warning


def test_a_device_that_is_lost_ends_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(picture(16, 16), tmp_path / "photo.png")
    job = Job(source=tmp_path / "photo.png", target=tmp_path / "out.png", options=RestoreOptions())

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    pipeline = tiny_pipeline()
    monkeypatch.setattr(type(pipeline), "restore_file", broken)
    with pytest.raises(DeviceLostError, match=r"photo\.png: the device failed; start again: CUDA error"):
        restore_job(pipeline, job)
    assert not is_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_lost(torch.OutOfMemoryError("CUDA out of memory"))


def test_workers_elsewhere_have_the_devices_of_their_machines() -> None:
    assert Model().placed("cuda").devices == ("cuda",)
    assert Model(devices=("cpu",)).placed("cpu").devices == ("cpu",)
    with pytest.warns(EmptyClusterWarning, match="device cuda: the cluster has no GPU now; workers wait"):
        assert Model(devices=("cuda",)).placed("cpu").devices == ("cuda",)
    with pytest.raises(OptionError, match="nonsense"):
        Model(devices=("nonsense",)).placed("cpu")

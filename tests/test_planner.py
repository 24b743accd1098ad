"""The planner: bytes and operations from shapes, the tiles that fit, the command, and what restoring makes of it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from supir import write
from supir.cli.main import app
from supir.errors import OutOfMemoryError, WeightsError
from supir.models.quantized import quantize_weights
from supir.options import NetworkOptions, RestoreOptions
from supir.pipeline import SupirPipeline
from supir.planner import costs as costs_module
from supir.planner.costs import Costs, Evaluation, evaluations, networks_of, on_meta, traced
from supir.planner.plan import GIGABYTE, Passes, extras_on, make_plan, picked, work_on
from supir.restoration.work import FIRST, SAMPLING
from supir.tensors.memory import stored_bytes
from supir.training.sizes import build_size
from supir.weights.model_folder import BUNDLED_MODEL
from test_fewer_evaluations import NUM_TILES, QUICK, counted, pixels
from test_pipeline import picture
from tiny import TRUNK, save_tiny_model, tiny_pipeline

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def costs(pipeline: SupirPipeline) -> Costs:
    return Costs(on_meta({name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}))


@pytest.fixture(scope="module")
def bundled() -> Costs:
    return Costs(networks_of(BUNDLED_MODEL, NetworkOptions()))


def test_live_bytes_of_a_chain() -> None:
    """Of three tensors of 4000 bytes in a chain two are held at a time; views and work in place take nothing."""
    start = torch.zeros(1000, device="meta")

    def chain() -> torch.Tensor:
        x = start + 1
        x = x * 2
        return x.view(10, 100).add_(1) + 1

    found = traced(chain)
    assert found.peak == 8000
    assert found.operations == 0


def test_attention_never_holds_the_matrix_of_all_pairs() -> None:
    query = torch.zeros(1, 2, 4096, 32, device="meta")
    found = traced(lambda: nn.functional.scaled_dot_product_attention(query, query, query))
    assert found.peak == query.nbytes
    assert found.operations == 4 * 2 * 4096**2 * 32


@pytest.mark.parametrize(
    ("unet_outer", "adaptor"), [(False, "whole"), (False, "kept"), (True, "outer"), (True, "kept")]
)
def test_operations_are_those_of_the_networks(
    pipeline: SupirPipeline, costs: Costs, unet_outer: bool, adaptor: str
) -> None:
    """Counted while the real networks restore; the step after a whole one is what is asked for."""
    wanted = Evaluation(branches=2, unet_outer=unet_outer, adaptor=adaptor)
    every = {"adaptor_every": 1 + (adaptor == "kept"), "deep_cache_every": 1 + unet_outer}
    options = pipeline.options(**(QUICK | {"num_steps": 2, "tile": 128}), **every)
    options = options.replace(positive_prompt="", negative_prompt="")  # 77 tokens
    whole = Evaluation(branches=2, unet_outer=False, adaptor="whole")
    assert evaluations(options) == ({whole: 2} if wanted == whole else {whole: 1, wanted: 1})
    # The counter does not know the processor's fused attention; it knows the products of the plain one.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        pipeline.restore_pixels(pixels(), options)
    counts = counter.get_flop_counts()
    real = sum(sum(counts[name].values()) for name in ("SupirUNet", "SupirAdaptor"))
    traced_sum = sum(
        costs.evaluate(2, 8, 12, each.unet_outer, each.adaptor).operations * times
        for each, times in evaluations(options).items()
    )
    assert traced_sum == pytest.approx(real, rel=1e-3)


def test_evaluations_are_those_that_a_restoration_makes(pipeline: SupirPipeline) -> None:
    options = pipeline.options(**QUICK, adaptor_every=2, deep_cache_every=4, text_guidance_low=0.2, solver="dpmpp_2m")
    with counted(pipeline) as calls:
        pipeline.restore_pixels(pixels(width=64), options)
    steps = evaluations(options)
    assert sum(each.branches * times for each, times in steps.items()) == sum(calls.unet)
    assert sum(times for each, times in steps.items() if not each.unet_outer) == len(calls.unet_middle)
    assert sum(times for each, times in steps.items() if each.adaptor != "kept") == len(calls.adaptor)


@pytest.mark.slow
@pytest.mark.parametrize("second", ["prompt=a cat", "control_scale=0.3", "control_scale=0.3; prompt=a cat"])
def test_answers_of_regions_are_counted_where_they_are(pipeline: SupirPipeline, costs: Costs, second: str) -> None:
    """One that one of two tiles sees, one that both see, and a tile that the plain one does not reach."""
    region = f"0,0,20%,100%; prompt=a dog | 0,40%,100%,60%; {second}"
    options = pipeline.options(**QUICK, region=region, region_edge=0, adaptor_every=2)
    with counted(pipeline) as calls:
        pipeline.restore_pixels(pixels(), options)
    passes = Passes(costs, options, 96, 64, extras=extras_on(costs, options, 96, 64))
    plain = Passes(costs, options.replace(region=""), 96, 64)
    number = passes.tiles[0]
    assert number == NUM_TILES
    assert 0 < passes.apart(1) < 2 * number
    assert passes.apart(2) > passes.apart(1) or second == "prompt=a cat"
    rows = {each: number * each.branches + passes.apart(each.branches) for each in passes.steps}
    assert sum(calls.unet) == sum(times * rows[each] for each, times in passes.steps.items())
    assert passes.parts[SAMPLING] > plain.parts[SAMPLING]
    assert passes.bytes["sampling"] > plain.bytes["sampling"], "each answer keeps features of its own"


def test_who_acts_first_is_counted(costs: Costs, tmp_path: Path) -> None:
    from weights.test_first import esrgan  # which skips where its libraries are not installed

    options = RestoreOptions(first=str(esrgan(tmp_path / "x2.pth")), scale=2.0, min_size=64)
    extras = extras_on(costs, options, 300, 100)
    assert extras.first is not None
    with FlopCounterMode(display=False) as counter:
        extras.first(torch.zeros(3, 100, 300))
    work, plain = (work_on(costs, each, 300, 100) for each in (options, options.replace(first="")))
    assert work.pop(FIRST) == pytest.approx(counter.get_total_flops())
    assert work == plain
    assert FIRST not in work_on(costs, options.replace(scale=1.0), 300, 100), "nothing is enlarged"
    planned, without = (make_plan(costs, options, 640, 256, extras=each) for each in (extras, None))
    assert planned.passes[FIRST] >= 3 * 3 * 4 * 600 * 200
    held = replace(extras, photo=None)
    assert make_plan(costs, options, 640, 256, extras=held).peak == without.peak + extras.first.weights
    assert any(reason.startswith("first: ") for reason in planned.reasons)


def test_smaller_memory_smaller_tiles(costs: Costs, pipeline: SupirPipeline) -> None:
    options = pipeline.options(**(QUICK | {"tile": 512, "tile_batch": 4, "vae_tile": 512}))
    free = make_plan(costs, options, 1024, 768)
    assert free.fits
    assert free.options == options
    peaks = []
    for share in (1.0, 0.9, 0.8, 0.7):
        held = free.peak - max(free.passes.values())
        memory = held + share**4 * max(free.passes.values())
        plan = make_plan(costs, options, 1024, 768, memory=memory)
        assert plan.fits
        assert plan.peak <= memory
        peaks.append(plan.peak)
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] < peaks[0]
    starved = make_plan(costs, options, 1024, 768, memory=held)
    assert min(starved.options.tile, starved.options.vae_tile) == 64
    assert not starved.fits
    assert any("does not fit" in reason for reason in starved.reasons)


@pytest.mark.slow
def test_offload_where_all_does_not_fit_on_a_gpu() -> None:
    """Full size in half precision: weights of 8.5 GB, of which UNet and adaptor stay together."""
    parts = {
        name: nn.Module.to(part, torch.float32 if name == "autoencoder" else torch.float16)
        for name, part in build_size("paper", meta=True).items()
    }
    whole = Costs(on_meta(parts))
    options = RestoreOptions(vae_tile=512)
    roomy, tight = (
        make_plan(whole, options, 1024, 1024, memory=gigabytes * GIGABYTE, accelerator=True, rate=5e13)
        for gigabytes in (16, 8)
    )
    assert (roomy.offload, tight.offload) == ("none", "model")
    assert roomy.fits
    assert tight.fits
    assert roomy.dtype == "float16"
    assert 8.6 < sum(roomy.weights.values()) / GIGABYTE < 8.9
    for gigabytes, way in ((5, "group"), (6, "group"), (8, "model"), (9, "model"), (12, "none"), (24, "none")):
        memory = gigabytes * GIGABYTE
        found = picked(whole, RestoreOptions(), 2048, 2048, memory=memory, accelerator=True)
        assert found.peak <= memory, gigabytes
        assert (found.options.tile, found.offload) == (1024, way), gigabytes
    none = picked(whole, RestoreOptions(), 2048, 2048, memory=8 * GIGABYTE, accelerator=True, offload="none")
    assert none.peak > 8 * GIGABYTE
    assert none.options.tile == 512, "a prior of 1024 pixels sees at least half of that"
    # 100 evaluations of 4.1 / 2 TFLOP a branch at 64 x 64 become 100 of 8.7 at 128 x 128 (`make bench` prints more:
    # its adaptor is the untrimmed one); and what the autoencoder takes.
    assert roomy.evaluations == 100
    assert 8e14 < roomy.operations < 1e15
    assert roomy.seconds == pytest.approx(roomy.operations / 5e13)


@pytest.mark.parametrize("kind", [None, "int8"])
@torch.no_grad()
def test_the_peak_foreseen_is_that_of_the_networks(pipeline: SupirPipeline, kind: str | None) -> None:
    """Counted while the real ones work on the processor, at sizes that were not traced."""
    unet, adaptor = (copy.deepcopy(part) for part in (pipeline.unet, pipeline.adaptor))
    if kind is not None:
        quantize_weights(unet, kind), quantize_weights(adaptor, kind)
    costs = Costs(on_meta({"autoencoder": pipeline.autoencoder, "unet": unet, "adaptor": adaptor}))
    for height, width in ((16, 16), (24, 48)):
        x, words = torch.zeros(1, 4, height, width), torch.zeros(1, 77, TRUNK["cross_attention_dim"])
        known = {"vector": torch.zeros(1, TRUNK["projection_class_embeddings_input_dim"])}

        def work(x: torch.Tensor = x, words: torch.Tensor = words, known: dict[str, torch.Tensor] = known) -> object:
            control = adaptor(x, torch.zeros(1), words, known, x)
            return unet(x, torch.zeros(1), words, added_cond_kwargs=known, control=control).sample

        work()
        assert costs.peak_of_evaluation(height, width) == pytest.approx(traced(work).peak, rel=0.15)


def test_weights_count_as_they_are_held(pipeline: SupirPipeline) -> None:
    """Those that stand for narrower ones, as torchao's; and those that are widened for each layer."""

    class Narrow:
        nbytes = 4000

        def __init__(self) -> None:
            self.data, self.scale = torch.zeros(1000, dtype=torch.int8), torch.zeros(4)

        def __tensor_flatten__(self) -> tuple[list[str], None]:
            return ["data", "scale"], None

    assert stored_bytes(Narrow()) == 1016  # type: ignore[arg-type]
    unet = copy.deepcopy(pipeline.unet)
    unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    other = tiny_pipeline(unet=unet)
    costs = other._costs()
    assert costs.networks.weights["unet"] < 0.5 * pipeline._costs().networks.weights["unet"]
    assert costs.dtype is torch.float32
    other.restore_pixels(pixels(), other.options(**(QUICK | {"memory": 4.0, "num_steps": 1})))


def test_what_does_not_fit_is_refused(pipeline: SupirPipeline) -> None:
    sentence = (
        r"^192x192 px do not fit into 0.1 GB: 0\.\d+ GB are needed with the smallest tiles .*tile [0-9]+.*supir plan"
    )
    with pytest.raises(OutOfMemoryError, match=sentence):
        pipeline(picture(192, 192), pipeline.options(**(QUICK | {"memory": 0.1})))


def test_a_preview_is_planned_with_the_autoencoder_alone(pipeline: SupirPipeline) -> None:
    alone = SupirPipeline(pipeline.autoencoder, None, None, None, None, None, None)  # type: ignore[arg-type]
    options = alone.options(**QUICK, vae_tile=192)
    given = picture(192, 192)
    passes = picked(alone._costs(), options, 192, 192, memory=None, accelerator=False)
    tight = (passes.peak - max(passes.bytes.values()) / 2) / GIGABYTE
    found = alone.preview(given, options.replace(memory=tight))
    smaller = picked(alone._costs(), options, 192, 192, memory=tight * GIGABYTE, accelerator=False).options
    assert smaller.vae_tile < 192
    assert torch.equal(found.pixels, alone.preview(given, smaller).pixels)


def test_a_restoration_keeps_to_the_plan(pipeline: SupirPipeline, costs: Costs) -> None:
    given = picture(192, 192)
    free = make_plan(costs, pipeline.options(**(QUICK | {"tile": 192})), 192, 192)
    tight = (free.peak - max(free.passes.values()) / 2) / GIGABYTE
    options = pipeline.options(**(QUICK | {"tile": 192, "memory": tight, "num_steps": 1}))
    [found] = pipeline(given, options)
    used = json.loads(found.record["options"])
    planned = make_plan(costs, options, 192, 192, memory=tight * GIGABYTE)
    assert {name: used[name] for name in ("tile", "tile_batch", "vae_tile")} == {
        name: getattr(planned.options, name) for name in ("tile", "tile_batch", "vae_tile")
    }
    assert used["vae_tile"] < 192
    assert used["memory"] == tight


def test_the_command(tmp_path: Path) -> None:
    write(picture(300, 500), tmp_path / "photo.png")
    model = save_tiny_model(tmp_path / "model")
    for weights in model.rglob("*.safetensors"):
        weights.write_bytes(b"not read")
    common = ["plan", str(tmp_path / "photo.png"), "--model", str(model), "--rate", "10", "--memory", "2.5GB"]
    common += ["--device", "cpu"]
    done = CliRunner().invoke(app, [*common, "--min-size", "64", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["working_size"] == [1024, 608]
    assert found["memory"] == 2.5e9
    assert found["peak"] <= 2.5e9
    assert found["seconds"] == pytest.approx(found["operations"] / 1e10)
    told = CliRunner().invoke(app, [*common, "--min-size", "64"])
    starts = [
        "working size: 1024x608 px",
        "dtype: float32",
        "tile: ",
        "vae_tile: ",
        "memory: ",
        "evaluations: ",
        "time: ",
    ]
    assert [start for start in starts if not any(line.startswith(start) for line in told.stdout.splitlines())] == []
    wrong = CliRunner().invoke(app, ["plan", str(tmp_path / "photo.png"), "--memory", "much"])
    assert wrong.exit_code == 2
    missing = CliRunner().invoke(app, ["plan", str(tmp_path / "none.png")])
    assert missing.exit_code == 1


def test_the_rate_is_that_of_products_and_not_of_waiting_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that multiplies in 20 microseconds, is given work in 5, and answers whoever waits for it in 200."""
    now = until = 0.0

    class Product:
        def __getitem__(self, place: object) -> Product:
            return self

        def __float__(self) -> float:
            nonlocal now
            now = max(now, until) + 200e-6
            return 0.0

    def multiplied(*_: object) -> Product:
        nonlocal now, until
        now += 5e-6
        until = max(now, until) + 20e-6
        return Product()

    monkeypatch.setattr(costs_module, "torch", SimpleNamespace(ones=lambda *_, **__: None, mm=multiplied))
    monkeypatch.setattr(costs_module, "time", SimpleNamespace(perf_counter=lambda: now))
    exact = costs_module.EFFICIENCY * 2 * costs_module.SIDE**3 / 20e-6
    assert costs_module.measured_rate("cuda", torch.float16) == pytest.approx(exact, rel=0.03)


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    (model / "unet" / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="configuration cannot be read"):
        networks_of(model, NetworkOptions())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux tells it")
@pytest.mark.parametrize(
    ("what", "tile"), [("sampling", 256), ("sampling", 512), ("decoding", 512), ("encoding", 1024)]
)
def test_the_memory_of_a_pass_is_below_the_plan_and_not_far(bundled: Costs, what: str, tile: int) -> None:
    """The bundled model in a process of its own, on a picture of 1024 pixels; measured by Linux."""
    command = [sys.executable, str(ROOT / "tests" / "planner_process.py"), what, str(tile)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    options = RestoreOptions(tile=tile, vae_tile=tile, text_guidance=2.0, text_guidance_start=2.0)
    planned = make_plan(bundled, options, 1024, 1024).passes[what] + 4 * 3 * 4 * 1024**2
    assert 0.4 * planned < json.loads(done.stdout) < planned

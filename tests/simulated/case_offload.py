"""Networks that come to the device for their work and leave it, by every way; and how often the host waits for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from simulated import device
from simulated.conftest import QUICK, fresh_pipeline, some_pixels
from supir.errors import OptionError, OutOfMemoryError
from supir.options import RestoreOptions
from supir.pipeline import SupirPipeline
from supir.planner.plan import picked
from supir.restoration import restorer as restoration
from supir.restoration.backoff import SmallerTilesWarning
from supir.sampling.solvers import Step
from supir.tensors import memory
from weights.tiny_files import tiny_lora

TILES = {"tile": 64, "vae_tile": 64, "num_steps": 2}


def where(pipeline: SupirPipeline) -> set[str]:
    """The devices on which weights lie."""
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    return {weight.device.type for part in parts for weight in part.parameters()}


@pytest.mark.parametrize(
    ("way", "more"),
    [
        ("group", {"deep_cache_every": 2}),
        pytest.param("sequential", {"deep_cache_every": 2}, marks=pytest.mark.slow),
        pytest.param("group", {"preset": "reference"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_way_makes_the_same_picture(
    way: str, more: dict[str, Any], same_as_on_the_processor: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tiles whose norms agree, deep features kept; and in the public code's lock step."""
    monkeypatch.setattr(restoration, "COMMON_NORMS_TILE", 32)
    pipeline = fresh_pipeline().place("sim", way)
    assert pipeline.offload == way
    options = pipeline.options(**(QUICK | TILES | more))
    same_as_on_the_processor(pipeline.restore_pixels(some_pixels(), options).pixels, options)
    assert "sim" not in where(pipeline)
    assert pipeline.offload == way


@pytest.mark.slow
def test_the_bundled_model_goes_by_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its autoencoder is another class, and its norms have weights of their own."""
    near = SupirPipeline.from_pretrained(dtype="float32")
    far = SupirPipeline.from_pretrained(dtype="float32", device="sim", offload="group")
    options = near.options(**QUICK)
    found, expected = (each.restore_pixels(some_pixels(), options).pixels for each in (far, near))
    assert torch.allclose(found.cpu(), expected, atol=1e-3)
    assert "sim" not in where(far)


@pytest.mark.slow
def test_one_way_follows_another(fresh: SupirPipeline, same_as_on_the_processor: Callable[..., None]) -> None:
    options = fresh.options(**QUICK)
    for way in ("group", "model", "sequential", "none", "group", "none"):
        fresh.place("sim", way)
        assert fresh.offload == way
        assert fresh._execution_device.type == "sim"
    same_as_on_the_processor(fresh.restore_pixels(some_pixels(), options).pixels, options)


@pytest.mark.parametrize("way", ["model", "group"])
def test_a_cancelled_picture_leaves_nothing_on_the_device(way: str) -> None:
    pipeline = fresh_pipeline().place("sim", way)
    options = pipeline.options(**QUICK)

    def cancel(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.restore_pixels(some_pixels(), options, on_step=cancel)
    assert "sim" not in where(pipeline)


def test_networks_that_are_not_at_work_leave(fresh: SupirPipeline) -> None:
    """Whole networks come and go: while sampling goes on the autoencoder is away, and then UNet and adaptor are."""
    fresh.place("sim", "model")
    seen: dict[str, set[str]] = {}

    def note(step: Step) -> None:
        seen["sampling"] = {name for name in ("autoencoder", "unet", "adaptor") if there(name)}

    def there(name: str) -> bool:
        return next(getattr(fresh, name).parameters()).device.type == "sim"

    decode = fresh.autoencoder.decoder.register_forward_pre_hook(
        lambda *_: seen.update(decoding={name for name in ("autoencoder", "unet", "adaptor") if there(name)})
    )
    fresh.restore_pixels(some_pixels(), fresh.options(**QUICK), on_step=note)
    decode.remove()
    assert seen == {"sampling": {"unet", "adaptor"}, "decoding": {"autoencoder"}}


def test_memory_that_runs_out_there_is_given_back(fresh: SupirPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.place("sim", "model")
    emptied: list[bool] = []
    monkeypatch.setattr(device.Accelerator, "empty_cache", staticmethod(lambda: emptied.append(True)))

    def refuse(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if given[0].numel() > 64 * 2 * 3:  # one branch of the picture
            raise RuntimeError("SIM error: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY")

    handle = fresh.unet.mid_block.register_forward_pre_hook(refuse)
    with pytest.warns(SmallerTilesWarning, match="going on with .*one branch of guidance at a time"):
        fresh.restore_pixels(some_pixels(), fresh.options(**QUICK))
    handle.remove()
    assert emptied
    assert "sim" not in where(fresh)


@pytest.mark.slow
def test_what_there_is_decides(monkeypatch: pytest.MonkeyPatch, near: SupirPipeline) -> None:
    """Unset, memory is what the device says; tiles and offload are those that the plan of the same memory has."""
    pipeline = fresh_pipeline().place("sim")
    options = pipeline.options(**(QUICK | {"tile": 96, "vae_tile": 96, "num_steps": 1}))
    whole = picked(pipeline._costs(), options, 96, 64, memory=None, accelerator=True)
    assert pipeline.offload == whole.offload == "none"
    seen = set()
    for share in (1.0, 0.5):
        there = int(whole.peak * share)
        held = sum(w.nbytes for w in _weights(pipeline) if w.device.type == "sim")
        monkeypatch.setattr(memory, "available", lambda _, free=there - held: free)
        planned = picked(pipeline._costs(), options, 96, 64, memory=there, accelerator=True)
        used = pipeline.restore_pixels(some_pixels(), options).options
        assert (used, pipeline.offload) == (planned.options, planned.offload)
        seen.add(planned.offload)
    assert "none" in seen
    assert len(seen) == 2, "with half of the memory networks leave the device"
    monkeypatch.setattr("supir.planner.plan._base", lambda *_: 2e8)
    with pytest.raises(OutOfMemoryError, match=r"^96x64 px do not fit into 0.1 GB: 0\.\d+ GB are needed"):
        pipeline.restore_pixels(some_pixels(), options.replace(memory=0.1))


def _weights(pipeline: SupirPipeline) -> list[torch.Tensor]:
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    return [each for part in parts for each in (*part.parameters(), *part.buffers())]


def test_weights_that_do_not_fit_are_offloaded_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    total = sum(each.nbytes for each in _weights(fresh_pipeline()))
    for free, way in ((2 * total, "none"), (int(1.2 * total), "model"), (total // 10, "group")):
        monkeypatch.setattr(memory, "available", lambda _, free=free: free)
        assert fresh_pipeline().place("sim").offload == way


@pytest.mark.slow
def test_who_arranges_it_is_left_alone(fresh: SupirPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.enable_model_cpu_offload(device="sim")
    monkeypatch.setattr(memory, "available", lambda _: 10**12)
    fresh.restore_pixels(some_pixels(), fresh.options(**QUICK))
    assert fresh.offload == "model"
    assert not fresh.chooses_offload


def test_there_is_nothing_to_offload_on_the_processor(fresh: SupirPipeline) -> None:
    with pytest.raises(OptionError, match="offload is 'model', and the networks run on the cpu"):
        fresh.place("cpu", "model")


@pytest.mark.parametrize(("more", "copies"), [({}, 2), ({"tile": 64}, 3), ({"preset": "reference"}, 2)], ids=str)
def test_a_step_waits_for_nothing_and_copies_little(there: SupirPipeline, more: dict[str, Any], copies: int) -> None:
    """The noise of the step, and one timestep a tile; nothing is asked of the device but for the first answer."""

    def counted(num_steps: int) -> device.Counts:
        options: RestoreOptions = there.options(**(QUICK | more | {"num_steps": num_steps}))
        with device.counted() as found:
            there.restore_pixels(some_pixels(), options)
        return found

    few, many = counted(2), counted(3)
    assert many.copies - few.copies <= copies
    assert many.waits == few.waits <= 2


@pytest.mark.slow
@pytest.mark.parametrize("way", ["none", "model", "group", "sequential"])
def test_loras_come_on_and_off_where_weights_come_and_go(way: str, tmp_path: Path) -> None:
    """The way to offload stays, and the picture is that of the processor, with and without."""
    style = str(tiny_lora(tmp_path / "style.safetensors"))
    near, far = fresh_pipeline(), fresh_pipeline().place("sim", way)
    plain = near.options(**(QUICK | TILES))
    for options in (plain.replace(lora=style), plain):
        expected, found = (each.restore_pixels(some_pixels(), options).pixels for each in (near, far))
        assert (found.cpu() - expected).abs().max() < 0.02
        assert far.offload == way
    assert ("sim" in where(far)) == (way == "none")

"""Memory that runs out makes tiles smaller: by injected errors, and by a real refusal of the operating system."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from supir.errors import OutOfMemoryError
from supir.options import RestoreOptions
from supir.pipeline import SupirPipeline
from supir.restoration.backoff import SmallerTilesWarning, smaller_tiles, smaller_vae_tile
from test_pipeline import picture
from tiny import tiny_pipeline

ROOT = Path(__file__).parents[1]
QUICK = {"min_size": 64, "scale": 1.0, "num_steps": 2, "text_guidance": 2.0, "text_guidance_start": "off"}
ALLOCATOR = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried")


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    return tiny_pipeline()


@contextmanager
def limited(module: nn.Module, values: int, error: Exception) -> Iterator[None]:
    """``module`` refuses inputs of more than so many values, as if memory ran out."""

    def refuse(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        if given[0].numel() > values:
            raise error

    handle = module.register_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("error", [ALLOCATOR, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_sampling_goes_on_with_smaller_batches_then_tiles(pipeline: SupirPipeline, error: Exception) -> None:
    """Two branches of 4 channels: 512 values are one tile of 64 pixels."""
    given = picture(128, 128)
    options = pipeline.options(**QUICK, tile=128, tile_batch=2, deep_cache_every=2)
    with (
        limited(pipeline.unet.mid_block, 2 * 64 * 2 * 2, error),
        pytest.warns(SmallerTilesWarning, match="memory ran out with tile 128") as caught,
    ):
        [found] = pipeline(given, options)
    # tile_batch 2 to 1, one branch of guidance at a time, tile 128 to 64: each once, not at each step.
    assert len(caught) == 3
    assert "one branch of guidance at a time" in str(caught[1].message)
    used = json.loads(found.record["options"])
    assert (used["tile"], used["tile_batch"], used["vae_tile"]) == (64, 1, options.vae_tile)
    [asked] = pipeline(given, options.replace(tile=64, tile_batch=1))
    assert torch.allclose(found.picture.pixels, asked.picture.pixels, atol=1e-4)


def test_branches_go_apart_before_tiles_become_smaller(pipeline: SupirPipeline) -> None:
    """One row of a tile of 128 pixels is 1024 values in the middle block; without guidance there is nothing to part."""
    given, options = picture(128, 128), pipeline.options(**QUICK)
    with (
        limited(pipeline.unet.mid_block, 64 * 4 * 4, ALLOCATOR),
        pytest.warns(SmallerTilesWarning, match="one branch of guidance at a time") as caught,
    ):
        [found] = pipeline(given, options)
    assert len(caught) == 1
    asked = dataclasses.asdict(options)
    assert asked.pop("marking"), "the one option that no record holds"
    assert json.loads(found.record["options"]) == asked
    [together] = pipeline(given, options)
    assert torch.allclose(found.picture.pixels, together.picture.pixels, atol=1e-4)
    with (
        limited(pipeline.unet.mid_block, 64 * 4 * 4 - 1, ALLOCATOR),
        pytest.warns(SmallerTilesWarning, match="going on with tile 64, tile_batch 1, vae_tile [0-9]*$") as caught,
    ):
        pipeline(given, options.replace(text_guidance=1.0))
    assert len(caught) == 1


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_autoencoder_goes_on_with_smaller_tiles(pipeline: SupirPipeline, part: str) -> None:
    given, options = picture(128, 128), pipeline.options(**QUICK)
    values = 3 * 64 * 64 if part == "encoder" else 4 * 8 * 8
    with (
        limited(getattr(pipeline.autoencoder, part), values, ALLOCATOR),
        pytest.warns(SmallerTilesWarning, match="going on with .*vae_tile 64"),
    ):
        [found] = pipeline(given, options)
    used = json.loads(found.record["options"])
    assert (used["tile"], used["vae_tile"]) == (options.tile, 64)
    assert found.picture.pixels.shape == (3, 128, 128)


def test_what_does_not_help_ends_with_a_sentence(pipeline: SupirPipeline) -> None:
    with (
        limited(pipeline.unet.mid_block, 0, ALLOCATOR),
        pytest.warns(SmallerTilesWarning),
        pytest.raises(OutOfMemoryError, match=r"tiles as small as they get .*tile 64") as caught,
    ):
        pipeline(picture(128, 128), **QUICK)
    assert isinstance(caught.value, MemoryError)


def test_a_part_without_tiles_ends_with_a_sentence(pipeline: SupirPipeline) -> None:
    tower = next(layer for layer in pipeline.text_encoder.modules() if isinstance(layer, nn.Linear))
    sentence = r"^memory ran out in restoring: Invalid buffer size: 9 GB; choose .*offload"
    with (
        limited(tower, 0, RuntimeError("Invalid buffer size: 9 GB")),
        pytest.raises(OutOfMemoryError, match=sentence),
    ):
        pipeline(picture(64, 64), **QUICK)


def test_other_errors_are_not_taken_for_it(pipeline: SupirPipeline) -> None:
    error = RuntimeError("shapes cannot be multiplied")
    with limited(pipeline.unet.mid_block, 0, error), pytest.raises(RuntimeError, match="cannot be multiplied"):
        pipeline(picture(64, 64), **QUICK)


def test_halving_starts_at_the_picture_and_ends_at_64_pixels() -> None:
    options = RestoreOptions(tile=1024, tile_batch=3, tile_overlap=500, vae_tile=4096)
    assert (found := smaller_tiles(options, 600)) is not None
    assert (found.tile, found.tile_batch) == (1024, 1)
    assert (found := smaller_tiles(found, 600)) is not None
    assert (found.tile, found.tile_overlap) == (300, 150)
    assert smaller_tiles(options.replace(tile_batch=1), 127) is None
    assert (found := smaller_vae_tile(options, 600)) is not None
    assert found.vae_tile == 300
    assert smaller_vae_tile(options, 127) is None
    apart = RestoreOptions(vae_tile=512, decoder_tile=2048)
    for wanted in ((512, 750), (375, 375), (187, 187)):
        smaller = smaller_vae_tile(apart, 1500)
        assert smaller is not None
        assert (smaller.vae_tile, smaller.decoder_tile) == wanted
        apart = smaller


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_the_operating_system_refuses_memory() -> None:
    """The bundled model may map 120 MB more when sampling begins, and the picture is made all the same."""
    command = [sys.executable, str(ROOT / "tests" / "limited_memory_process.py"), "120"]
    # One thread, since a second one's stack and arena would be mapped when it starts. What is freed is unmapped at
    # once, so that the limit does not depend on what the steps before have left behind.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    environment |= {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    assert found["warnings"]
    assert found["shape"] == [1, 3, 640, 640]
    assert found["used"]["tile_batch"] < 16

"""How much of the work is done, and what it will take, without networks that are built for it."""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

from one_thread import one_thread
from supir.image import write
from supir.jobs import Model
from supir.options import NetworkOptions, restore_options
from supir.pipeline import SupirPipeline
from supir.planner import kept
from supir.planner.costs import Costs, networks_of, on_meta
from supir.planner.kept import KeptCosts
from supir.planner.plan import Passes, make_plan
from supir.restoration import streaming
from supir.restoration.work import BEGUN, Reached, Work
from supir.service.http.estimates import Estimates
from supir.weights.model_folder import BUNDLED_MODEL
from test_pipeline import picture
from tiny import save_tiny_model, tiny_pipeline

PHOTO = Path(__file__).parents[1] / "examples" / "photo.jpg"
QUICK: dict[str, Any] = {"min_size": 64, "num_steps": 2, "tile": 64, "vae_tile": 64, "scale": 1.0, "text_guidance": 1.0}


@pytest.mark.parametrize("large", [pytest.param(10**9, marks=pytest.mark.slow), 1000])
def test_every_tile_step_and_band_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(streaming, "LARGE", large)
    write(picture(96, 160), tmp_path / "in.png")
    told: list[Reached] = []
    parts: dict[str, list[float]] = {}
    at = Work.at

    def noted(self: Work, part: str, share: float) -> None:
        parts.setdefault(part, []).append(share)
        at(self, part, share)

    monkeypatch.setattr(Work, "at", noted)
    tiny_pipeline().restore_file(tmp_path / "in.png", tmp_path / "out.png", on_work=told.append, **QUICK)
    shares = [reached.share for reached in told]
    assert list(parts) == ["encoding", "preview", "anchor", "sampling", "decoding", "writing"]
    assert all(found[-1] == 1.0 for found in parts.values())
    assert all(len(parts[part]) > 2 for part in ("encoding", "preview", "anchor", "sampling", "decoding"))
    assert shares == sorted(shares)
    assert told[0] == Reached(BEGUN)
    assert told[-1] == Reached(1.0, 0.0, previewed=large == 1000, steps=1.0)
    assert {reached.steps for reached in told} == {0.0, 0.5, 1.0}


def test_what_is_there_already_is_no_work() -> None:
    told: list[Reached] = []
    work = Work({"encoding": 6.0, "sampling": 3.0, "writing": 1.0}, told.append, pace=0.5, clock=lambda: 0.0)
    work.skip(["encoding"])
    assert [reached.seconds_left for reached in told] == [20.0, 8.0]


@pytest.mark.parametrize(("width", "height"), [(225, 150), (2000, 1500), (9000, 6000)])
def test_a_clean_preview_is_as_large_as_its_time_allows(
    width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimates, options = Estimates(Model(devices=("cpu",))), restore_options("quality", scale=2.0, min_size=256)
    monkeypatch.setattr(Estimates, "_rate", lambda self: 1.6e11)  # of two cores
    monkeypatch.setattr("supir.service.http.estimates._PATIENCE", 0.0)
    with estimates._lock:  # as while it counts
        assert estimates.preview_scale(width, height, options, 4.0) == 2.0, "nobody waits"
    assert estimates._prepared.wait(60)
    scale = estimates.preview_scale(width, height, options, 4.0)
    work = estimates._work(width, height, options.replace(scale=scale))
    seconds = (work["encoding"] + work["preview"]) / 1.6e11
    assert seconds <= 4.0
    assert scale == 2.0 or seconds > 2.8
    assert estimates.preview_scale(width, height, options, 0.5) * max(width, height) >= 384
    monkeypatch.setattr(Estimates, "_rate", lambda self: None)
    assert estimates.preview_scale(width, height, options, 4.0) == 2.0, "where nothing is known nothing is lowered"


def test_operations_of_three_sizes_tell_those_of_all() -> None:
    components = tiny_pipeline().components
    costs = Costs(on_meta({name: part for name, part in components.items() if isinstance(part, nn.Module)}))
    for height, width in ((24, 40), (64, 96)):
        whole = costs.evaluate(1, height, width, False, "whole").operations
        assert costs.operations_of_evaluation(height, width, False, "whole") == pytest.approx(whole, rel=1e-6)
        entering = costs.encode(8 * height, 8 * width, True).operations
        assert costs.operations_of_encoding(8 * height, 8 * width, True) == pytest.approx(entering, rel=1e-6)
        leaving = costs.decode(height, width).operations
        assert costs.operations_of_decoding(height, width) == pytest.approx(leaving, rel=1e-6)


def test_the_bundled_models_costs_come_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run ``python -m supir.planner.kept`` after a change of the model or the networks."""
    fresh = Costs(networks_of(BUNDLED_MODEL, NetworkOptions()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept, "networks_of", lambda *_: pytest.fail("built"))
    costs = KeptCosts(BUNDLED_MODEL, NetworkOptions())
    options = restore_options("quality", tile=512, num_steps=1, vae_tile=1536)
    for width, height in ((480, 320), (6016, 4032)):
        known, traced = (make_plan(each, options, width, height, rate=1e9) for each in (costs, fresh))
        assert known == traced


def test_costs_are_traced_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = save_tiny_model(tmp_path / "model")
    options = restore_options("fast", tile=256, vae_tile=256)
    first = Passes(KeptCosts(folder, NetworkOptions()), options, 320, 256)
    found = first.operations(), first.peak
    monkeypatch.setattr(kept, "networks_of", lambda *_: pytest.fail("built"))
    again = Passes(KeptCosts(folder, NetworkOptions()), options, 320, 256)
    assert (again.operations(), again.peak) == found


@pytest.mark.slow
def test_the_time_left_is_right_within_a_third_from_the_first_tenth_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the bundled model, in this process's own time, which goes on no faster where others work beside it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # so that nothing tells but the pictures restored here
    monkeypatch.setattr("supir.pipeline.Work", partial(Work, clock=time.process_time))
    pipeline = SupirPipeline.from_pretrained()
    with one_thread():
        for size, scale in (((300, 200), 2.0), ((420, 280), 2.0), ((1000, 700), 1.0)):
            example = Image.open(PHOTO).convert("RGB").resize(size)
            example.save(tmp_path / "in.png")
            told: list[tuple[float, Reached]] = []
            begun = time.process_time()
            pipeline.restore_file(
                tmp_path / "in.png",
                tmp_path / "out.png",
                scale=scale,
                on_work=lambda reached, told=told: told.append((time.process_time(), reached)),  # type: ignore[misc]
            )
            end = time.process_time()
            wrong = []
            for (when, reached), (then, _) in pairwise(told):
                for now in np.linspace(when, then, 9)[:-1]:
                    left, true = reached.after(now - when).seconds_left, end - now
                    if now > begun + 0.1 * (end - begun) and left is not None:
                        wrong.append(abs(left - true) / max(true / 3, 0.05 * (end - begun), 0.5))
            print(f"{size} at {scale}: {end - begun:.1f} s; at worst {max(wrong):.2f} of what is allowed")
            assert max(wrong) < 1

"""What comes of a photo before anything is sampled is made once for several versions of it, and changes none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from service.serving import QUICK, picture
from supir.options import RestoreOptions
from supir.pipeline import SupirPipeline
from supir.restoration.encoding import OF_SAMPLING, LastEncoding
from tiny import save_tiny_model


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> SupirPipeline:
    loaded = SupirPipeline.from_pretrained(save_tiny_model(tmp_path_factory.mktemp("weights") / "tiny"))
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture
def made(pipeline: SupirPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often the autoencoder was asked."""
    asked = Counter[str]()
    for name in ("encode", "encode_degraded", "decode"):
        original = getattr(pipeline.autoencoder, name)

        def counted(*given: Any, _name: str = name, _original: Any = original, **more: Any) -> Any:
            asked[_name] += 1
            return _original(*given, **more)

        monkeypatch.setattr(pipeline.autoencoder, name, counted)
    yield asked
    pipeline.last_encoding = None


def test_versions_of_a_photo_are_encoded_once(pipeline: SupirPipeline, made: Counter[str], tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    asked = [(1, {}), (1, {"seed": 3}), (1, {"preset": "fidelity"}), (2, {}), (1, {"seed": 3}), (1, {"scale": 2.0})]

    def all_of_them() -> list[Any]:
        found = []
        for number, more in asked:
            options = pipeline.options(**{**QUICK, **more})
            previews: list[Any] = []
            [one] = pipeline(tmp_path / f"{number}.png", options, on_preview=previews.append)
            found.append((one.picture.pixels, one.preview.pixels, previews[0].pixels))
        return found

    alone = all_of_them()
    each = dict(made)
    assert each["encode_degraded"] == len(asked)
    made.clear()
    pipeline.last_encoding = LastEncoding()
    kept = all_of_them()
    assert made == {"encode_degraded": 4, "encode": 4, "decode": each["decode"] - 2}  # two of six were there already
    for one, other in zip(alone, kept, strict=True):
        assert all(torch.equal(*both) for both in zip(one, other, strict=True))


def test_nothing_is_kept_where_it_must_not_be() -> None:
    last, pixels = LastEncoding(), torch.zeros(1, 3, 8, 8)
    for wrong in ({"reference_quirks": True}, {"memory": 1.0}):
        assert last.once(pixels, RestoreOptions.silent(**wrong), torch.float32) is None
    assert set(RestoreOptions.fields()) >= OF_SAMPLING
    for heard in ("vae_tile", "detail", "min_size", "salvage"):
        assert heard not in OF_SAMPLING

"""The two tiles of the autoencoder: what is encoded and what is decoded at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from supir.image import Picture, resize, write
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.options.crop import Crop
from supir.pipeline import SupirPipeline
from supir.restoration.restorer import Restorer
from tiny import tiny_components, tiny_pipeline

FACTOR = 8


def largest(pipeline: SupirPipeline, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[int, int]:
    """The longest sides, in pixels, of what the autoencoder is given to encode and to decode."""
    coder: Any = tiny_components()["autoencoder"]
    seen: dict[str, int] = {"encode_degraded": 0, "decode": 0}
    for name, unit in (("encode_degraded", 1), ("decode", FACTOR)):
        real = getattr(type(coder), name)

        def watched(self: Any, given: Tensor, *more: Any, name: str = name, unit: int = unit, real: Any = real) -> Any:
            seen[name] = max(seen[name], *(side * unit for side in given.shape[-2:]))
            return real(self, given, *more)

        monkeypatch.setattr(type(coder), name, watched)
    pipeline.preview_pixels(torch.zeros(1, 3, 256, 256), pipeline.options(min_size=64, **options))
    monkeypatch.undo()
    return seen["encode_degraded"], seen["decode"]


def test_each_of_the_two_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = tiny_pipeline()
    assert largest(pipeline, monkeypatch, vae_tile=128) == (128, 128)
    assert largest(pipeline, monkeypatch, vae_tile=128, decoder_tile=256) == (128, 256)
    assert largest(pipeline, monkeypatch, vae_tile=256, decoder_tile=64) == (256, 64)


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize(("scale", "zoom"), [(0.5, 1), (1.0, 4), (2.0, 2), (4.0, 1)])
def test_a_network_that_sees_best_what_is_enlarged_four_times_is_shown_it_so(
    scale: float, zoom: int, again: bool
) -> None:
    torch.manual_seed(0)
    coder = ThinAutoencoder(
        4, (4, 8), (1, 1), decoder_widths=(4, 8), decoder_blocks=(1, 1), dense_blocks=1, sees_finer=again
    )
    pipeline = tiny_pipeline(autoencoder=coder.eval().requires_grad_(False))
    pixels = resize(torch.rand(1, 3, 16, 16) * 2 - 1, 64, 64)
    found = pipeline.preview_pixels(pixels, pipeline.options(min_size=64, scale=scale, see_larger=True))
    expected = coder.decode(coder.encode_degraded(pixels, zoom=zoom).latent_dist.mode()).sample
    torch.testing.assert_close(found, expected)
    others = [coder.encode_degraded(pixels, zoom=other).latent_dist.mode() for other in {1, 2, 4} - {zoom}]
    assert not any(torch.allclose(coder.decode(other).sample, found, atol=1e-3) for other in others)


def test_what_the_working_size_enlarges_is_not_enlarged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what a model has enlarged before: what counts are the pixels that the photo has, not ``scale``."""
    coder = ThinAutoencoder(4, (4, 8), (1, 1), decoder_widths=(4, 8), decoder_blocks=(1, 1), dense_blocks=1)
    pipeline = tiny_pipeline(autoencoder=coder.eval().requires_grad_(False))
    zooms: list[int] = []
    encode = coder.encode_degraded
    monkeypatch.setattr(
        coder, "encode_degraded", lambda *of, zoom=1, **how: zooms.append(zoom) or encode(*of, zoom=zoom, **how)
    )
    photo = Picture(pixels=torch.rand(3, 16, 16) * 2 - 1)
    for size in (64, 32, 16):
        pipeline.preview(photo, scale=1.0, min_size=size, see_larger=True)
    pipeline(photo, scale=1.0, min_size=64, see_larger=True)
    pipeline.preview(photo, scale=1.0, min_size=16)  # unasked, it is seen as it is
    assert zooms == [1, 2, 4, 1, 1]
    assert pipeline.fitted(photo, pipeline.options(scale=4.0, min_size=16)).enlargement == 4.0


def test_a_part_of_a_photo_is_shown_as_the_whole_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    coder = ThinAutoencoder(4, (4, 8), (1, 1), decoder_widths=(4, 8), decoder_blocks=(1, 1), dense_blocks=1)
    pipeline = tiny_pipeline(autoencoder=coder.eval().requires_grad_(False))
    monkeypatch.setattr("supir.restoration.restorer.LARGE", 200 * 200)
    zooms: list[int] = []
    encode = coder.encode_degraded
    monkeypatch.setattr(
        coder, "encode_degraded", lambda *of, zoom=1, **how: zooms.append(zoom) or encode(*of, zoom=zoom, **how)
    )
    photo = Picture(pixels=torch.rand(3, 256, 256) * 2 - 1)
    write(photo, tmp_path / "photo.png")
    options = pipeline.options(scale=1.0, min_size=64, see_larger=True)
    pipeline.preview(photo, options)
    pipeline.preview_crop(tmp_path / "photo.png", tmp_path / "part.png", Crop(0, 0, 64, 64), options)
    assert zooms == [2, 2]


def test_a_large_photo_is_shown_half_as_large_at_its_own_size() -> None:
    tiny = tiny_pipeline()
    coder = ThinAutoencoder(4, dense_blocks=1, sees_finer=True)
    options = tiny.options(scale=1.0, see_larger=True)
    restorer = Restorer(autoencoder=coder, unet=tiny.unet, adaptor=tiny.adaptor, options=options)
    assert restorer.zoom(1024, 1024) == 4
    assert restorer.zoom(1024, 1040) == 2

"""Regions: what is protected stays to the bit, dials and prompts act inside and not outside."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from picture_files import smooth
from supir.errors import OptionError
from supir.image import Kept, check_masks, read, resize, shares_of, write
from supir.jobs.job import settings_sha256
from supir.jobs.manifest import read_manifest
from supir.jobs.model import Model
from supir.options import IdleOptionWarning, RestoreOptions, restore_options
from supir.options.regions import INLINE, joined_regions, split_regions
from supir.pipeline import SupirPipeline
from supir.restoration import streaming
from supir.service.limits import Limits
from supir.service.validation import checked_picture, chosen_options
from tiny import tiny_pipeline

QUICK: dict[str, Any] = {"min_size": 64, "num_steps": 1, "scale": 1.0, "color_fix": "none", "region_edge": 4}
LEFT = "0,0,50%,100%"


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    return tiny_pipeline()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(smooth(64, 128)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def painted(width: int = 32, height: int = 16) -> Image.Image:
    """White on its left half."""
    values = np.zeros((height, width), np.uint8)
    values[:, : width // 2] = 255
    return Image.fromarray(values)


def written(mask: Image.Image) -> str:
    """As a page hands it in."""
    stream = io.BytesIO()
    mask.save(stream, "PNG")
    return INLINE + base64.b64encode(stream.getvalue()).decode()


def test_regions_are_read_and_written_alike() -> None:
    text = "1,2,30,40%; protect | sky.png; only=preview; prompt=a sky, blue; detail=0.3; restoration_guidance=off"
    found = split_regions(text)
    assert split_regions(joined_regions(found)) == found
    assert [(each.keep, each.only) for each in found] == [("input", False), ("preview", True)]
    assert dict(found[1].dials) == {"prompt": "a sky, blue", "detail": "0.3", "restoration_guidance": "off"}
    assert split_regions("C:\\masks\\a.png; protect")[0].mask == "C:\\masks\\a.png"
    assert split_regions(f"{written(painted())}; detail=0")[0].mask == written(painted())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sky.png", "says nothing of its place"),
        ("sky.png; protect; only", "more than one"),
        ("sky.png; protect; detail=0.2", "detail cannot act there"),
        ("sky.png; sharpness=2", "says 'sharpness=2'"),
        ("sky.png; detail=2", "detail is 2.0; it must be a number from 0 to 1"),
        ("sky.png; control_scale=much", "control_scale is 'much'"),
        ("a.png; only | b.png; only=preview", "only=input and another only=preview"),
        ("; protect", "does not say where"),
        (" | ".join(["sky.png; protect"] * 17), "17 regions; 16 are allowed"),
    ],
)
def test_what_is_no_region_is_refused(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        RestoreOptions(region=text)


@pytest.mark.parametrize("large", [10**9, 1000], ids=["in memory", "in strips"])
@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_protected_stays_to_the_bit(
    large: int, bits: int, pipeline: SupirPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LARGE", large)
    photo = tmp_path / ("photo.png" if bits == 8 else "photo.tif")
    values = smooth(64, 128)
    pixels = read(_saved(values, tmp_path / "photo.png"))
    if bits == 16:
        write(replace(pixels, bits=16, pixels=(pixels.pixels + 3e-5).clamp(-1, 1)), photo)
    painted().save(tmp_path / "mask.png")

    def made(region: str, **more: Any) -> Tensor:
        options = QUICK | {"region": region} | more
        options |= {} if region else {"region_edge": None}
        pipeline.restore_file(photo, tmp_path / "made.tif", preview=tmp_path / "seen.tif", **options)
        return read(tmp_path / "made.tif").pixels

    own, plain = read(photo).pixels, made("")
    preview = read(tmp_path / "seen.tif").pixels
    assert min((plain - own).abs().max(), (plain - preview).abs().max()) > 0.1
    mask = tmp_path / "mask.png"
    region = f"{mask}; protect" if bits == 8 else "64,0,64,64; only"
    kept = made(region)
    assert torch.equal(kept[..., :64], own[..., :64])
    assert torch.equal(kept[..., 72:], plain[..., 72:])
    kept = made(f"{LEFT}; protect=preview | 100,0,28,64; protect", keep_grain=0.5)
    assert torch.equal(kept[..., :64], preview[..., :64])
    assert torch.equal(kept[..., 100:], own[..., 100:])


def _saved(values: np.ndarray[Any, Any], path: Path) -> Path:
    Image.fromarray(values).save(path)
    return path


def test_around_what_is_protected_it_fades(pipeline: SupirPipeline) -> None:
    options = pipeline.options(region=f"{LEFT}; protect", region_edge=20, scale=1.0)
    kept = Kept.of(options, (64, 128), (64, 128))
    assert kept is not None
    weight = kept.weight("input", slice(0, 64))
    assert weight is not None
    row = weight[30]
    assert bool((row[:64] == 1).all())
    assert bool((row[86:] == 0).all())
    steps = row[63:87].diff()
    assert bool((steps <= 0).all())
    assert steps.abs().max() < 0.11  # no step that is seen
    bands = [kept.weight("input", slice(top, top + 16)) for top in range(0, 64, 16)]
    assert torch.equal(torch.cat([each for each in bands if each is not None]), weight)


def test_at_another_size_what_is_protected_is_the_photo_enlarged(pipeline: SupirPipeline, photo: Path) -> None:
    options = QUICK | {"scale": 2.0, "region": f"{LEFT}; protect"}
    [made] = pipeline(photo, **options)
    own = resize(read(photo).pixels, 128, 256)
    assert torch.equal(made.picture.pixels[..., :128], own[..., :128])


DIALS = {
    "prompt": {"region": f"{LEFT}; prompt=a cat"},
    "control": {"region": f"{LEFT}; control_scale=0.7"},
    "pull": {"region": f"{LEFT}; restoration_guidance=0.5"},
    "detail": {"region": f"{LEFT}; detail=0"},
}


@pytest.mark.parametrize("dial", DIALS)
def test_a_dial_acts_inside_and_not_outside(dial: str, pipeline: SupirPipeline, photo: Path) -> None:
    """Against the whole with that dial inside, against the whole without it outside."""
    more = {"text_guidance": 3.0, "restoration_guidance": 2.0, "s_churn": 0.0, "num_steps": 3}

    def made(**options: Any) -> Tensor:
        pixels = read(photo).pixels[None]
        return pipeline.restore_pixels(pixels, pipeline.options(**QUICK | more | options)).latent

    plain, region = made(), made(**DIALS[dial])
    everywhere = made(region=DIALS[dial]["region"].replace(LEFT, "0,0,100%,100%"))
    change = (region - plain).abs().mean((0, 1, 2))
    width = len(change)
    near, far = change[: width // 2 - 2].mean(), change[width // 2 + 2 :].mean()
    print(f"{dial}: changed by {near:.4f} inside, {far:.4f} outside")
    assert near > 0.01
    assert far < 0.03 * near
    left = slice(0, width // 2 - 2)
    assert (region - everywhere)[..., left].abs().mean() < 0.5 * (plain - everywhere)[..., left].abs().mean()


def test_a_region_over_all_is_the_options_themselves(pipeline: SupirPipeline, photo: Path) -> None:
    pixels = read(photo).pixels[None]
    base = pipeline.options("quality", **QUICK | {"num_steps": 2})
    for name, value in (("prompt", "a cat"), ("control_scale", 0.4), ("restoration_guidance", 1.0)):
        whole = pipeline.restore_pixels(pixels, base.replace(**{name: value})).latent
        region = pipeline.restore_pixels(pixels, base.replace(region=f"0,0,100%,100%; {name}={value}")).latent
        torch.testing.assert_close(region, whole, atol=2e-4, rtol=1e-3)


def test_connectors_of_regions_are_answered_apart_in_tiles_and_with_caches(pipeline: SupirPipeline) -> None:
    """Beside a prompt of its own, under both branches of guidance, together and one at a time."""
    pixels = torch.rand(1, 3, 64, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1
    known = QUICK | {"prompt": "a dog", "tile": 64, "num_steps": 2, "text_guidance": 3.0, "control_scale": 0.5}
    both = "0,0,30%,100%; control_scale=0.9; prompt=a cat"
    for more in ({"tile_batch": 3}, {"adaptor_every": 2, "deep_cache_every": 2}, {"control_scale_start": 0.2}):
        base = pipeline.options(**known | more)
        same = base.replace(region="0,0,30%,100%; control_scale=0.5")
        plain = pipeline.restore_pixels(pixels, base).latent
        torch.testing.assert_close(pipeline.restore_pixels(pixels, same).latent, plain, atol=2e-4, rtol=1e-3)
        inside = pipeline.restore_pixels(pixels, base.replace(region=both, region_edge=0)).latent
        whole = pipeline.restore_pixels(pixels, base.replace(control_scale=0.9, prompt="a cat")).latent
        assert (inside - plain)[..., 12:].abs().mean() < 0.05 * (whole - plain)[..., 12:].abs().mean()
        assert (inside - whole)[..., :2].abs().mean() < 0.2 * (plain - whole)[..., :2].abs().mean()


def test_tiles_and_caches_know_of_prompts(pipeline: SupirPipeline) -> None:
    """In tiles, with features kept, one branch at a time: the same prompt in a region is the prompt itself."""
    pixels = torch.rand(1, 3, 64, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for more in ({"num_steps": 1, "tile_batch": 3}, {"num_steps": 2, "adaptor_every": 2, "deep_cache_every": 2}):
        base = pipeline.options(**QUICK | {"prompt": "a dog", "tile": 64, **more})
        plain = pipeline.restore_pixels(pixels, base).latent
        same = pipeline.restore_pixels(pixels, base.replace(region="0,0,30%,100%; prompt=a dog")).latent
        torch.testing.assert_close(same, plain, atol=2e-4, rtol=1e-3)
        other = pipeline.restore_pixels(pixels, base.replace(region="0,0,30%,100%; prompt=a cat")).latent
        assert (other - plain).abs().max() > 0.01


def test_later_regions_lie_on_earlier_ones() -> None:
    options = restore_options(region="0,0,64,64; detail=0 | 32,0,64,64; detail=1", region_edge=0)
    shares = shares_of(options, 128, 64, (64, 128), (64, 128), 8)
    assert shares is not None
    assert shares[0, 0].tolist() == [1] * 4 + [0] * 12
    assert shares[1, 0].tolist() == [0] * 4 + [1] * 8 + [0] * 4


def test_what_acts_nowhere_is_told() -> None:
    for text, said in (
        (f"{LEFT}; restoration_guidance=2", "region 1: restoration_guidance 2.0 has no effect"),
        ("", "region_edge 3 has no effect: there is no region"),
    ):
        with pytest.warns(IdleOptionWarning, match=said):
            restore_options("quality", solver="reference_dpmpp_2m", region=text or None, region_edge=3)


def test_masks_are_checked_before_the_work(photo: Path, tmp_path: Path) -> None:
    painted(16, 32).save(tmp_path / "tall.png")
    bomb = written(Image.new("1", (6000, 3000)))
    for region, said in (
        (str(tmp_path / "tall.png"), "16 x 32 pixels and the photo 128 x 64"),
        ("none.png", "none.png"),
        (bomb, "6000 x 3000 pixels is written as text; 4 megapixels"),
        (INLINE + "AAAA", "the mask that is written as text"),
        (INLINE + "A", "not base64"),
        ("200,0,10,10", None),
    ):
        options = restore_options(region=f"{region}; protect")
        if said is not None:
            with pytest.raises(OptionError, match=said):
                check_masks(options, 128, 64)
    with pytest.raises(OptionError, match="outside of the photo, which is 128 x 64"):
        Kept.of(options, (64, 128), (64, 128)).weight("input", slice(0, 64))  # type: ignore[union-attr]


def test_a_service_takes_rectangles_and_painted_masks_alone(photo: Path) -> None:
    with pytest.raises(OptionError, match="a service opens none of its own"):
        chosen_options({"region": "/etc/passwd; protect"}, Model())
    options, own, _ = chosen_options({"blend": "0.5", "blend_mask": INLINE + "AAAA"}, Model())
    with pytest.raises(OptionError, match="the mask that is written as text"):
        checked_picture(photo, "photo.png", options, Limits(), None, own)
    text = f"{written(painted())}; protect"
    assert chosen_options({"region": text}, Model())[0].region == text
    assert chosen_options({"blend_mask": written(painted()), "blend": "0.5"}, Model())[0].blend == 0.5


def test_a_batch_and_its_manifest_know_masks(tmp_path: Path) -> None:
    painted().save(tmp_path / "a.png")
    (tmp_path / "list.jsonl").write_text('{"path": "p.png", "region": "a.png; protect | 1,2,3,4; detail=0"}\n')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdleOptionWarning)
        [item] = read_manifest(tmp_path / "list.jsonl", restore_options)
    assert split_regions(item.options.region)[0].mask == str(tmp_path / "a.png")
    before = settings_sha256(item.options, {})
    painted(64, 32).save(tmp_path / "a.png")
    assert settings_sha256(item.options, {}) != before
    assert settings_sha256(restore_options(), {}) == settings_sha256(restore_options(region_edge=16), {})

"""Each criterion on pictures that fail it alone, and the duplicates against a plain comparison of all with all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from data.photographs import RULES, photo, save
from supir.data import quality
from supir.data.filtering import judge, measure
from supir.data.options import BuildOptions, QualityRules
from supir.data.pixels import Pixels
from supir.data.sources import find_photographs
from supir.errors import OptionError


def reasons(folder: Path, pixels: Pixels, options: BuildOptions | None = None, name: str = "x.png") -> tuple[str, ...]:
    save(folder / name, pixels)
    return reasons_in(folder, options)[-1]


def reasons_in(folder: Path, options: BuildOptions | None = None) -> list[tuple[str, ...]]:
    options = options or BuildOptions(rules=RULES)
    measured = [measure(source, options) for source in find_photographs([folder])]
    return [verdict.reasons for verdict in judge(measured, options)]


def recompressed(pixels: Pixels, quality: int) -> Pixels:
    import io

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def test_a_good_photograph_is_kept(tmp_path: Path) -> None:
    assert reasons(tmp_path, photo()) == ()


def test_small(tmp_path: Path) -> None:
    assert reasons(tmp_path, photo(height=63, width=128)) == ("small",)
    assert reasons(tmp_path, photo(height=64, width=128)) == ()
    assert reasons(tmp_path, photo(), BuildOptions(rules=RULES, reduce=2)) == ("small",)
    assert reasons(tmp_path, photo(), BuildOptions(rules=RULES, tile=97)) == ("small",)


def test_elongated(tmp_path: Path) -> None:
    assert reasons(tmp_path, photo(height=64, width=257)) == ("elongated",)
    assert reasons(tmp_path, photo(height=256, width=64)) == ()


def test_blurred(tmp_path: Path) -> None:
    blurred = np.asarray(Image.fromarray(photo()).filter(ImageFilter.GaussianBlur(1.5)))
    assert reasons(tmp_path, blurred) == ("blurred",)


def test_flat(tmp_path: Path) -> None:
    pixels = photo(height=160, width=160)
    pixels[32:] = 90  # four fifths of the blocks; the rest keeps the picture sharp
    assert reasons(tmp_path, pixels) == ("flat",)
    lenient = BuildOptions(rules=QualityRules(min_side=64, max_flat_share=0.8))
    assert reasons(tmp_path, pixels, lenient) == ()


@pytest.mark.parametrize("shift", [(0, 0), (3, 5)])
def test_overcompressed_by_its_grid_though_stored_without_loss(tmp_path: Path, shift: tuple[int, int]) -> None:
    pixels = recompressed(photo(height=256, width=256), 10)[shift[0] :, shift[1] :]
    rules = QualityRules(min_side=64, min_sharpness=None, max_flat_share=None)
    assert reasons(tmp_path, np.ascontiguousarray(pixels), BuildOptions(rules=rules)) == ("overcompressed",)


def test_overcompressed_by_its_tables_alone(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(_jpeg(photo(), 55))
    rules = QualityRules(min_side=64, max_blockiness=None)
    assert reasons_in(tmp_path, BuildOptions(rules=rules)) == [("overcompressed",)]
    (tmp_path / "x.jpg").write_bytes(_jpeg(photo(), 65))
    assert reasons_in(tmp_path, BuildOptions(rules=rules)) == [()]


def _jpeg(pixels: Pixels, quality: int) -> bytes:
    import io

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def test_a_wall_with_lines_along_one_axis_is_not_overcompressed() -> None:
    levels = quality.grey(photo(height=128, width=128)).astype(int)
    levels[:, ::8] -= 60
    assert quality.blockiness(np.clip(levels, 0, 255).astype(np.uint8)) < 1.2


@pytest.mark.parametrize("asked", [20, 40, 60, 75, 90, 97])
def test_jpeg_quality_is_that_it_was_written_with(asked: int) -> None:
    import io

    table = Image.open(io.BytesIO(_jpeg(photo(), asked))).quantization[0]  # type: ignore[attr-defined]
    assert quality.jpeg_quality(tuple(table)) == pytest.approx(asked, abs=1)


@pytest.mark.parametrize("shape", [(3, 3), (33, 70), (511, 40), (515, 513), (1030, 31)])
def test_sharpness_is_opencvs_variance_of_the_laplacian(shape: tuple[int, int]) -> None:
    levels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    reference = cv2.Laplacian(levels, cv2.CV_64F)[1:-1, 1:-1].var()
    assert quality.sharpness(levels) == pytest.approx(reference, rel=1e-9)


def test_measures_of_tiny_pictures_are_finite() -> None:
    for shape in ((1, 1), (1, 50), (2, 2), (40, 1)):
        levels = np.zeros(shape, np.uint8)
        assert quality.sharpness(levels) == 0
        assert quality.flat_share(levels) == 1
        assert quality.blockiness(levels) == 1
        quality.difference_hash(np.zeros((*shape, 3), np.uint8))


def test_duplicates_are_found_and_the_first_in_sorted_order_is_kept(tmp_path: Path) -> None:
    pixels = photo(1, 256, 256)
    save(tmp_path / "b.jpg", pixels)
    save(tmp_path / "a.png", np.asarray(Image.fromarray(pixels).resize((150, 150), Image.Resampling.LANCZOS)))
    save(tmp_path / "c.png", np.clip(pixels.astype(int) + 9, 0, 255).astype(np.uint8))
    save(tmp_path / "d.png", photo(2))
    first = f"duplicate: of {tmp_path / 'a.png'}"
    assert reasons_in(tmp_path) == [(), (first,), (first,), ()]
    everything = BuildOptions(rules=QualityRules(min_side=64, duplicate_distance=None))
    assert reasons_in(tmp_path, everything) == [()] * 4


def test_a_rejected_picture_is_nobodys_original(tmp_path: Path) -> None:
    pixels = photo(1, 256, 256)
    save(tmp_path / "a.png", np.asarray(Image.fromarray(pixels).resize((48, 48), Image.Resampling.BOX)))
    save(tmp_path / "b.png", pixels)
    assert [found[:1] for found in reasons_in(tmp_path)] == [("small",), ()]


@settings(max_examples=60, deadline=None)
@given(
    distance=st.integers(0, 24),
    flips=st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 127), max_size=26)), max_size=20),
)
def test_duplicates_are_exactly_those_within_the_distance(distance: int, flips: list[tuple[int, set[int]]]) -> None:
    bases = [int(np.random.default_rng(seed).integers(2**62)) << 60 for seed in range(4)]
    hashes = [bases[base] ^ sum(1 << bit for bit in bits) for base, bits in flips]
    duplicates = quality.Duplicates(distance)
    kept: list[int] = []
    for value in hashes:
        close = [other for other in kept if (value ^ other).bit_count() <= distance]
        found = duplicates.find(value)
        assert (found is not None) == bool(close)
        if found is None:
            kept.append(value)
            duplicates.add(value, str(value))
        else:
            assert int(found) in close


def test_negative_examples_are_not_held_to_quality(tmp_path: Path) -> None:
    blurred = np.asarray(Image.fromarray(photo()).filter(ImageFilter.GaussianBlur(3)))
    (tmp_path / "x.json").write_text('{"negative": true}')
    assert reasons(tmp_path, blurred) == ()
    assert reasons(tmp_path, blurred[:40]) == ("small",)


def test_licence_is_required_when_asked(tmp_path: Path) -> None:
    assert reasons(tmp_path, photo(), BuildOptions(rules=RULES, require_licence=True)) == ("no licence",)
    assert reasons(tmp_path, photo(), BuildOptions(rules=RULES, require_licence=True, licence="CC0-1.0")) == ()


@pytest.mark.parametrize("limits", [{"min_side": 0}, {"max_flat_share": 1.5}, {"duplicate_distance": 25}])
def test_rules_outside_their_range_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=rf"{next(iter(limits))} is .*; it must be a"):
        QualityRules(**limits)  # type: ignore[arg-type]

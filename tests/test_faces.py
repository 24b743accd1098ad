"""Faces as regions: gently restored or kept, said how many, refused where nothing finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from picture_files import smooth
from supir.cli.main import app
from supir.errors import MissingExtraError, OptionError, SupirError
from supir.image import Picture, Portrait, faces, portrait_options, read, shares_of, with_faces
from supir.image.faces import Face, find_faces
from supir.image.portraits import portraits_of
from supir.jobs.model import Model
from supir.options import RestoreOptions, packages
from supir.options.combinations import without_effect
from supir.options.regions import MOST, split_regions
from supir.pipeline import SupirPipeline
from supir.restoration import streaming
from supir.restoration.work import Reached
from supir.service.validation import chosen_options
from tiny import tiny_pipeline

QUICK: dict[str, Any] = {"min_size": 64, "num_steps": 1, "scale": 1.0, "color_fix": "none", "region_edge": 4}
FACE = Face((48, 20, 24, 24), 1.0)
OTHER = Face((100, 8, 20, 20), 0.5)
SMALL = Face((48, 20, 16, 16), 1.0)
CUT = Picture.cut


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(smooth(64, 128)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Face]:
    """What is found in every photo, in place of what dlib finds, which need not be here."""
    there = [FACE, OTHER]

    def finder(pixels: Tensor) -> list[Face]:
        assert pixels.shape == (3, 64, 128)
        return there

    monkeypatch.setattr(faces, "find_faces", finder)
    monkeypatch.setattr(faces, "check_faces", lambda purpose: None)
    return there


def test_faces_become_one_region_below_those_that_are_named(photo: Path, found: list[Face]) -> None:
    asked = RestoreOptions.silent(**QUICK, faces="gentle", region="0,0,50%,100%; control_scale=0.5", detail=0.8)
    options, there = with_faces(asked, photo)
    assert there.record() == {"faces": "2 found and restored gently"}
    assert there.boxes == (FACE.box, OTHER.box)
    assert options.faces == "as-all-else"
    first, second = split_regions(options.region)
    assert first.dials == (("detail", "0"),)
    assert str(second) == "0,0,50%,100%; control_scale=0.5"
    shares = shares_of(options, 128, 64, (64, 128), (64, 128), 8)
    assert shares is not None
    assert shares[0, 3, 7] == 0 < shares[1, 3, 7]  # half of the face lies below the other region
    assert shares[0, 2, 13] == 1
    assert shares[0, 7, 10] < 0.001
    again, none = with_faces(options, photo)
    assert (again, none.record(), none.boxes) == (options, {}, ())


def test_without_faces_nothing_is_done_and_that_is_said(photo: Path, found: list[Face]) -> None:
    found.clear()
    options, none = with_faces(RestoreOptions.silent(**QUICK, faces="off"), read(photo))
    assert options == RestoreOptions.silent(**QUICK)
    assert none.record() == {"faces": "none found that could be kept as they are"}


def test_kept_faces_stay_to_the_bit(pipeline: SupirPipeline, photo: Path, tmp_path: Path, found: list[Face]) -> None:
    target = tmp_path / "out.png"
    record = pipeline.restore_file(photo, target, RestoreOptions.silent(**QUICK, faces="off"))
    assert record["faces"] == "2 found and kept as they are"
    before, after = read(photo).rgb, read(target).rgb
    assert torch.equal(before[:, 20:44, 48:72], after[:, 20:44, 48:72])
    assert not torch.equal(before[:, :, :24], after[:, :, :24])
    [again] = pipeline(photo, RestoreOptions.silent(**QUICK, faces="off"))
    assert again.record["faces"] == record["faces"]
    assert torch.allclose(again.picture.rgb, after, atol=1 / 255)


GENTLE = RestoreOptions.silent(**QUICK, faces="gentle", text_guidance=1.0)


def test_small_faces_are_restored_by_themselves_and_put_back(
    pipeline: SupirPipeline, photo: Path, tmp_path: Path, found: list[Face]
) -> None:
    found[:] = [SMALL]
    picture = read(photo)
    in_place, _ = with_faces(GENTLE, photo)
    [without], [made] = pipeline(picture, in_place), pipeline(picture, GENTLE)
    assert made.record["faces"] == "1 found and restored gently, 1 by themselves"
    [portrait] = portraits_of([SMALL.box], (128, 64), GENTLE)
    assert portrait.box == (36, 3, 40, 47)
    [alone] = pipeline(picture.cut(portrait.box), portrait_options(GENTLE))
    assert alone.picture.width == 40
    inside = (slice(None), slice(19, 34), slice(49, 63))
    there = (slice(None), slice(19 - 3, 34 - 3), slice(49 - 36, 63 - 36))
    assert torch.equal(made.picture.pixels[inside], alone.picture.pixels[there])
    changed = (made.picture.pixels - without.picture.pixels).abs().amax(0)
    assert changed[19:34, 49:63].mean() > 1 / 255
    assert changed[:, : 44 - GENTLE.region_edge].max() == changed[:, 68 + GENTLE.region_edge :].max() == 0

    target, reached = tmp_path / "out.png", list[Reached]()
    record = pipeline.restore_file(photo, target, GENTLE, on_work=reached.append)
    assert record["faces"] == made.record["faces"]
    assert torch.allclose(read(target).pixels, made.picture.pixels, atol=1 / 255)
    shares = [each.share for each in reached]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_in_photos_that_stream_faces_are_put_back_alike(
    pipeline: SupirPipeline, photo: Path, tmp_path: Path, found: list[Face], monkeypatch: pytest.MonkeyPatch
) -> None:
    found[:] = [SMALL, Face((96, 30, 16, 16), 1.0)]
    options, reached = GENTLE.replace(seed=3, region="0,0,41%,100%; control_scale=0.5"), list[Reached]()
    pipeline.restore_file(photo, tmp_path / "whole.png", options)
    monkeypatch.setattr(streaming, "LARGE", 128 * 64 - 1)
    record = pipeline.restore_file(photo, tmp_path / "streamed.png", options, on_work=reached.append)
    assert record["faces"] == "2 found and restored gently, 2 by themselves"
    apart = (read(tmp_path / "whole.png").pixels - read(tmp_path / "streamed.png").pixels).abs()
    assert apart.max() <= 3 / 255
    assert reached[-1].share == 1


def test_who_stops_the_work_is_heard_while_a_face_is_restored(
    pipeline: SupirPipeline, photo: Path, tmp_path: Path, found: list[Face], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = list[str]()
    monkeypatch.setattr(Picture, "cut", lambda photo, box: begun.append("cut") or CUT(photo, box))

    def stop(reached: Reached) -> None:
        if begun:
            raise SupirError("enough")

    with pytest.raises(SupirError, match="enough"):
        pipeline.restore_file(photo, tmp_path / "out.png", GENTLE, on_work=stop)
    assert begun == ["cut"]
    assert not (tmp_path / "out.png").exists()


def test_regions_that_are_named_lie_on_faces_restored_by_themselves(
    pipeline: SupirPipeline, photo: Path, found: list[Face]
) -> None:
    found[:] = [SMALL]
    named = GENTLE.replace(region="0,0,37.5%,100%; control_scale=0.5|37.5%,0,50%,37.5%; protect", region_edge=0)
    [without], [made] = pipeline(photo, with_faces(named, photo)[0]), pipeline(photo, named)
    changed = (made.picture.pixels - without.picture.pixels).abs().amax(0)
    assert changed[:, :48].max() == changed[:24].max() == 0
    assert changed[27:34, 53:63].mean() > 1 / 255


def test_faces_that_are_large_where_they_stand_stay_there() -> None:
    faces = [(40, 40, 60, 60), (300, 300, 200, 200)]
    options = RestoreOptions.silent(min_size=256, scale=2.0, region_edge=0)
    assert [each.face for each in portraits_of(faces, (1000, 800), options)] == faces[:0]
    small = options.replace(min_size=512)
    [portrait] = portraits_of(faces, (1000, 800), small)
    assert portrait == Portrait(faces[0], (0, 0, 145, 151))
    # The whole of a small photo is enlarged as much as a part of it would be.
    assert portraits_of([(10, 10, 20, 20)], (50, 50), small) == []


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    return tiny_pipeline()


@pytest.mark.parametrize("command", ["restore", "batch"])
def test_where_nothing_finds_faces_it_is_refused_before_the_work(
    command: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    monkeypatch.setattr(Model, "open", lambda *given: pytest.fail("the weights were opened"))
    out = tmp_path / "out.png"
    done = CliRunner().invoke(app, [command, str(photo), "-o", str(out), "--faces", "gentle", "--device", "cpu"])
    assert done.exit_code != 0
    assert "faces gentle needs dlib-bin" in " ".join(done.output.replace("│", " ").split())
    with pytest.raises(MissingExtraError, match=r"supir\[faces\]"):
        with_faces(RestoreOptions.silent(faces="off"), photo)
    with pytest.raises(OptionError, match="faces is 'off', and dlib, which finds them, is not installed here"):
        chosen_options({"options": '{"faces": "off"}'}, Model())


def test_gentle_faces_beside_the_faithful_end_are_told() -> None:
    plain = RestoreOptions.silent(detail=0.0)
    assert "detail is 0" in without_effect(plain.replace(faces="gentle"), ("faces",), plain)["faces"]
    assert without_effect(plain.replace(faces="off"), ("faces",), plain) == {}
    assert without_effect(plain.replace(faces="gentle", detail=0.3), ("faces", "detail"), plain) == {}


def test_a_region_too_many_is_refused() -> None:
    full = "|".join(["0,0,50%,50%; detail=0.2"] * MOST)
    RestoreOptions.silent(region=full)
    with pytest.raises(OptionError, match="faces gentle makes another"):
        RestoreOptions.silent(region=full, faces="gentle")


@pytest.mark.slow
def test_real_faces_are_found_and_kept(tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    pytest.importorskip("face_recognition_models")
    photo, target = tmp_path / "astronaut.png", tmp_path / "kept.png"
    Image.fromarray(skimage.data.astronaut()[:256, 96:352]).save(photo)
    [face] = find_faces(read(photo).rgb)
    left, top, width, height = face.box
    done = CliRunner().invoke(
        app, ["restore", str(photo), "-o", str(target), "--scale", "1", "--faces", "off", "--always", "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    assert "faces: 1 found and kept as they are" in " ".join(done.output.split())
    before, after = read(photo).rgb, read(target).rgb
    there = (slice(None), slice(top, top + height), slice(left, left + width))
    assert torch.equal(before[there], after[there])
    assert not torch.equal(before[:, -40:], after[:, -40:])

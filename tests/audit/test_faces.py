"""Faces before and after: verdicts, limits and what is refused; with dlib installed, real ones of two people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import skimage.data
import torch
from torch import Tensor
from typer.testing import CliRunner

from supir.audit import Calibration, Report, check_asked, doubted
from supir.audit.auditing import KEPT
from supir.audit.evidence import Evidence
from supir.audit.faces import ANOTHER, DOUBTFUL, SAME, TOO_SMALL, USUAL, Likeness, compare_faces
from supir.audit.windows import gaussian, levels
from supir.cli.main import app
from supir.errors import MissingExtraError, OptionError
from supir.image import Picture, resize, write
from supir.jobs.job import settings_sha256
from supir.options import RestoreOptions, packages
from supir.options.audit import AuditOptions

SIDE = 256


def likeness(similarity: float, pixels: int = 40, left: int = 40) -> Likeness:
    return Likeness(box=(left, 40, 60, 60), pixels=pixels, found=(True, True), similarity=similarity)


def report(found: Sequence[Likeness] | None, options: AuditOptions | None = None) -> Report:
    """Of a grey picture of which all is kept."""
    plane = torch.full((3, 128, 128), 100.0)
    findings = SimpleNamespace(
        contradictions=(), kept=1.0, reconstructed=0.0, invented=0.0, classes=torch.full((32, 32), KEPT)
    )
    return Report(
        findings=findings,  # type: ignore[arg-type]  # of which no more is asked
        options=options or AuditOptions(), letters=(), faces=found, holds=None, after=plane, weak=plane + 50,
    )  # fmt: skip


def test_verdicts_follow_what_is_usual_of_the_size() -> None:
    assert [each.pixels for each in USUAL] == sorted(each.pixels for each in USUAL)
    for each in USUAL:
        assert 0.4 < each.another < each.same < 1
        width = int(each.pixels) + 1
        assert likeness(each.same, width).verdict == SAME
        assert likeness(each.same - 0.001, width).verdict == DOUBTFUL
        assert likeness(each.another - 0.001, width).verdict == ANOTHER
    assert likeness(0.1, int(USUAL[0].pixels) - 1).verdict == TOO_SMALL


def test_faces_are_told_and_count_against_the_limit() -> None:
    found = [likeness(0.95), likeness(0.3, left=10), likeness(0.1, pixels=3)]
    assert "; faces: 1 another, 1 same, 1 too small to tell" in str(report(found))
    assert str(report([])).endswith("; no faces")
    assert str(report(None)).endswith("; faces were not compared")
    assert not report(found).passed
    strict = report(found, AuditOptions(min_face_similarity=0.5))
    assert strict.passed == ("a face is 0.30 like the one before, and it must be 0.5 at least",)
    assert not report(found[:1], AuditOptions(min_face_similarity=0.5)).passed
    assert not report(found[2:], AuditOptions(min_face_similarity=0.5)).passed  # too small to tell
    told = json.loads(json.dumps([each.as_json() for each in found]))
    assert told[1]["verdict"] == ANOTHER
    assert told[1]["box"] == [10, 40, 60, 60]
    assert told[2]["usual_from"] is None


def test_the_face_of_another_is_outlined_and_gives_way_to_the_preview() -> None:
    asked = AuditOptions(min_face_similarity=0.5, on_doubt="blend")
    strict = report([likeness(0.95, left=0), likeness(0.3, left=64)], asked)
    outlines = strict.overlay().pixels
    assert not torch.equal(outlines[:, 40, 64], outlines[:, 40, 0])
    assert torch.equal(outlines[:, 40, 64], outlines.new_tensor([1.0, -1.0, 1.0]))
    blended = doubted(strict)
    assert blended is not None
    pixels = levels(blended)
    assert torch.allclose(pixels[:, 70, 94], strict.weak[:, 70, 94], atol=0.5)
    assert torch.allclose(pixels[:, 70, 20], strict.after[:, 70, 20], atol=0.5)


def test_what_cannot_be_compared_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="likeness is False, so that no face is compared"):
        AuditOptions(min_face_similarity=0.5, likeness=False)
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"dlib-bin.*pip install 'supir\[faces\]'"):
        check_asked(AuditOptions(min_face_similarity=0.5), Calibration.load())
    monkeypatch.setattr("supir.audit.open_witness", lambda *given: pytest.fail("the weights were opened"))
    picture = str(tmp_path / "photo.png")
    write(Picture(pixels=torch.zeros(3, 32, 32)), picture)
    command = ["audit", picture, picture, "--min-face-similarity", "0.5", "--report", str(tmp_path / "a.json")]
    done = CliRunner().invoke(app, [*command, "--overlay", str(tmp_path / "a.png")])
    assert done.exit_code != 0
    assert "supir[faces]" in done.output
    check_asked(AuditOptions(), Calibration.load())  # which then says that faces were not compared


def test_audits_from_before_faces_are_not_made_anew() -> None:
    plain = settings_sha256(RestoreOptions(), {}, AuditOptions())
    assert plain == "a374440998e99e4e89a692fced49cc157dec004f857fc4d36e074791f5c941ce"
    assert settings_sha256(RestoreOptions(), {}, AuditOptions(min_face_similarity=0.5)) != plain
    assert settings_sha256(RestoreOptions(), {}, AuditOptions(likeness=False)) != plain


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    """(3, SIDE, SIDE) in grey levels."""
    return torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).float()[:, :SIDE, 96 : 96 + SIDE].contiguous()


def evidence(truth: Tensor, after: Tensor, scale: int) -> Evidence:
    """Of a photo that is the truth made smaller, whose restoration is the truth but for ``after``."""
    small = resize(truth, SIDE // scale, SIDE // scale, limits=(0.0, 255.0)).round()
    soft = resize(small, SIDE, SIDE, limits=(0.0, 255.0))
    return Evidence(before=small, after=after, weak=soft, strong=[truth], scale=scale)


def with_another(picture: Tensor) -> Tensor:
    """Someone else's face where the astronaut's is."""
    other = torch.from_numpy(skimage.data.lfw_subset()[10]).float()[None].mul(255).expand(3, -1, -1)
    left, top, size = 76, 70, 104
    patch = resize(other.contiguous(), size, size, limits=(0.0, 255.0))
    axis = torch.linspace(-1.1, 1.1, size)
    share = gaussian(((axis[:, None] ** 2 + axis**2) < 1).float()[None], 3.0)
    found = picture.clone()
    there = found[:, top : top + size, left : left + size]
    patch = patch - patch.mean() + there.mean()
    found[:, top : top + size, left : left + size] = torch.lerp(there, patch.clamp(0, 255), share)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_another_persons_face_is_found_and_the_same_is_not_alarmed(astronaut: Tensor, scale: int) -> None:
    pytest.importorskip("dlib")
    pytest.importorskip("face_recognition_models")
    [same] = compare_faces(evidence(astronaut, astronaut, scale))
    assert same.verdict == SAME
    assert same.pixels == pytest.approx(90 / scale, abs=3)
    left, top, width, height = same.box
    assert left < 125 < left + width
    assert top < 122 < top + height
    found = compare_faces(evidence(astronaut, with_another(astronaut), scale))
    assert ANOTHER in [each.verdict for each in found]
    assert min(each.similarity for each in found) < same.similarity - 0.2

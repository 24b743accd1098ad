"""What an audit says of results of the bundled model: untouched, and with something planted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from supir.audit import Calibration, Report, audit, doubted, open_witness
from supir.audit.auditing import INVENTED, Findings, judged
from supir.audit.boxes import boxes
from supir.audit.calibrating import in_8_bits, tried
from supir.audit.damage import estimate
from supir.audit.evidence import Evidence
from supir.audit.letters import Text, paired, read_letters
from supir.audit.windows import gaussian, levels, local_rms
from supir.cli.main import app
from supir.degradation import ops
from supir.errors import OptionError
from supir.image import Picture, read, resize, write
from supir.options.audit import AuditOptions

ROOT = Path(__file__).parents[2]
SIDE = 192


@pytest.fixture(scope="module")
def truth() -> Tensor:
    """(3, SIDE, SIDE) in [-1, 1]: a cup on wood."""
    import skimage.data

    pixels = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1).float() / 127.5 - 1
    return in_8_bits(pixels[:, 150 : 150 + SIDE, 200 : 200 + SIDE].contiguous())


@pytest.fixture(scope="module")
def evidence(truth: Tensor) -> Evidence:
    witness = open_witness("cpu")
    return tried(truth, "coffee", "blur2_sr4", witness, witness)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration.load()


def as_array(pixels: Tensor) -> ops.Picture:
    return (pixels.permute(1, 2, 0) / 2 + 0.5).numpy()


def test_damage_is_estimated_with_how_sure_that_is(truth: Tensor) -> None:
    size = SIDE // 2
    after = levels(truth)
    soft = resize(gaussian(after, 2.0 * 0.7), size, size, limits=None)
    found = estimate(soft, after, 2.0)
    assert found.blur_range[0] <= 0.7 <= found.blur_range[1] or abs(found.blur - 0.7) < 0.05
    assert found.noise < 1.5
    assert not found.jpeg_seen
    loud = soft + 20 * torch.randn(soft.shape, generator=torch.Generator().manual_seed(0))
    noisy = estimate(loud, after, 2.0)
    own = 20 * (0.299**2 + 0.587**2 + 0.114**2) ** 0.5  # of luma
    assert noisy.noise_range[0] < own * 1.1
    assert abs(noisy.noise / own - 1) < 0.25
    pressed = torch.from_numpy(ops.jpeg(as_array(truth), 20)).permute(2, 0, 1).mul(255)
    seen = estimate(pressed, after, 1.0)
    assert seen.jpeg_seen
    assert seen.jpeg_offset == (0, 0)
    assert "JPEG grid" in str(seen)


def test_the_map_tells_where_a_result_is_wrong(evidence: Evidence, truth: Tensor, calibration: Calibration) -> None:
    error = local_rms(evidence.after - levels(truth))
    expected = calibration.expected(evidence.features())
    order = expected.flatten().argsort()
    third = len(order) // 3
    assert error.flatten()[order[-third:]].mean() > 3 * error.flatten()[order[:third]].mean()


def test_an_untouched_result_contradicts_nothing(evidence: Evidence, calibration: Calibration) -> None:
    found = judged(evidence, calibration)
    assert not found.contradictions
    assert found.kept + found.reconstructed + found.invented == pytest.approx(1)
    assert all(octave.explained > 0.8 for octave in found.consistency.octaves[1:])


def with_patch(evidence: Evidence) -> Evidence:
    """Stripes where there are none."""
    after = evidence.after.clone()
    stripes = 30 * torch.sign(torch.sin(torch.arange(48) / 2.0))
    after[:, 40:88, 100:148] = (after[:, 40:88, 100:148] + stripes).clamp(0, 255)
    return replace(evidence, after=after)


@pytest.fixture(scope="module")
def forged(evidence: Evidence, calibration: Calibration) -> Findings:
    return judged(with_patch(evidence), calibration)


def test_a_planted_texture_is_found_where_it_is(forged: Findings) -> None:
    left, top, width, height = forged.contradictions[0].box
    assert left < 124 < left + width
    assert top < 64 < top + height
    assert forged.classes[64 // 4, 124 // 4] == INVENTED


def test_a_colour_cast_is_found_and_named(evidence: Evidence, calibration: Calibration) -> None:
    cast = torch.tensor([8.0, 0.0, -8.0])[:, None, None]
    found = judged(replace(evidence, after=(evidence.after + cast).clamp(0, 255)), calibration)
    assert found.contradictions[0].what == "colour"


def test_a_removed_object_is_found(evidence: Evidence, calibration: Calibration) -> None:
    after = evidence.after.clone()
    edges = gaussian((after - gaussian(after, 4.0)).square().mean(0, keepdim=True), 12.0)[0, 32:-32, 32:-32]
    top, left = (int(each) for each in torch.unravel_index(edges.argmax(), edges.shape))
    after[:, top : top + 64, left : left + 64] = after[:, top : top + 64, left : left + 64].mean((1, 2), keepdim=True)
    found = judged(replace(evidence, after=after), calibration)
    assert any(each.what in ("content", "colour") for each in found.contradictions)


def test_boxes_are_of_what_hangs_together() -> None:
    values = torch.zeros(8, 10)
    values[1:3, 1:4] = 2
    values[6, 8] = 5
    assert boxes(values, 1.0, 80, 100) == [((80, 60, 10, 10), 5.0), ((10, 10, 30, 20), 2.0)]


def line(words: str, confidence: float, left: int = 0) -> Text:
    return Text(words=words, confidence=confidence, box=(left, 0, 40, 10))


@pytest.mark.parametrize(
    ("before", "after", "verdict", "changed"),
    [
        (line("EXIT 12", 0.9), line("exit 12", 0.95, 2), "kept", 0),
        (line("EXIT 12", 0.9), line("EXIT 17", 0.95, 2), "changed", 1),
        (line("E?11", 0.4), line("EXIT 17", 0.95), "invented", 2),
        (None, line("EXIT", 0.95), "invented", 1),
        (line("EXIT", 0.95), None, "lost", 0),
        (line("EX", 0.2), line("EY", 0.3), "unreadable", 0),
    ],
)
def test_letters_are_kept_changed_or_invented(
    before: Text | None, after: Text | None, verdict: str, changed: int
) -> None:
    [found] = paired([before] if before else [], [after] if after else [])
    assert (found.verdict, found.num_changed) == (verdict, changed)


@pytest.mark.slow
def test_real_letters_are_read() -> None:
    pytest.importorskip("rapidocr")
    from PIL import Image, ImageDraw, ImageFont

    pictures = []
    for words in ("HARBOUR 1927", "HARBOUR 1937"):
        image = Image.new("RGB", (360, 80), (235, 232, 220))
        ImageDraw.Draw(image).text((180, 40), words, (30, 30, 50), ImageFont.load_default(40), "mm")
        pictures.append(levels(read_pil(image)))
    same, other = read_letters(pictures[0], pictures[0]), read_letters(*pictures)
    assert same
    assert {reading.verdict for reading in same} == {"kept"}
    [changed] = [reading for reading in other if reading.verdict != "kept"]
    assert (changed.verdict, changed.num_changed) == ("changed", 1)
    assert changed.after is not None
    assert "1937" in changed.after.words


def read_pil(image: object) -> Tensor:
    from supir.image import from_pil

    return from_pil(image).rgb  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def files(evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The input, the untouched result without a record, and one with a planted texture."""
    folder = tmp_path_factory.mktemp("audit")
    paths = folder / "photo.png", folder / "result.png", folder / "forged.png"
    for pixels, path in zip((evidence.before, evidence.after, with_patch(evidence).after), paths, strict=True):
        write(Picture(pixels=pixels / 127.5 - 1), path)
    return paths


def test_the_command_writes_a_report_and_a_picture_and_says_a_sentence(
    files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    photo, _, forged = files
    names = [tmp_path / "report.json", tmp_path / "overlay.png", tmp_path / "map.png"]
    asked = ["--report", str(names[0]), "--overlay", str(names[1]), "--map", str(names[2]), "--no-letters"]
    command = ["audit", str(photo), str(forged), *asked, "--device", "cpu", "--max-contradictions", "0"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output
    assert "contradict" in done.output
    assert "past a limit" in done.output
    assert "without a guarantee, since the result does not say which model made it" in done.output
    told = json.loads(names[0].read_text())
    assert told["contradictions"]
    assert told["past_limits"]
    assert told["letters"] is None
    assert {read(name).rgb.shape for name in names[1:]} == {read(forged).rgb.shape}
    again = CliRunner().invoke(app, command)
    assert again.exit_code != 0
    assert "pass --overwrite" in again.output


def test_what_is_no_pair_is_refused(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    photo, result, _ = files
    wide = tmp_path / "wide.png"
    write(Picture(pixels=torch.zeros(3, 40, 90)), wide)
    with pytest.raises(OptionError, match="two of one shape"):
        audit(wide, result)
    done = CliRunner().invoke(app, ["audit", str(wide), str(result)])
    assert done.exit_code == 2
    assert "one shape" in done.output
    with pytest.raises(OptionError, match="can promise"):
        audit(photo, result, AuditOptions(level=0.01))
    same = CliRunner().invoke(app, ["audit", str(photo), str(result), "--overlay", str(photo), "--overwrite"])
    assert "is an input" in same.output


@pytest.fixture(scope="module")
def doubtful(files: tuple[Path, Path, Path]) -> Report:
    photo, _, forged = files
    return audit(photo, forged, AuditOptions(max_contradictions=0, letters=False, on_doubt="blend"))


def test_past_a_limit_the_preview_takes_the_place_of_what_is_invented(doubtful: Report) -> None:
    blended = doubted(doubtful)
    assert blended is not None
    pixels = levels(blended)
    assert torch.allclose(pixels[:, 60:68, 120:128], doubtful.weak[:, 60:68, 120:128], atol=1)
    kept = doubtful.findings.classes != INVENTED
    assert bool(kept.any())
    whole = doubted(replace(doubtful, options=replace(doubtful.options, on_doubt="preview")))
    assert whole is not None
    assert torch.allclose(levels(whole), doubtful.weak, atol=1e-3)
    assert doubted(replace(doubtful, options=replace(doubtful.options, on_doubt="keep"))) is None
    assert doubted(replace(doubtful, options=replace(doubtful.options, max_contradictions=None))) is None


def test_a_forged_place_does_not_count_as_all_of_the_picture(evidence: Evidence, calibration: Calibration) -> None:
    after = evidence.after.clone()
    after[:, 20:60, 20:60] = 255 - after[:, 20:60, 20:60]
    found = judged(replace(evidence, after=after), calibration)
    left, top, width, height = found.contradictions[0].box
    assert left < 40 < left + width
    assert top < 40 < top + height
    assert width * height < SIDE * SIDE / 2

"""Results say in standard metadata that and how they were made; other software and `supir verify` agree on it."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from picture_files import SUFFIXES, encode, exif, picture, smooth
from supir.image import PREVIEWED, RESTORED, read, read_record, write, write_sheet
from supir.image.marking import PIXELS
from supir.image.xmp import source_type_of
from supir.pipeline import SupirPipeline
from tiny import tiny_pipeline

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CAPTURED = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
QUICK: dict[str, Any] = {"min_size": 64, "num_steps": 1, "scale": 1.0}
exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="needs exiftool (apt-get install libimage-exiftool-perl)"
)


def told_by_exiftool(path: Path) -> dict[str, Any]:
    done = subprocess.run(["exiftool", "-j", "-G1", "-n", path], capture_output=True, text=True, check=True)
    [found] = json.loads(done.stdout)
    return found


def source_xmp(said: str) -> bytes:
    """The packet of someone else; ``said`` is how it says the digital source."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/" {said}<dc:creator>someone</dc:creator></rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


@pytest.fixture(scope="module")
def pipeline() -> SupirPipeline:
    return tiny_pipeline()


@exiftool
@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_other_software_reads_the_mark_of_result_preview_and_sheet(
    suffix: str, pipeline: SupirPipeline, tmp_path: Path
) -> None:
    source, made, preview, sheet = (tmp_path / f"{name}{suffix}" for name in ("a", "made", "preview", "sheet"))
    kind = next(kind for kind, each in SUFFIXES.items() if each == suffix)
    said = source_xmp(f'e:DigitalSourceType="{CAPTURED}">')
    source.write_bytes(encode(Image.fromarray(smooth()), kind, exif=exif(), xmp=said))
    pipeline.restore_file(source, made, preview=preview, **QUICK)
    write_sheet(source, made, sheet)
    for path, source_type in ((made, RESTORED), (preview, PREVIEWED), (sheet, RESTORED)):
        found, record = told_by_exiftool(path), read_record(path)
        assert "ExifTool:Warning" not in found
        assert found["XMP-iptcExt:DigitalSourceType"] == source_type
        assert found["XMP-dc:Creator"] == "someone"
        assert record["input_source_type"] == CAPTURED
        assert found[f"XMP-supir:{PIXELS[0].upper()}{PIXELS[1:]}"] == record[PIXELS]
    assert read_record(made)["source_sha256"] == read_record(preview)["source_sha256"]
    assert "seed" not in read_record(preview)


@pytest.mark.parametrize(
    ("said", "before", "after"),
    [
        (f"e:DigitalSourceType='{CAPTURED}'>", CAPTURED, RESTORED),
        (f"><e:DigitalSourceType>{CAPTURED} </e:DigitalSourceType>", CAPTURED, RESTORED),
        (f'><e:DigitalSourceType rdf:resource="{GENERATED}"/>', GENERATED, GENERATED),
        (f"><e:DigitalSourceType><![CDATA[{CAPTURED}]]></e:DigitalSourceType>", CAPTURED, RESTORED),
        (f'e:DigitalSourceType="{PREVIEWED}">', PREVIEWED, RESTORED),
        (">", None, RESTORED),
    ],
)
def test_what_the_input_said_never_contradicts(said: str, before: str | None, after: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write(replace(picture()[0], xmp=source_xmp(said)), path, record={"seed": "1"})
    xmp = read(path).xmp or b""
    assert source_type_of(xmp) == after
    assert xmp.count(b":DigitalSourceType") == 2, "said once"
    assert read_record(path).get("input_source_type") == before
    assert b"someone" in xmp or b"CDATA" in source_xmp(said)


def test_a_link_to_the_manifest_of_the_old_file_goes(tmp_path: Path) -> None:
    said = 'xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="https://example.org/a.c2pa">'
    (tmp_path / "a.jpg").write_bytes(encode(Image.fromarray(smooth()), "JPEG", xmp=source_xmp(said)))
    assert b"example.org" not in (read(tmp_path / "a.jpg").xmp or b"")


@exiftool
def test_a_long_packet_says_it_where_all_readers_look(tmp_path: Path) -> None:
    write(replace(picture()[0], xmp=source_xmp(">")), tmp_path / "a.jpg", record={"prompt": "x" * 200_000})
    with Image.open(tmp_path / "a.jpg") as image:
        assert RESTORED.encode() in image.info["xmp"]
    write(read(tmp_path / "a.jpg"), tmp_path / "b.jpg", record={"seed": "1"}, source_type=PREVIEWED)
    assert source_type_of(read(tmp_path / "b.jpg").xmp) == RESTORED, "it says more, and stays"
    assert (read(tmp_path / "b.jpg").xmp or b"").count(b":DigitalSourceType") == 2
    assert told_by_exiftool(tmp_path / "a.jpg")["XMP-iptcExt:DigitalSourceType"] == RESTORED


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_without_marking_nothing_is_left(suffix: str, pipeline: SupirPipeline, tmp_path: Path) -> None:
    Image.fromarray(smooth()).save(tmp_path / "a.png")
    made, preview = tmp_path / f"made{suffix}", tmp_path / f"preview{suffix}"
    pipeline.restore_file(tmp_path / "a.png", made, preview=preview, marking=False, **QUICK)
    [restored] = pipeline(tmp_path / "a.png", marking=False, **QUICK)
    restored.save(tmp_path / f"saved{suffix}")
    for path in (made, preview, tmp_path / f"saved{suffix}"):
        assert read(path).xmp is None
        assert b"supir" not in path.read_bytes().lower()

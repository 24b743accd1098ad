"""Results say in standard metadata that and how they were made; other software and `supir verify` agree on it."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pyvips
from PIL import Image
from typer.testing import CliRunner

from picture_files import SUFFIXES, encode, exif, picture, smooth
from supir.cli.main import app
from supir.errors import OptionError
from supir.image import PREVIEWED, RESTORED, Signature, read, read_record, verify, write, write_sheet
from supir.image.marking import PIXELS
from supir.image.xmp import source_type_of
from supir.jobs.model import Model
from supir.options import RestoreOptions, SigningOptions
from supir.pipeline import SupirPipeline
from supir.restoration import streaming
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
        assert found["XMP-iptcExt:DigitalSourceType"] == source_type == verify(path).source_type
        assert (verify(path).holds, verify(path).pixels, verify(path).c2pa.state) == (True, "unchanged", "absent")
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


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_a_later_edit_is_told(suffix: str, tmp_path: Path) -> None:
    path, edited = tmp_path / f"a{suffix}", tmp_path / f"edited{suffix}"
    write(picture(bits=16 if suffix in (".png", ".tif") else 8)[0], path, record={"software": "supir 1"})
    pixels = read(path).pixels.clone()
    pixels[:, 3:9, 5:9] *= -1
    write(replace(read(path), pixels=pixels), edited)  # all that came with it stays, as in other software
    assert verify(path).holds
    assert str(verify(path)).startswith(
        "marked as edited using generative AI; made by supir 1; its pixels are those that"
    )
    assert (verify(edited).marked, verify(edited).pixels, verify(edited).holds) == (True, "changed", False)
    assert "its pixels were changed after it was marked" in str(verify(edited))


def test_what_is_not_marked_does_not_hold(tmp_path: Path) -> None:
    for name, xmp in (("plain", None), ("captured", source_xmp(f'e:DigitalSourceType="{CAPTURED}">'))):
        write(replace(picture()[0], xmp=xmp), tmp_path / f"{name}.png")
    write(picture()[0], tmp_path / "marked.png", record={"seed": "1"})
    stripped = replace(
        read(tmp_path / "marked.png"), xmp=(read(tmp_path / "marked.png").xmp or b"").replace(b"composite", b"")
    )
    write(stripped, tmp_path / "stripped.png")
    (tmp_path / "text.png").write_text("no picture")

    def told(*names: str) -> tuple[int, list[dict[str, Any]]]:
        done = CliRunner().invoke(app, ["verify", "--json", *(str(tmp_path / f"{name}.png") for name in names)])
        return done.exit_code, json.loads(done.stdout)

    assert told("marked")[0] == 0
    code, found = told("marked", "plain", "captured", "stripped", "text")
    assert code == 1
    assert [each["holds"] for each in found] == [True, False, False, False, False]
    assert "which its record contradicts" in found[3]["says"]
    assert "not a picture supir reads" in found[4]["error"]
    shown = CliRunner().invoke(app, ["verify", str(tmp_path / "captured.png")])
    assert shown.exit_code == 1
    assert "captured.png: not marked as made with AI (it says digitalCapture); without a record" in shown.stdout


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for signing, chain.pem, on a root of its own, and keys."""
    pytest.importorskip("c2pa", reason="needs c2pa-python (pip install 'supir[c2pa]')")
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("chain")
    (folder / "leaf.ext").write_text(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=emailProtection\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    for command in (
        "ecparam -name prime256v1 -genkey -noout -out old.key",
        *(
            f"genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"
            for name in ("root", "leaf", "other")
        ),
        "req -x509 -new -key root.key -subj /CN=Root/O=Test -days 9 -out root.pem"
        " -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign",
        "req -new -key leaf.key -subj /CN=Desk/O=Newspaper -out leaf.csr",
        "x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -days 8 -extfile leaf.ext -out leaf.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    (folder / "chain.pem").write_bytes((folder / "leaf.pem").read_bytes() + (folder / "root.pem").read_bytes())
    return folder


def signing(chain: Path, certificate: str = "chain.pem", key: str = "leaf.key") -> SigningOptions:
    return SigningOptions(c2pa_cert=str(chain / certificate), c2pa_key=str(chain / key))


def edited_beside_the_pixels(data: bytes, suffix: str) -> bytes:
    """Another creator in its XMP; of a PNG the checksum is made anew, as any editor does."""
    assert b"someone" in data
    if suffix != ".png":
        return data.replace(b"someone", b"anybody")
    start = data.index(b"iTXtXML:com.adobe.xmp")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    chunk = data[start : start + 4 + length].replace(b"someone", b"anybody")
    return data[:start] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[start + 8 + length :]


@pytest.mark.parametrize("large", [10**9, 1000])
@pytest.mark.parametrize("suffix", [*SUFFIXES.values(), ".avif"])
def test_a_signed_result_is_valid_until_it_is_edited(
    suffix: str, large: int, chain: Path, pipeline: SupirPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, made, preview = tmp_path / "a.png", tmp_path / f"made{suffix}", tmp_path / f"preview{suffix}"
    source.write_bytes(encode(Image.fromarray(smooth()), "PNG", xmp=source_xmp(">")))
    monkeypatch.setattr(pipeline, "signing", signing(chain))
    monkeypatch.setattr(streaming, "LARGE", large)
    record = pipeline.restore_file(source, made, preview=preview, **QUICK)
    for path, source_type, action in ((made, RESTORED, "c2pa.edited"), (preview, PREVIEWED, "c2pa.enhanced")):
        found = verify(path)
        assert (found.holds, found.pixels, found.c2pa.state) == (True, "unchanged", "valid"), found
        assert found.c2pa.signed_by == "Desk, Newspaper"
        opening, done = found.c2pa.actions
        assert opening["action"] == "c2pa.opened"
        assert opening["parameters"]["source_sha256"] == record["source_sha256"]
        assert (done["action"], done["digitalSourceType"]) == (action, source_type)
        [parent] = found.c2pa.inputs
        assert (parent["relationship"], parent["title"]) == ("parentOf", "a.png")
        assert record["source_sha256"] in parent["description"]
    assert b"leaf.key" not in made.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.png", made.name, preview.name])
    made.write_bytes(edited_beside_the_pixels(made.read_bytes(), suffix))
    found = verify(made)
    assert (found.holds, found.pixels, found.c2pa.state) == (False, "unchanged", "invalid")
    assert f"assertion.{'bmff' if suffix == '.avif' else 'data'}Hash.mismatch" in str(found)


def test_the_input_may_be_of_a_phone(chain: Path, tmp_path: Path) -> None:
    source, made = tmp_path / "a.avif", tmp_path / "made.png"
    pyvips.Image.new_from_array(smooth()).heifsave(str(source), compression="av1")
    signature = Signature(signing(chain), source)
    signature.check(made)
    write(read(source), made, record={"seed": "1"}, signature=signature)
    assert (verify(made).c2pa.state, verify(made).c2pa.inputs[0]["format"]) == ("valid", "image/avif")
    assert verify(source).c2pa.state == "absent"


@pytest.mark.parametrize(
    ("certificate", "key", "reason"),
    [
        ("root.pem", "root.key", "self-signed"),
        ("chain.pem", "other.key", "does not match"),
        ("chain.pem", "old.key", "PKCS#8"),
        ("chain.pem", "none.key", "No such file"),
        ("leaf.ext", "leaf.key", "c2pa_cert: the file is no PEM"),
        ("leaf.key", "leaf.key", "holds no certificate"),
    ],
)
def test_what_cannot_sign_is_refused_before_the_work(certificate: str, key: str, reason: str, chain: Path) -> None:
    with pytest.raises(OptionError, match=f"{reason}.*needed are a certificate for signing") as caught:
        Model(signing=signing(chain, certificate, key)).check_signing()
    assert "BEGIN" not in str(caught.value)


def test_signing_on_the_command_line(chain: Path, tmp_path: Path) -> None:
    Image.fromarray(smooth()).save(tmp_path / "a.png")
    files = ["--c2pa-cert", str(chain / "chain.pem"), "--c2pa-key", str(chain / "leaf.key")]
    for arguments, said in ((files[:2], "without c2pa_key"), ([*files, "--no-marking"], "c2pa_cert is to sign")):
        done = CliRunner().invoke(app, ["restore", str(tmp_path / "a.png"), *arguments])
        assert done.exit_code == 2
        assert said in " ".join(done.stderr.split())
    assert len(list(tmp_path.iterdir())) == 1
    one, other = (Model(signing=each).identity_with(RestoreOptions()) for each in (SigningOptions(), signing(chain)))
    assert set(other) - set(one) == {"c2pa_cert_sha256"}, "a batch makes unsigned results anew"

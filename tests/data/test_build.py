"""Photographs in, shards out: what the shards hold, read by webdataset and tarfile as well as by us."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from data.photographs import OPTIONS, RULES, album, contents, encoded, photo, save
from picture_files import cmyk_profile, exif, png
from supir.data.build import build
from supir.data.options import BuildOptions, QualityRules
from supir.data.photos import Photos
from supir.data.sources import find_photographs
from supir.errors import ImageReadError, OptionError, SupirError

LENIENT = BuildOptions(
    rules=QualityRules(
        min_side=None, max_aspect=None, min_sharpness=None, max_flat_share=None, max_blockiness=None,
        min_jpeg_quality=None, duplicate_distance=None,
    )
)  # fmt: skip


def records(out: Path) -> list[dict[str, Any]]:
    """What another reader of tar files finds, in order."""
    found = []
    for path in sorted(out.glob("shard-*.tar")):
        with tarfile.open(path) as tar:
            found += [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]  # type: ignore[arg-type]
    return found


def rejected(out: Path) -> dict[str, list[str]]:
    rows = [json.loads(line) for line in (out / "pictures.jsonl").read_text().splitlines()]
    return {Path(row["source"]).name: row["reasons"] for row in rows if not row["kept"]}


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    summary = build([album(tmp_path / "in")], tmp_path / "out", options=OPTIONS)
    assert (summary.num_kept, summary.num_samples, summary.num_shards) == (12, 12, 3)
    urls = [str(path) for path in sorted((tmp_path / "out").glob("shard-*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
    photos = Photos(tmp_path / "out")
    assert len(samples) == len(photos) == 12
    for number, sample in enumerate(samples):
        ours = photos.sample(number)
        picture = sample.get("jpg", sample.get("png"))
        assert sample["__key__"] == sample["json"]["key"] == ours.key
        assert np.abs(np.asarray(picture).astype(int) - ours.pixels).max() <= 1
        assert sample["json"]["caption"] == ours.caption == f"picture number {int(Path(ours.source).stem[-2:])}"


def test_plain_files_keep_their_bytes_and_offsets_are_those_of_tarfile(tmp_path: Path) -> None:
    build([album(tmp_path / "in")], tmp_path / "out", options=OPTIONS)
    photos = Photos(tmp_path / "out")
    entries = {entry["key"].decode(): entry for entry in photos.indices[0]}
    for path in sorted((tmp_path / "out").glob("shard-*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for member in members:
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
                key, suffix = member.name.split(".")
                kind = "record" if suffix == "json" else "picture"
                assert member.offset_data == entries[key][kind]
                assert member.size == entries[key][f"{kind}_size"]
            assert [member.name for member in members] == sorted(member.name for member in members)
    for record in records(tmp_path / "out"):
        shard, entry = int(record["key"][:6]), entries[record["key"]]
        data = (tmp_path / "out" / f"shard-{shard:06}.tar").read_bytes()
        begin, size = int(entry["picture"]), int(entry["picture_size"])
        assert data[begin : begin + size] == Path(record["source"]).read_bytes()


def odd_files(folder: Path) -> dict[str, bytes]:
    """Pictures whose bytes cannot be stored as they are."""
    pixels = photo(3)
    deep = np.stack([pixels[..., 0].astype(np.uint16) * 257] * 1, -1)[..., 0]
    wide = Image.fromarray(pixels)
    stream = io.BytesIO()
    wide.convert("CMYK").save(stream, "JPEG", icc_profile=cmyk_profile())
    return {
        "turned.jpg": encoded(pixels, exif=exif(6)),
        "clear.png": encoded(np.dstack([pixels, np.full(pixels.shape[:2], 128, np.uint8)]), "PNG"),
        "scan.tif": encoded(pixels, "TIFF"),
        "cmyk.jpg": stream.getvalue(),
        "deep.png": encoded(deep, "PNG"),
    }


def test_other_files_are_stored_anew_without_loss(tmp_path: Path) -> None:
    from supir.image import read

    for name, data in odd_files(tmp_path).items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    summary = build([tmp_path / "in"], tmp_path / "out", options=LENIENT)
    assert summary.num_samples == 5
    photos = Photos(tmp_path / "out")
    for number, record in enumerate(records(tmp_path / "out")):
        sample = photos.sample(number)
        picture = read(record["source"])
        pixels = picture.rgb if picture.alpha is None else picture.rgb * picture.alpha + (1 - picture.alpha)
        expected = pixels.add(1).mul(127.5).permute(1, 2, 0).numpy()
        assert sample.pixels.shape == expected.shape
        assert np.abs(sample.pixels - expected).max() <= 1.01, record["source"]
        assert (record["height"], record["width"]) == sample.pixels.shape[:2]


def test_colours_of_another_profile_are_converted(tmp_path: Path) -> None:
    from PIL import ImageCms

    from supir.data.pixels import load

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert not load(*named(tmp_path / "lab.png", encoded(photo(), "PNG", icc_profile=profile)), 10**6).plain
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert load(*named(tmp_path / "srgb.png", encoded(photo(), "PNG", icc_profile=srgb)), 10**6).plain
    import pyvips

    p3 = bytes(pyvips.Operation.call("profile_load", "p3"))
    loaded = load(*named(tmp_path / "p3.png", encoded(photo(), "PNG", icc_profile=p3)), 10**6)
    assert not loaded.plain
    vips = pyvips.Image.new_from_file(str(tmp_path / "p3.png")).icc_transform("srgb", embedded=True).numpy()
    assert np.abs(loaded.pixels.astype(int) - vips).mean() < 1
    assert np.abs(loaded.pixels.astype(int) - photo()).max() > 4


def named(path: Path, data: bytes) -> tuple[str, bytes]:
    path.write_bytes(data)
    return str(path), data


def test_tiles_are_disjoint_reduced_and_say_where_they_were(tmp_path: Path) -> None:
    pixels = photo(5, 300, 520)
    pixels[:130, :130] = 70
    save(tmp_path / "in" / "large.png", pixels)
    options = BuildOptions(rules=RULES, tile=64, reduce=2)
    summary = build([tmp_path / "in"], tmp_path / "out", options=options)
    assert (summary.num_kept, summary.num_samples, summary.num_tiles_left_out) == (1, 7, 1)
    photos = Photos(tmp_path / "out")
    mean = pixels.reshape(150, 2, 260, 2, 3).mean((1, 3))
    seen = set()
    for number, record in enumerate(records(tmp_path / "out")):
        left, top, width, height = record["crop"]
        seen.add((left, top))
        assert (width, height, record["reduce"]) == (64, 64, 2)
        assert np.abs(photos.sample(number).pixels - mean[top : top + 64, left : left + 64]).max() <= 0.51
    assert seen == {(left, top) for left in (0, 64, 128, 192) for top in (0, 64)} - {(0, 0)}


def test_captions_and_provenance(tmp_path: Path) -> None:
    from supir.data.provenance import provenance_of

    def said(name: str, **files: str) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        save(folder / "x.jpg", photo(), exif=exif())
        for file, text in files.items():
            (folder / file.replace("__", ".")).write_text(text)
        [source] = find_photographs([folder])
        return provenance_of(source, exif(), None, "given")

    plain = said("plain")
    assert (plain.caption, plain.licence, plain.copyright) == ("", "given", "someone")
    both = said("both", x__txt="the\nstem ", x__jpg__txt="  the whole name\n")
    assert both.caption == "the whole name"
    record = '{"caption": "c", "license": "CC0", "url": "https://a.b/c", "negative": true}'
    own = said("own", x__json=record, licences__csv="file,licence,author\nx.jpg,MIT,Bo\n")
    assert (own.caption, own.licence, own.url, own.author, own.negative) == ("c", "CC0", "https://a.b/c", "Bo", True)
    assert said("listed", licences__json='{"x.jpg": "CC-BY-4.0"}').licence == "CC-BY-4.0"


def test_words_are_read_by_their_mark_and_never_mangled(tmp_path: Path) -> None:
    """Words that cannot be read are named, and cost their picture nothing else."""
    text = "über den Dächern"
    written = {"a": text.encode(), "b": text.encode("utf-8-sig"), "c": text.encode("utf-16"),
               "d": text.encode("utf-32"), "e": text.encode("latin-1"), "f": "roof".encode("utf-16-le")}  # fmt: skip
    for number, (name, data) in enumerate(written.items()):
        save(tmp_path / "in" / f"{name}.png", photo(number, 64, 64))
        (tmp_path / "in" / f"{name}.txt").write_bytes(data)
    summary = build([tmp_path / "in"], tmp_path / "out", options=OPTIONS)
    captions = {Path(s.source).stem: s.caption for s in map(Photos(tmp_path / "out").sample, range(6))}
    assert captions == dict.fromkeys("abcd", text) | {"e": "", "f": ""}
    assert [Path(reason.split(":")[0]).name for reason in summary.refused] == ["e.txt", "f.txt"]
    assert "e.txt" in (tmp_path / "out" / "report.html").read_text()


def test_licence_in_xmp(tmp_path: Path) -> None:
    from supir.data.provenance import provenance_of

    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:cc="http://creativecommons.org/ns#" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        b'<cc:license rdf:resource="https://creativecommons.org/licenses/by/4.0/"/><dc:creator><rdf:Seq>'
        b"<rdf:li>Ada</rdf:li></rdf:Seq></dc:creator></rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    save(tmp_path / "x.jpg", photo(), xmp=packet)
    build([tmp_path], tmp_path / "out", options=OPTIONS)
    [record] = records(tmp_path / "out")
    assert record["licence"] == "https://creativecommons.org/licenses/by/4.0/"
    assert record["author"] == "Ada"
    [source] = find_photographs([tmp_path], skip=tmp_path / "out")
    assert provenance_of(source, None, None, None).licence == "unknown"


class Namer:
    """A captioner that any process can load."""

    name = "namer"

    def __call__(self, image: Image.Image) -> str:
        assert image.mode == "RGB"
        return f"a picture\nof {image.width} by {image.height}"


def test_a_captioner_is_asked_where_there_is_no_caption(tmp_path: Path) -> None:
    folder = album(tmp_path / "in", 3)
    (folder / "b" / "photo 00.txt").unlink()
    build([folder], tmp_path / "out", options=OPTIONS, captioner=Namer())
    captions = {Path(record["source"]).stem: record["caption"] for record in records(tmp_path / "out")}
    assert captions["photo 00"] == "a picture of 128 by 96"
    assert captions["photo 01"] == "picture number 1"
    assert Photos(tmp_path / "out").sample(0).pixels.shape == (96, 128, 3)


def test_hostile_inputs_are_rejected_with_their_reason(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    good = save(folder / "good.jpg", photo())
    (folder / "cut.jpg").write_bytes(good.read_bytes()[:-900])
    (folder / "huge.png").write_bytes(png(60_000, 60_000, b"x"))
    (folder / "text.jpg").write_text("not a picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.jpg").mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "circle.jpg").symlink_to(folder / "circle.jpg")
    (folder / "gone.jpg").symlink_to(folder / "nothing.jpg")
    os.mkfifo(folder / "pipe.jpg")
    save(folder / "bad record.png", photo(1))
    (folder / "bad record.json").write_text("{")
    summary = build([folder], tmp_path / "out", options=OPTIONS)
    assert (summary.num_pictures, summary.num_kept, summary.reasons) == (6, 1, {"unreadable": 5})
    told = {name: reasons[0] for name, reasons in rejected(tmp_path / "out").items()}
    assert "damaged or truncated" in told["cut.jpg"]
    assert "megapixels" in told["huge.png"]
    assert "a text file" in told["text.jpg"]
    assert "an empty file" in told["empty.png"]
    assert "not JSON" in told["bad record.png"]


def test_odd_names(tmp_path: Path) -> None:
    names = ["naïve ❤ 写真.jpg", "new\nline.jpg", "dots.in.stem.jpg", "<script>alert(1)<.jpg", "-rf.jpg"]
    paths = [save(tmp_path / "in" / name, photo(seed)) for seed, name in enumerate(names)]
    paths.append(save(tmp_path / "in" / "deeper" / "dots.in.stem.jpg", photo(9)))
    raw = os.fsencode(tmp_path / "in") + b"/latin \xe9.jpg"
    Path(os.fsdecode(raw)).write_bytes(encoded(photo(10)))
    build([tmp_path / "in"], tmp_path / "out", options=OPTIONS)
    photos = Photos(tmp_path / "out")
    sources = {photos.sample(number).source for number in range(len(photos))}
    assert sources == {*map(str, paths), os.fsdecode(raw)}
    keys = [record["key"] for record in records(tmp_path / "out")]
    assert len(set(keys)) == 7
    assert all(key.isdigit() for key in keys)
    assert "<script>" not in (tmp_path / "out" / "report.html").read_text()


def test_the_same_file_is_taken_once_and_the_output_is_not_an_input(tmp_path: Path) -> None:
    folder = album(tmp_path, 4)
    (folder / "again.jpg").symlink_to(folder / "a" / "photo 01.jpg")
    inputs = [folder, folder / "a" / "*.jpg", folder / "a"]
    first = build(inputs, folder / "out", options=OPTIONS)
    save(folder / "out" / "stray.png", photo(77))
    assert build(inputs, folder / "out", options=OPTIONS).num_pictures == first.num_pictures == 4


def test_more_pictures_later_measures_only_those(tmp_path: Path) -> None:
    folder = album(tmp_path / "in")
    build([folder], tmp_path / "out", options=OPTIONS)
    save(folder / "z.png", photo(50))
    summary = build([folder], tmp_path / "out", options=OPTIONS)
    assert (summary.num_pictures, summary.num_measured, summary.num_written) == (13, 1, 1)
    build([folder], tmp_path / "fresh", options=OPTIONS)
    assert without_report(tmp_path / "out") == without_report(tmp_path / "fresh")
    (folder / "z.png").unlink()
    for path in sorted(folder.rglob("*.png")):
        path.unlink()
    assert build([folder], tmp_path / "out", options=OPTIONS).num_shards == 2
    assert len(list((tmp_path / "out").glob("shard-*"))) == 2


def without_report(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(out).items() if name != "report.html"}


def test_a_changed_caption_changes_its_shard_alone(tmp_path: Path) -> None:
    folder = album(tmp_path / "in")
    build([folder], tmp_path / "out", options=OPTIONS)
    (folder / "b" / "photo 10.txt").write_text("another")
    summary = build([folder], tmp_path / "out", options=OPTIONS)
    assert (summary.num_measured, summary.num_written) == (1, 1)
    assert records(tmp_path / "out")[-1]["caption"] == "another"


def test_other_options_are_refused_unless_overwrite(tmp_path: Path) -> None:
    folder = album(tmp_path / "in")
    build([folder], tmp_path / "out", options=OPTIONS)
    before = contents(tmp_path / "out")
    other = BuildOptions(rules=RULES, photos_per_shard=20)
    with pytest.raises(OptionError, match=r"photos_per_shard 5, now 20.*--overwrite"):
        build([folder], tmp_path / "out", options=other)
    assert contents(tmp_path / "out") == before
    summary = build([folder], tmp_path / "out", options=other, overwrite=True)
    assert (summary.num_measured, summary.num_shards) == (0, 1)
    assert len(list((tmp_path / "out").glob("shard-*"))) == 1


def test_a_folder_of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    folder = album(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shard-000000.tar").write_text("precious")
    with pytest.raises(OptionError, match="no build made"):
        build([folder], tmp_path / "out", options=OPTIONS, overwrite=True)
    assert (tmp_path / "out" / "shard-000000.tar").read_text() == "precious"


def test_missing_inputs_and_bad_lists_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "empty", "*.jpg"):
        with pytest.raises(ImageReadError, match=r"does not exist|no picture"):
            build([tmp_path / name], tmp_path / "out")
    save(tmp_path / "in" / "x.png", photo())
    (tmp_path / "in" / "licences.csv").write_text("name;terms\n")
    with pytest.raises(SupirError, match=r"licences\.csv: not a list of licences: .*file and licence"):
        build([tmp_path / "in"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_builds_do_not_work_in_one_folder(tmp_path: Path) -> None:
    import fcntl

    folder = album(tmp_path / "in", 2)
    build([folder], tmp_path / "out", options=OPTIONS)
    with (tmp_path / "out" / ".build" / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SupirError, match="another build"):
            build([folder], tmp_path / "out", options=OPTIONS)


def test_a_photograph_that_changes_meanwhile_stops_the_build(tmp_path: Path) -> None:
    folder = album(tmp_path / "in", 2)

    def change(step: str, done: int, total: int) -> None:
        if step == "write" and done == 0:
            save(folder / "b" / "photo 00.png", photo(99))

    with pytest.raises(SupirError, match=r"photo 00\.png: changed while"):
        build([folder], tmp_path / "out", options=OPTIONS, on_progress=change)
    assert build([folder], tmp_path / "out", options=OPTIONS).num_kept == 2


def test_the_report_shows_what_there_is(tmp_path: Path) -> None:
    folder = album(tmp_path / "in", 4)
    save(folder / "blurred.png", np.full((96, 128, 3), 128, np.uint8))
    (folder / "a" / "photo 01.txt").write_text("<b>bold & 'quoted'</b>")
    build([folder], tmp_path / "out", options=OPTIONS)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 5
    assert "&lt;b&gt;bold &amp; &#x27;quoted&#x27;&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "blurred; flat" in page
    assert "CC0-1.0" in page
    assert page.count("<svg") == 5
    assert "http" not in page.replace("http-equiv", "")

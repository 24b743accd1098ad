"""Shards: tar files in webdataset's format, with the same bytes whoever writes them when, and an index into them.

A sample is two members with one key, ``KEY.jpg`` (or ``.png``, ``.webp``) and ``KEY.json``; the record holds caption,
provenance and sizes. A folder's ``index.npy`` says where each lies, so that any sample is read with two seeks.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from supir.data import quality
from supir.data.filtering import Measured, stored_size
from supir.data.options import BuildOptions
from supir.data.pixels import encode, load, reduced
from supir.errors import CaptionerError, CaptionError, SupirError
from supir.files import written_whole

if TYPE_CHECKING:
    from PIL import Image

    from supir.data.pixels import Pixels


class Captioner(Protocol):
    """Anything that says in words what a picture shows. It must be picklable where several workers build."""

    @property
    def name(self) -> str:
        """Which captioner it is: recorded in the data set, and another name means other shards."""

    def __call__(self, image: Image.Image) -> str:
        """A caption in one line, of RGB, upright, sRGB, at its stored size."""


logger = logging.getLogger(__name__)


INDEX = "index.npy"
INDEX_TYPE = np.dtype(
    [("key", "S12"), ("shard", "<u4"), ("picture", "<u8"), ("picture_size", "<u4"), ("record", "<u8"),
     ("record_size", "<u4")]
)  # fmt: skip
"""One sample of the index: key, number of its shard, and where in that file, in bytes, its members' data lie."""

_DIGITS = "[0-9]" * 6
SHARDS, RECORDS = f"shard-{_DIGITS}.tar", f"shard-{_DIGITS}.json"
"""Patterns of the names of shards, and of what a build keeps about each."""

_HEADER = 512
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WebP": "webp"}


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """All that decides the bytes of one shard."""

    number: int
    folder: str
    """Where it is written."""
    pictures: tuple[Measured, ...]
    options: BuildOptions
    captioner: Captioner | None
    """Asked about pictures that came without a caption; None leaves those empty."""


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """What one shard holds."""

    number: int
    entries: tuple[tuple[Any, ...], ...]
    """As `INDEX_TYPE`, the key as text."""
    num_tiles_left_out: int
    """Too flat or not sharp enough."""
    size: int
    """Bytes."""


def shard_name(number: int) -> str:
    """The shard's file name."""
    return f"shard-{number:06d}.tar"


def write_shard(job: ShardJob) -> WrittenShard:
    """Writes one shard, whole or not at all.

    Raises:
        SupirError: a photograph has changed since it was measured, or cannot be read any more.
    """
    path = Path(job.folder) / shard_name(job.number)
    entries: list[tuple[Any, ...]] = []
    left_out = 0
    with written_whole(path) as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for measured in job.pictures:
            for sample in _samples(measured, job):
                if sample is None:
                    left_out += 1
                    continue
                data, suffix, record = sample
                key = f"{job.number:06d}{len(entries):06d}"
                text = json.dumps({"key": key, **record}, sort_keys=True).encode()
                members = {suffix: data, "json": text}
                places = {name: _add(tar, f"{key}.{name}", members[name]) for name in sorted(members)}
                entries.append((key, job.number, places[suffix], len(data), places["json"], len(text)))
    size = path.stat().st_size
    return WrittenShard(number=job.number, entries=tuple(entries), num_tiles_left_out=left_out, size=size)


def index_bytes(shards: list[WrittenShard]) -> bytes:
    """The index of all samples, as an .npy file."""
    rows = [(str(key).encode(), *rest) for shard in shards for key, *rest in shard.entries]
    table: npt.NDArray[Any] = np.array(rows, dtype=INDEX_TYPE)
    stream = io.BytesIO()
    np.save(stream, table, allow_pickle=False)
    return stream.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Adds a member without owner or time; returns where its data begin, in bytes."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    where = tar.offset + _HEADER
    tar.addfile(member, io.BytesIO(data))
    return int(where)


def _samples(measured: Measured, job: ShardJob) -> Iterator[tuple[bytes, str, dict[str, Any]] | None]:
    """(picture bytes, suffix, record) of a photograph or of each of its tiles; None for a tile that is left out."""
    try:
        data = Path(measured.source).read_bytes()
    except OSError as error:
        raise SupirError(f"{measured.source}: cannot be read any more: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != measured.sha256:
        raise SupirError(
            f"{measured.source}: changed while the data set was being built; run the same command again"
            " (with --overwrite if its time of change did not move)"
        )
    options = job.options
    whole = measured.plain and options.reduce == 1 and options.tile is None
    needs_caption = job.captioner is not None and not measured.provenance.caption
    pixels = None
    if not whole or needs_caption:
        pixels = reduced(load(measured.source, data, options.max_pixels).pixels, options.reduce)
    if whole:
        record = _record(measured, options, _caption(measured, pixels, job.captioner), None)
        yield data, _SUFFIXES[measured.kind], record
        return
    assert pixels is not None
    for left, top, tile in _tiles(pixels, options.tile):
        if options.tile is not None and not measured.provenance.negative and not _worth(tile, options):
            yield None
            continue
        crop = None if options.tile is None else (left, top, tile.shape[1], tile.shape[0])
        record = _record(measured, options, _caption(measured, tile, job.captioner), crop)
        yield encode(tile), "png", record


def _tiles(pixels: Pixels, side: int | None) -> Iterator[tuple[int, int, Pixels]]:
    """(left, top, tile) of the disjoint whole tiles, row by row; the picture itself without a side."""
    if side is None:
        yield 0, 0, pixels
        return
    for top in range(0, pixels.shape[0] - side + 1, side):
        for left in range(0, pixels.shape[1] - side + 1, side):
            yield left, top, np.ascontiguousarray(pixels[top : top + side, left : left + side])


def _worth(tile: Pixels, options: BuildOptions) -> bool:
    levels, rules = quality.grey(tile), options.rules
    if rules.max_flat_share is not None and quality.flat_share(levels) > rules.max_flat_share:
        return False
    return rules.min_sharpness is None or quality.sharpness(levels) >= rules.min_sharpness


def _caption(measured: Measured, pixels: Pixels | None, captioner: Captioner | None) -> str:
    if measured.provenance.caption or captioner is None or pixels is None:
        return measured.provenance.caption
    from PIL import Image

    try:
        return " ".join(captioner(Image.fromarray(pixels)).split())
    except CaptionerError:
        raise
    except CaptionError as error:
        logger.warning("%s: stored without a caption: %s", measured.source, error)
        return ""


def _record(
    measured: Measured, options: BuildOptions, caption: str, crop: tuple[int, int, int, int] | None
) -> dict[str, Any]:
    said = measured.provenance
    width, height = stored_size(measured, options.reduce)
    return {
        "caption": caption,
        "negative": said.negative,
        "source": measured.source,
        "url": said.url,
        "licence": said.licence,
        "author": said.author,
        "copyright": said.copyright,
        "sha256": measured.sha256,
        "width": width if crop is None else crop[2],
        "height": height if crop is None else crop[3],
        "original_width": measured.width,
        "original_height": measured.height,
        "original_kind": measured.kind,
        "reduce": options.reduce,
        "crop": crop,
    }

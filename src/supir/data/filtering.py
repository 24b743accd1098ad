"""What is measured of each photograph, once; the verdict over it; and the journal that a killed build resumes from.

Measuring knows no limits and the verdict no pixels: another limit needs no second look at the pictures.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supir.data.options import BuildOptions, QualityRules
from supir.data.provenance import UNKNOWN, Provenance, provenance_of
from supir.data.sources import Source
from supir.errors import ImageError
from supir.files import add_entries, read_entries


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One photograph: what it is and how good, in numbers and texts alone."""

    source: str
    """Its path, as found."""
    sha256: str = ""
    """Of the file."""
    size: int = 0
    """Of the file, bytes."""
    error: str = ""
    """Why it cannot be used; all that follows is then meaningless."""
    kind: str = ""
    """JPEG, PNG, WebP or TIFF."""
    plain: bool = False
    """The file's own bytes may be stored."""
    width: int = 0
    """Upright, before reduction, pixels."""
    height: int = 0
    sharpness: float = 0.0
    flat_share: float = 0.0
    blockiness: float = 1.0
    jpeg_quality: float | None = None
    """None for other kinds."""
    hash: str = ""
    """Difference hash, hexadecimal."""
    provenance: Provenance = field(default_factory=Provenance)

    def as_json(self) -> dict[str, Any]:
        """Plain dictionary of all fields."""
        values = dataclasses.asdict(self)
        if not self.provenance.refused:  # what decides a shard's bytes is written as before there was this field
            del values["provenance"]["refused"]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Measured:
        """What `as_json` made."""
        return cls(**{**values, "provenance": Provenance(**values["provenance"])})


@dataclass(frozen=True, kw_only=True)
class FilterResult:
    """Kept, or rejected for these reasons."""

    measured: Measured
    reasons: tuple[str, ...]
    """Names as in `QualityRules`, with an explanation after a colon for some; empty when it is kept."""


def measure(source: Source, options: BuildOptions) -> Measured:
    """Reads and measures one photograph. Whatever is wrong with the file, the answer is a `Measured`."""
    from supir.data import quality
    from supir.data.pixels import load, reduced

    digest = ""
    try:
        data = Path(source.path).read_bytes() if source.size else b""
        digest = hashlib.sha256(data).hexdigest()
        loaded = load(source.path, data, options.max_pixels)
        said = provenance_of(source, loaded.exif, loaded.xmp, options.licence)
    except (ImageError, OSError, MemoryError) as error:
        return Measured(source=source.path, sha256=digest, size=source.size, error=str(error) or "out of memory")
    except Exception as error:  # a mistake of ours in one picture must not end a build of millions
        return Measured(source=source.path, sha256=digest, size=source.size, error=f"{type(error).__name__}: {error}")
    height, width = loaded.pixels.shape[:2]
    whole = quality.grey(loaded.pixels)
    small = whole if options.reduce == 1 else quality.grey(reduced(loaded.pixels, options.reduce))
    return Measured(
        source=source.path,
        sha256=digest,
        size=len(data),
        kind=loaded.kind,
        plain=loaded.plain,
        width=width,
        height=height,
        sharpness=round(quality.sharpness(small), 3),
        flat_share=round(quality.flat_share(small), 4),
        blockiness=round(quality.blockiness(whole), 4),
        jpeg_quality=None if loaded.quantisation is None else round(quality.jpeg_quality(loaded.quantisation), 1),
        hash=f"{quality.difference_hash(loaded.pixels):032x}",
        provenance=said,
    )


def stored_size(measured: Measured, reduce: int) -> tuple[int, int]:
    """(width, height) after reduction, pixels; one below a square of `reduce` stays as it is."""
    small = measured.width // reduce, measured.height // reduce
    return small if min(small) > 0 else (measured.width, measured.height)


def judge(measured: Iterable[Measured], options: BuildOptions) -> Iterator[FilterResult]:
    """A verdict for each, in order; the first of several that are the same is kept."""
    from supir.data.quality import Duplicates

    distance = options.rules.duplicate_distance
    duplicates = None if distance is None else Duplicates(distance)
    for picture in measured:
        reasons = _reasons(picture, options)
        if not reasons and duplicates is not None:
            first = duplicates.find(int(picture.hash, 16))
            if first is None:
                duplicates.add(int(picture.hash, 16), picture.source)
            else:
                reasons = [f"duplicate: of {first}"]
        yield FilterResult(measured=picture, reasons=tuple(reasons))


def _reasons(picture: Measured, options: BuildOptions) -> list[str]:
    """All reasons but that of being a duplicate."""
    if picture.error:
        return [f"unreadable: {picture.error}"]
    rules = options.rules
    width, height = stored_size(picture, options.reduce)
    reasons = []
    if min(width, height) < max(rules.min_side or 1, options.tile or 1):
        reasons.append("small")
    if rules.max_aspect is not None and max(width, height) > rules.max_aspect * min(width, height):
        reasons.append("elongated")
    if not picture.provenance.negative:
        reasons += _bad_quality(picture, rules)
    if options.require_licence and picture.provenance.licence == UNKNOWN:
        reasons.append("no licence")
    return reasons


def _bad_quality(picture: Measured, rules: QualityRules) -> list[str]:
    reasons = []
    if rules.min_sharpness is not None and picture.sharpness < rules.min_sharpness:
        reasons.append("blurred")
    if rules.max_flat_share is not None and picture.flat_share > rules.max_flat_share:
        reasons.append("flat")
    blocky = rules.max_blockiness is not None and picture.blockiness > rules.max_blockiness
    quality = picture.jpeg_quality
    if blocky or (rules.min_jpeg_quality is not None and quality is not None and quality < rules.min_jpeg_quality):
        reasons.append("overcompressed")
    return reasons


def read_measured(journal: Path) -> dict[str, Measured]:
    """What earlier builds measured, by the identity of the source; a damaged line is left out."""
    known: dict[str, Measured] = {}
    for entry in read_entries(journal):
        with suppress(KeyError, TypeError):
            known[entry["identity"]] = Measured.from_json(entry["measured"])
    return known


def add_measured(journal: Path, measured: Iterable[tuple[Source, Measured]]) -> None:
    """Write down what was measured: from here on killing this process loses none of it.

    Pictures that could not be read are not remembered: they are tried again.
    """
    known = ((source.identity, found.as_json()) for source, found in measured if not found.error)
    add_entries(journal, *({"identity": identity, "measured": values} for identity, values in known))

"""What may be set when a data set is built: quality rules and build options. Nothing heavy is imported here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from supir.errors import OptionError
from supir.options.fields import Options, flag, number, text


@dataclass(frozen=True, kw_only=True)
class QualityRules(Options):
    """When a photograph is good enough. A limit of None switches its rule off.

    Sharpness and flatness are measured on the picture as it will be stored (after `BuildOptions.reduce`); compression
    on the file as it came. Pictures marked negative are exempt from these three: they are meant to be bad.
    """

    min_side: int | None = number(512, 1, 100_000, "shorter side as stored, at least; else rejected: small", unit="px")
    max_aspect: float | None = number(4.0, 1, 100, "longer over shorter side, at most; else rejected: elongated")
    min_sharpness: float | None = number(
        60.0, 0, 1_000_000, "variance of the Laplacian of the grey levels, 0 to 255, at least; else rejected: blurred"
    )
    max_flat_share: float | None = number(
        0.75,
        0,
        1,
        "share of 32 x 32 blocks whose grey levels deviate by less than 3 of 255, at most; else rejected: flat",
    )
    max_blockiness: float | None = number(
        1.4,
        1,
        1000,
        "grey-level steps at the lines of an 8-pixel grid over those elsewhere, at most; else rejected: overcompressed",
    )
    min_jpeg_quality: float | None = number(
        60.0,
        1,
        100,
        "quality that the quantisation tables of a JPEG correspond to, at least; else rejected: overcompressed",
    )
    duplicate_distance: int | None = number(
        6,
        0,
        24,
        "pictures are the same whose 128-bit difference hashes differ in at most so many bits; the first in sorted"
        " order is kept, the other rejected: duplicate",
    )


@dataclass(frozen=True, kw_only=True)
class BuildOptions(Options):
    """How a data set is built. All of it decides the bytes of the shards; how many workers there are does not."""

    rules: QualityRules = field(default_factory=QualityRules)
    """Which pictures are kept."""
    tile: int | None = number(
        None,
        16,
        65536,
        "cut into disjoint tiles of this side, and leave out those too flat or not sharp enough; unset: whole pictures",
        unit="px",
    )
    reduce: int = number(1, 1, 64, "shrink width and height by this first, each new pixel the mean of its square")
    licence: str | None = text(None, "licence of pictures that state none, for example CC-BY-4.0")
    require_licence: bool = flag(False, "leave out pictures whose licence is unknown, rejected: no licence")
    photos_per_shard: int = number(1000, 1, 999_999, "pictures, or possible tiles, after which a new shard is begun")
    max_pixels: int = number(
        150_000_000,
        1,
        2**40,
        "pictures that claim more, width times height, are not decoded; rejected: unreadable",
        unit="px",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.licence is not None and not self.licence.strip():
            raise OptionError("licence is empty; give its name, for example CC-BY-4.0, or leave it unset")

    def as_json(self) -> dict[str, Any]:
        """Plain dictionary of all options, the rules inside."""
        return dataclasses.asdict(self)

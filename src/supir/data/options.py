"""What may be set when a data set is built: quality rules and build options. Nothing heavy is imported here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from supir.errors import OptionError

__all__ = ["BuildOptions", "QualityRules"]


@dataclass(frozen=True, kw_only=True)
class QualityRules:
    """When a photograph is good enough. A limit of None switches its rule off.

    Sharpness and flatness are measured on the picture as it will be stored (after `BuildOptions.reduce`); compression
    on the file as it came. Pictures marked negative are exempt from these three: they are meant to be bad.
    """

    min_side: int | None = 512
    """Shorter side of the stored picture, pixels. Reason: ``small``."""
    max_aspect: float | None = 4.0
    """Longer side over shorter side. Reason: ``elongated``."""
    min_sharpness: float | None = 60.0
    """Variance of the Laplacian of the grey levels (0 to 255). Reason: ``blurred``."""
    max_flat_share: float | None = 0.75
    """Share of blocks of 32 x 32 pixels whose grey levels deviate by less than 3 of 255. Reason: ``flat``."""
    max_blockiness: float | None = 1.4
    """Grey-level steps at the lines of an 8-pixel grid over those elsewhere; 1 is no grid. Reason: ``overcompressed``.
    """
    min_jpeg_quality: float | None = 60.0
    """Quality, 1 to 100, that the quantisation tables of a JPEG correspond to. Reason: ``overcompressed``."""
    duplicate_distance: int | None = 6
    """Two pictures are the same when their 128-bit difference hashes differ in at most this many bits; the first in
    sorted order is kept. Reason: ``duplicate``.
    """

    def __post_init__(self) -> None:
        _check(self, "min_side", 1, 100_000)
        _check(self, "max_aspect", 1, 100)
        _check(self, "min_sharpness", 0, 1e6)
        _check(self, "max_flat_share", 0, 1)
        _check(self, "max_blockiness", 1, 1000)
        _check(self, "min_jpeg_quality", 1, 100)
        _check(self, "duplicate_distance", 0, 24)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How a data set is built. All of it decides the bytes of the shards; how many workers there are does not."""

    rules: QualityRules = field(default_factory=QualityRules)
    """Which pictures are kept."""
    tile: int | None = None
    """Side in pixels of the disjoint tiles that photographs are cut into; None stores them whole. Tiles that are too
    flat or not sharp enough are left out.
    """
    reduce: int = 1
    """Factor by which width and height are shrunk first, each new pixel the mean of its square."""
    licence: str | None = None
    """Licence of the pictures that state none, for example ``CC-BY-4.0``."""
    require_licence: bool = False
    """Leave out pictures whose licence is unknown. Reason: ``no licence``."""
    photos_per_shard: int = 1000
    """Pictures, or possible tiles, after which a new shard is begun."""
    max_pixels: int = 150_000_000
    """Pictures that claim more (width times height) are not decoded. Reason: ``unreadable``."""

    def __post_init__(self) -> None:
        _check(self, "tile", 16, 65536)
        _check(self, "reduce", 1, 64)
        _check(self, "photos_per_shard", 1, 999_999)
        _check(self, "max_pixels", 1, 2**40)
        if self.licence is not None and not self.licence.strip():
            raise OptionError("licence is empty; give its name, for example CC-BY-4.0, or leave it unset")

    def as_json(self) -> dict[str, Any]:
        """Plain dictionary of all options, the rules inside."""
        return dataclasses.asdict(self)


def _check(options: Any, name: str, low: float, high: float) -> None:
    value = getattr(options, name)
    if value is not None and not low <= value <= high:
        raise OptionError(f"{name} is {value}; allowed is {low:g} to {high:g}")

"""Good pictures made bad by a recipe, as files: what a benchmark restores, and what it is held against.

    OUT/hq/NAME.png   the middle of the original, cut to multiples of 8 pixels a side
    OUT/lq/NAME.png   the same, degraded, at the size the recipe leaves it
    OUT/degradations.jsonl   one line a picture: where it came from, what was done to it, and a hash of what came out

The degradation of a picture is drawn from (recipe, seed, its name) alone, so it is the same whenever and in whatever
company it is made.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from supir.degradation.process import Degradation, apply
from supir.degradation.recipes import RECIPES, VERSIONS, draw
from supir.errors import ImageError, OptionError
from supir.files import add_entries, check_apart, sentence, whole_lines, write_entries
from supir.image import Picture, by_name, read, write

LOG = "degradations.jsonl"
MULTIPLE = 8
"""Sides of the original are cut to it, so that the whole scales of the benchmarks leave nothing over."""
REPLAYED = "replayed"
"""Stands for the recipe where degradations come from a log."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A line of the log."""

    name: str
    """Of both pictures, without suffix."""
    source: str
    """Name of the original's file."""
    source_sha256: str
    """Of that file's bytes."""
    recipe: str
    seed: int
    side: int | None
    """Longest side that was kept of the original."""
    size: tuple[int, int]
    """Height and width of the original as cut; how many times the degraded one is smaller follows."""
    lq_sha256: str
    """Of the degraded picture's pixels: 8-bit RGB, row by row."""
    degradation: Degradation
    version: int = 1
    """Of what the recipe draws (``recipes.VERSIONS``)."""

    def as_json(self) -> dict[str, Any]:
        """For the log."""
        return {**self.__dict__, "size": list(self.size), "degradation": json.loads(self.degradation.to_json())}

    @staticmethod
    def from_json(line: str) -> Pair:
        """Of a line of the log, which holds ``as_json``.

        Raises:
            OptionError: not such a line.
        """
        try:
            values: dict[str, Any] = json.loads(line)
            drawn = Degradation.from_json(json.dumps(values["degradation"]))
            return Pair(**{**values, "size": tuple(values["size"]), "degradation": drawn})
        except (ValueError, KeyError, TypeError) as error:
            raise OptionError(f"not a line of {LOG} ({error}): {line[:80]!r}") from error


@dataclass(frozen=True, kw_only=True)
class Made:
    """What became of one original."""

    path: Path
    pair: Pair | None = None
    error: str | None = None
    """Why there is no pair."""
    known: bool = False
    """It was there already."""


def drawn_for(recipe: str, name: str, seed: int = 0) -> Degradation:
    """The degradation of a picture of this name.

    Raises:
        OptionError: there is no such recipe.
    """
    return draw(np.random.default_rng(zlib.crc32(f"{recipe} {name}".encode()) + (seed << 32)), recipe)


def cut(pixels: Tensor, side: int | None = None) -> Tensor:
    """The middle of (C, H, W): at most ``side`` pixels high and wide, cut to multiples of ``MULTIPLE``."""
    for axis in (1, 2):
        length = pixels.shape[axis]
        kept = min(length, side or length) // MULTIPLE * MULTIPLE
        pixels = pixels.narrow(axis, (length - kept) // 2, kept)
    return pixels.contiguous()


def degraded(pixels: Tensor, degradation: Degradation) -> Tensor:
    """(3, h, w) in [-1, 1] at the size that the degradation leaves, of (3, H, W)."""
    low = apply(degradation, (pixels.permute(1, 2, 0) / 2 + 0.5).numpy(), restore_size=False)
    return torch.from_numpy(low).permute(2, 0, 1).mul(2).sub(1).clamp(-1, 1).contiguous()


def read_log(path: Path) -> list[Pair]:
    """The lines of a log; one that was cut off while it was written is left out.

    Raises:
        OptionError: another line is damaged, or there is no log.
    """
    try:
        path.stat()
        lines = whole_lines(path)
    except OSError as error:
        raise OptionError(sentence(error, path, failed="cannot be read")) from error
    return [Pair.from_json(line) for line in lines]


def make_pairs(
    paths: Sequence[Path],
    out: Path,
    recipe: str,
    *,
    seed: int = 0,
    side: int | None = None,
    replay: Mapping[str, Pair] | None = None,
) -> Iterator[Made]:
    """Write the pairs of some originals, one after the other; what is there already is not made again.

    Args:
        paths: the originals.
        out: folder; made where it is missing.
        recipe: of ``RECIPES``; ``REPLAYED`` with ``replay``.
        seed: of what is drawn.
        side: longest side kept of an original.
        replay: lines of a log by name, whose degradations are applied in place of drawn ones. Where the original is
            the same too, what comes out is held against what came then.

    Raises:
        OptionError: no such recipe, two originals of one name or that would fall together on this disk, one that
            would be overwritten, or a folder of other pairs.
    """
    if recipe not in RECIPES and replay is None:
        raise OptionError(f"unknown degradation recipe {recipe!r}; there are {', '.join(RECIPES)}")
    by_name(paths)
    check_apart([(path, out / kind / f"{path.stem}.png") for path in paths for kind in ("hq", "lq")])
    known = _known(out, recipe, seed, side)
    for path in paths:
        try:
            pair = known.get(path.stem)
            if pair is not None and pair.source_sha256 == _sha256(path.read_bytes()):
                yield Made(path=path, pair=pair, known=True)
                continue
            logged = None if replay is None else replay.get(path.stem)
            if replay is not None and logged is None:
                raise ImageError(f"{path}: the log has no picture of this name", path)
            chosen = logged.degradation if logged else drawn_for(recipe, path.stem, seed)
            pair = _make(path, out, chosen, recipe, seed, side)
        except (ImageError, OSError) as error:
            yield Made(path=path, error=str(error))
            continue
        add_entries(out / LOG, pair.as_json())
        yield Made(path=path, pair=pair, error=_unlike(pair, logged) if logged else None)


def _unlike(pair: Pair, logged: Pair) -> str | None:
    """What is wrong with a replay, if anything is."""
    same_start = (pair.source_sha256, pair.side) == (logged.source_sha256, logged.side)
    if same_start and pair.lq_sha256 != logged.lq_sha256:
        return f"{pair.name}: came out otherwise than the log says; it was made by other versions of the libraries"
    return None


def _known(out: Path, recipe: str, seed: int, side: int | None) -> dict[str, Pair]:
    """The pairs that are there whole; the log is left with these alone."""
    log = out / LOG
    out.mkdir(parents=True, exist_ok=True)
    if not log.exists():
        if any(out.iterdir()):
            raise OptionError(f"{out}: holds something that is no degraded set; name a new or an empty folder")
        log.touch()
        return {}
    pairs = read_log(log)
    for pair in pairs:
        if pair.version != VERSIONS.get(recipe, 1):
            raise OptionError(
                f"{out}: holds pictures degraded as an earlier version drew {recipe}; name another folder, or replay"
                f" its {LOG}"
            )
        if (pair.recipe, pair.seed, pair.side) != (recipe, seed, side):
            raise OptionError(
                f"{out}: holds pictures degraded by {pair.recipe}, seed {pair.seed}, side {pair.side};"
                f" now asked are {recipe}, seed {seed}, side {side}; name another folder"
            )
    whole = {pair.name: pair for pair in pairs if _is_whole(out, pair)}
    write_entries(log, (pair.as_json() for pair in whole.values()))
    return whole


def _is_whole(out: Path, pair: Pair) -> bool:
    hq, lq = (out / kind / f"{pair.name}.png" for kind in ("hq", "lq"))
    try:
        return hq.exists() and pixels_sha256(read(lq).rgb) == pair.lq_sha256
    except ImageError:
        return False


def _make(path: Path, out: Path, degradation: Degradation, recipe: str, seed: int, side: int | None) -> Pair:
    source = path.read_bytes()
    original = cut(read(path).rgb, side)
    if 0 in original.shape:
        raise ImageError(f"{path}: smaller than {MULTIPLE} pixels a side", path)
    low = degraded(original, degradation)
    for kind, pixels in (("hq", original), ("lq", low)):
        write(Picture(pixels=pixels), out / kind / f"{path.stem}.png")
    return Pair(
        name=path.stem,
        source=path.name,
        source_sha256=_sha256(source),
        recipe=recipe,
        seed=seed,
        side=side,
        size=(original.shape[1], original.shape[2]),
        lq_sha256=pixels_sha256(low),
        degradation=degradation,
        version=VERSIONS.get(recipe, 1),
    )


def pixels_sha256(pixels: Tensor) -> str:
    """Of (3, H, W) in [-1, 1] as 8-bit RGB, row by row, whatever file held it."""
    rounded = pixels.clamp(-1, 1).add(1).mul(127.5).round().byte()
    return _sha256(rounded.permute(1, 2, 0).contiguous().numpy().tobytes())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

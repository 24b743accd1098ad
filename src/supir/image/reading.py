"""Picture files in: JPEG, PNG, WebP and TIFF as `Picture`s, with what came beside the pixels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
import pyvips
import torch

from supir.errors import ImageReadError, ImageWriteError, OptionError
from supir.files import sentence
from supir.image.damage import Way, ends_early, harmless, last_way, mended_ways, strict_level
from supir.image.directories import numbers, read_directories
from supir.image.opening import MAX_PIXELS, NOT_BUILT_IN, Opened, check_header, field, load, opened, reason_of
from supir.image.picture import Picture, assemble, from_integers
from supir.image.profiles import by_name, icc_kind
from supir.image.xmp import clean_xmp, named_profile, record_of
from supir.tensors.arrays import reserve

Found = TypeVar("Found")


def read(path: Path | str, *, max_pixels: int = MAX_PIXELS, salvage: bool = False) -> Picture:
    """A picture file as a `Picture`.

    The EXIF turn is applied. RGB and grey stay in their own colour space with their ICC profile, or with the one that
    EXIF, PNG or TIFF mean by other words; CMYK is converted to sRGB through its profile; palettes become RGB or RGBA;
    1, 2 and 4 bits become 8. Each of these comes with a UserWarning:

    - of an animation or a file of several pictures the full one that comes first is read;
    - a channel whose meaning a TIFF leaves open, as infrared of a scanner, is left out;
    - a file in which only an end marker, or a chunk that is not for pixels, is damaged is read;
    - with `salvage`, what is there of a damaged one is read.

    Refused are: float and 32-bit samples (their range is not in the file), LAB, YCbCr that is no JPEG, other channels
    than those of grey, RGB and CMYK. HEIC, AVIF and the raw files of cameras are developed first (``developing``).

    Args:
        path: the file; its suffix does not matter.
        max_pixels: width times height above which nothing is decoded.
        salvage: whether to read a file whose pixels are damaged or not all there.

    Raises:
        ImageReadError: missing, not readable, not a regular file, empty, damaged, truncated, or of a kind not read.
        ImageTooLargeError: more than `max_pixels`.
        OptionError: `max_pixels` is below 1.
    """

    def pixels(image: Any, bits: int) -> npt.NDArray[Any]:
        values = np.frombuffer(image.write_to_memory(), np.uint16 if bits == 16 else np.uint8)
        return values.reshape(image.height, image.width, image.bands)

    values, source = decode(Path(path), pixels, max_pixels=max_pixels, salvage=salvage)
    upright = np.ascontiguousarray(turned(values, source.turn))
    return assemble(from_integers(upright), **source.about)


def decoded_into(
    path: Path | str, file: BinaryIO, *, salvage: bool = False
) -> tuple[tuple[int, int, int], int, Picture]:
    """Decode as ``read`` does, into an open file of bare integers.

    Returns:
        The (H, W, C) of the integers, the EXIF turn that they still need, and a picture of one pixel with all that
        came along.

    Raises:
        ImageReadError, ImageTooLargeError: as `read`.
        ImageWriteError: there is no room for the integers.
    """

    def pixels(image: Any, bits: int) -> tuple[int, int, int]:
        shape = int(image.height), int(image.width), int(image.bands)
        try:
            reserve(file, math.prod(shape) * bits // 8)
        except OSError as error:
            raise ImageWriteError(sentence(error, path, failed="cannot be decoded"), path) from error
        file.seek(0)
        image.rawsave_target(pyvips.Target.new_to_descriptor(file.fileno()))
        return shape

    shape, source = decode(Path(path), pixels, salvage=salvage)
    return shape, source.turn, assemble(torch.zeros(shape[2], 1, 1), **source.about)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What came beside the pixels of a decoded file."""

    turn: int
    """EXIF orientation, 1 to 8."""
    about: dict[str, Any]
    """What else ``assemble`` is told."""


def decode(
    path: Path,
    use: Callable[[Any, int], Found],
    *,
    max_pixels: int = MAX_PIXELS,
    salvage: bool = False,
    quiet: bool = False,
) -> tuple[Found, Decoded]:
    """Decode a checked file.

    Args:
        path: the file.
        use: given the libvips image in grey or RGB, with alpha or without, and its bits a channel; may be called again
            when it failed.
        max_pixels: as in ``read``.
        salvage: as in ``read``.
        quiet: say nothing of what is passed over.
    """
    if max_pixels < 1:
        raise OptionError(f"max_pixels is {max_pixels}; it must be at least 1")
    with _checked(path, max_pixels) as (source, extras):
        about, words = _about(source)
        bits = about["bits"]
        found, damage = _decoded(source, lambda image: use(_plain(image, extras, bits), bits), salvage)
        words += [damage] if damage else []
        words += extras.words
        if source.num_pictures > 1:
            one = f"only number {source.facts.page + 1}" if source.facts.page else "only the first"
            words.append(f"{source.num_pictures} pictures in it; {one} is read")
        for word in [] if quiet else words:
            warnings.warn(f"{path}: {word}", UserWarning, stacklevel=3)
        return found, Decoded(turn=source.turn, about={**about, "damage": damage or None})


@contextmanager
def _checked(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Opened, _Extras]]:
    """A file whose header is that of a picture, and its channels beyond the colours; nothing is decoded."""
    with opened(path, max_pixels) as source:
        extras = _Extras.of(source)
        check_header(path, source.kind, source.image, max_pixels, extras.num_dropped)
        yield source, extras


def header_of(path: Path) -> tuple[tuple[int, int, int], Decoded]:
    """((H, W, C) before the turn, what came beside) of a file whose header is that of a picture; nothing is decoded."""
    with _checked(path) as (source, extras):
        about, _ = _about(source)
        cmyk = source.image.interpretation == "cmyk"
        shape = source.image.height, source.image.width, source.image.bands - extras.num_dropped - cmyk
        return shape, Decoded(turn=source.turn, about={**about, "damage": None})


def check_file(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> tuple[str, int, int]:
    """(kind, width, height) of a file whose header says that `read` would take it; nothing is decoded.

    The kind is JPEG, PNG, WebP or TIFF, by content, and PNG of what is developed first; the size is in pixels, before
    any EXIF turn.

    Raises:
        ImageReadError, ImageTooLargeError: as `read`; damage behind the header is not seen.
    """
    with _checked(Path(path), max_pixels) as (source, _):
        return source.kind, int(source.image.width), int(source.image.height)


def read_record(path: Path | str) -> dict[str, str]:
    """The record that `write` put into a file's XMP; empty if it has none. Only the header is read.

    Raises:
        ImageReadError: as `read`.
    """
    with opened(Path(path)) as source:
        return record_of(source.facts.xmp)


@dataclass(frozen=True, kw_only=True)
class _Extras:
    """The channels of a TIFF beyond its colours."""

    num_colours: int = 0
    """0 where there is nothing to leave out."""
    alpha: int | None = None
    num_dropped: int = 0

    @staticmethod
    def of(source: Opened) -> _Extras:
        said = source.facts.extras if source.kind == "TIFF" else ()
        num_colours = source.image.bands - len(said)
        if not said or num_colours < 1 or (num_colours == 1 and len(said) > 2):
            return _Extras()
        alpha = next((index for index, meaning in enumerate(said) if meaning in (1, 2)), None)
        if 1 in said[1:]:  # libvips divides the colours by the first of them
            raise ImageReadError(
                f"{source.path}: its alpha comes after another channel; save it anew with alpha first", source.path
            )
        dropped = len(said) - (alpha is not None)
        place = None if alpha is None else num_colours + alpha
        return _Extras(num_colours=num_colours, alpha=place, num_dropped=dropped)

    @property
    def words(self) -> list[str]:
        if not self.num_dropped:
            return []
        one = self.num_dropped == 1
        what = "a channel" if one else f"{self.num_dropped} channels"
        return [f"{what} whose meaning the file leaves open {'is' if one else 'are'} left out"]


def _plain(image: Any, extras: _Extras, bits: int) -> Any:
    """In grey or RGB, with alpha or without."""
    if extras.num_dropped:
        space = image.interpretation
        kept = image.extract_band(0, n=extras.num_colours)
        if extras.alpha is not None:
            kept = kept.bandjoin(image.extract_band(extras.alpha))
        image = kept.copy(interpretation=space)
    if image.interpretation == "cmyk":
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", intent="relative", depth=bits)
    return image


def _about(source: Opened) -> tuple[dict[str, Any], list[str]]:
    """(what ``assemble`` is told, what is to be said)."""
    facts, image = source.facts, source.image
    words = ["a part of it that holds no pixels is damaged, and left out"] if facts.broken else []
    icc, colours = field(image, "icc-profile-data"), facts.colours or facts.exif.colours
    if colours is None and (name := named_profile(facts.xmp)) is not None:
        colours = by_name(name)
    if image.interpretation == "cmyk":
        icc, colours = bytes(pyvips.Operation.call("profile_load", "srgb")), None
    elif icc is not None and icc_kind(bytes(icc)) is None:
        words.append("its colour profile is damaged; sRGB is assumed")
    return {
        "icc": None if icc is None else bytes(icc), "colours": colours, "exif": facts.exif.cleaned,
        "xmp": None if facts.xmp is None else clean_xmp(facts.xmp), "iptc": facts.iptc, "texts": facts.texts,
        "dpi": facts.dpi, "bits": 16 if image.format == "ushort" else 8, "path": source.path,
    }, words  # fmt: skip


def _decoded(source: Opened, use: Callable[[Any], Found], salvage: bool) -> tuple[Found, str]:
    """(what ``use`` gives, what was wrong with the file): by the first way that succeeds."""
    reason = "parts of the picture are missing"
    for way in _ways(source):
        try:
            found = _by(source, way, use)
        except pyvips.Error as error:
            reason = reason_of(error)
            if reason.endswith(NOT_BUILT_IN):
                raise
            continue
        if found is not None:
            return found, way.word
        reason = "its data do not lead to its end"
    if salvage:
        way = last_way(source.kind, source.all_bytes())
        return use(source.load(way.data, way.fail_on)), f"damaged: {reason}; what is there of it is taken"
    raise ImageReadError(
        f"{source.path}: damaged or truncated: {reason}; --salvage (salvage=True) restores what is there", source.path
    )


def _ways(source: Opened) -> Iterator[Way]:
    """Ways to decode all of its pixels, the strict first; a later one is only made when those before it failed."""
    if source.kind != "JPEG":
        packing = 0
        if source.kind == "TIFF":
            packing = numbers(read_directories(source.stream)[source.facts.page]).get(259, 1)
        yield Way(data=None, fail_on=strict_level(source.kind, packing), word=source.facts.word)
    yield from mended_ways(source.kind, source.all_bytes())


def _by(source: Opened, way: Way, use: Callable[[Any], Found]) -> Found | None:
    """What ``use`` gives; None where the decoder came to the picture's end before that of its data."""
    try:
        found = use(source.load(way.data, way.fail_on))
    except pyvips.Error as error:
        if not harmless(reason_of(error)):
            raise
        found = use(source.load(way.data, "error"))
    if (shorter := ends_early(way)) is not None:
        try:
            image = load(source.kind, shorter, "error")
            image.avg()
        except pyvips.Error:
            return found
        return None
    return found


def turned(values: npt.NDArray[Any], turn: int) -> npt.NDArray[Any]:
    """A view of (H, W, C) that undoes EXIF orientation `turn` (1 to 8; EXIF 3.0, 4.6.5, tag 274)."""
    if turn in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    return np.flip(values, {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(turn, ()))

"""Picture files out: the format by suffix, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import PIL.Image
import pyvips

from supir.errors import ImageWriteError, OptionError
from supir.files import sentence, temporary_file, written_whole
from supir.image.credentials import Signature
from supir.image.marking import PIXELS, RESTORED, pixels_sha256
from supir.image.opening import load, quiet_libvips
from supir.image.paths import MAX_SIDE, check_size, check_target, kind_of
from supir.image.picture import Picture, on_white, to_integers
from supir.image.profiles import icc_kind
from supir.image.storing import Beside, beside_of, put_beside, webp_with
from supir.image.xmp import add_record

_WITHOUT_GREY = ("WebP", "AVIF")
_SPEED = 8
"""Of libavif, from 0, slow and small, to 10."""
_UNKNOWN = hashlib.sha256(b"no pixels").hexdigest()
_CLASSIC_TIFF = 2**31
"""Bytes of pixels above which a TIFF is written with offsets of 64 bits."""


def write(
    picture: Picture,
    path: Path | str,
    *,
    quality: int = 95,
    bits: int | None = None,
    record: Mapping[str, str] | None = None,
    source_type: str = RESTORED,
    signature: Signature | None = None,
) -> None:
    """Writes a picture with its alpha, ICC profile, EXIF, XMP, IPTC, comments and resolution.

    What a format has no place for goes into XMP (`supir.image.storing`); what has none there either is named in a
    UserWarning.

    It is written under a temporary name in the same folder, then renamed: there is no half-written file at any
    moment, and none is left after a failure. The folder is made. Values are rounded to the nearest. JPEG has no
    alpha: it is laid on white, with a UserWarning. WebP and AVIF have no grey: it is stored as RGB, without a grey
    profile.

    Args:
        picture: what to write.
        path: where; the suffix (.jpg, .jpeg, .png, .webp, .tif, .tiff, .avif) decides the format.
        quality: 1 to 100, of JPEG, WebP and AVIF; PNG and TIFF lose nothing.
        bits: 8 or 16 per channel; None is the picture's own in PNG and TIFF, and 8 in JPEG, WebP and AVIF, which get
            no other.
        record: what was done, as plain names and texts, kept in the XMP (`read_record`); "bits" is added where a
            16-bit picture is stored in 8, and the hash of the stored pixels.
        source_type: what the XMP says beside the record of the picture's digital source, a URI of the IPTC's.
        signature: signs what has a record.

    Raises:
        ImageWriteError: the suffix, the size or the bits are not of this format, or the file cannot be written there.
        OptionError: quality or bits outside what is allowed, or a record key that is not a plain name.
    """
    form = _Form.of(
        picture, (picture.height, picture.width), Path(path), quality=quality, bits=bits, record=record,
        source_type=source_type, signature=signature,
    )  # fmt: skip
    values = form.integers(picture)
    image = pyvips.Image.new_from_array(values)
    store(form.path, lambda stream: form.write(image, stream))


def write_in_bands(
    frame: Picture,
    size: tuple[int, int],
    bands: Iterable[Picture],
    path: Path | str,
    *,
    record: Mapping[str, str] | None = None,
    source_type: str = RESTORED,
    signature: Signature | None = None,
) -> None:
    """As ``write``, of a picture too large for memory: its bands of rows, from top to bottom, are asked for one by one.

    Args:
        frame: any picture with the metadata, bits and channels of the whole; transparent if the whole may be.
        size: (height, width) of the whole.
        bands: pictures of the whole's width.
        path, record, source_type, signature: as in ``write``, whose defaults hold for the rest.

    Raises:
        ImageWriteError, OptionError: as ``write``.
    """
    form = _Form.of(frame, size, Path(path), record=record, source_type=source_type, signature=signature)

    def save(stream: BinaryIO) -> None:
        with temporary_file(form.path.parent) as integers:
            num_channels = 0
            for band in bands:
                values = form.integers(band)
                num_channels = values.shape[2]
                integers.write(values.tobytes())
            integers.flush()
            kind = "ushort" if form.bits == 16 else "uchar"
            form.write(pyvips.Image.rawload(integers.name, size[1], size[0], num_channels, format=kind), stream)

    store(form.path, save)


@dataclass(frozen=True, kw_only=True)
class _Form:
    """How a picture is stored: the format, its bits, and what is stored beside the pixels."""

    frame: Picture
    path: Path
    kind: str
    quality: int
    bits: int
    beside: Beside
    record: Mapping[str, str] | None
    source_type: str
    signature: Signature | None

    @staticmethod
    def of(
        frame: Picture, size: tuple[int, int], path: Path, *, quality: int = 95, bits: int | None = None,
        record: Mapping[str, str] | None, source_type: str, signature: Signature | None,
    ) -> _Form:  # fmt: skip
        """Checked, as ``write`` says."""
        kind = kind_of(path)
        if not 1 <= quality <= 100:
            raise OptionError(f"quality is {quality}; allowed is 1 to 100")
        if bits not in (None, 8, 16):
            raise OptionError(f"bits is {bits}; allowed are 8 and 16")
        if bits == 16 and kind in MAX_SIDE:
            raise ImageWriteError(f"{path}: {kind} holds 8 bits per channel; choose .png or .tiff for 16", path)
        check_size(path, kind, size)
        if kind == "JPEG" and frame.alpha is not None and bool((frame.alpha < 1).any()):
            warnings.warn(f"{path}: JPEG has no transparency; laid on white", UserWarning, stacklevel=3)
        stored_bits = 8 if kind in MAX_SIDE else bits or frame.bits
        if record is not None and stored_bits < frame.bits:
            record = {**record, "bits": "8 (the input has 16)"}
        if record is not None:
            if frame.damage is not None:
                record = {**record, "damage": frame.damage}
            add_record(None, record, source_type)  # what is wrong with it is said first
        return _Form(
            frame=frame, path=path, kind=kind, quality=quality, bits=stored_bits, beside=beside_of(frame, kind, path),
            record=record, source_type=source_type, signature=signature,
        )  # fmt: skip

    def integers(self, picture: Picture) -> npt.NDArray[Any]:
        """(H, W, C) of a picture or a band of it; a JPEG is laid on white."""
        return to_integers(on_white(picture) if self.kind == "JPEG" else picture, self.bits)

    def write(self, image: Any, stream: BinaryIO) -> None:
        """As ``save``, and signed where it is to be."""
        if self.signature is None or self.record is None:
            self.save(image, stream)
            return
        with temporary_file(self.path.parent) as unsigned:
            self.save(image, unsigned)
            self.signature.put(unsigned, stream, self.kind, self.record, self.source_type)

    def save(self, image: Any, stream: BinaryIO) -> None:
        """Write the libvips image of the integers into an open file, with all that goes beside the pixels."""
        quiet_libvips()
        frame, wide = self.frame, "16" if self.bits == 16 else ""
        space = f"grey{wide}" if frame.grey and wide else "b-w" if frame.grey else f"rgb{wide}" if wide else "srgb"
        image = image.copy(interpretation=space)
        icc = (
            frame.icc
            if icc_kind(frame.icc) == ("grey" if frame.grey and self.kind not in _WITHOUT_GREY else "rgb")
            else None
        )
        if icc is not None:
            image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
        if self.kind == "AVIF":
            stream.write(self._avif(image, icc))
            return
        if self.kind == "WebP":  # libvips has it in memory as a whole in any case
            data = image.webpsave_buffer(Q=self.quality, keep="none")
            stream.write(webp_with(data, self._beside(data), icc))
            return
        _save(image, pyvips.Target.new_to_descriptor(stream.fileno()), self.kind, self.quality)
        put_beside(stream, self.kind, self._beside(stream.fileno()))

    def _avif(self, image: Any, icc: bytes | None) -> bytes:
        """The bytes of the file, encoded by libavif: in a tenth of libvips' time.

        What stands beside the pixels goes in with them, so the place of their hash is filled in afterwards.
        """
        colours = image.colourspace("srgb") if image.bands < 3 else image
        values = np.ndarray((image.height, image.width, colours.bands), np.uint8, colours.write_to_memory())
        record = None if self.record is None else {**self.record, PIXELS: _UNKNOWN}
        beside = self.beside
        if record is not None:
            beside = replace(beside, xmp=add_record(beside.xmp, record, self.source_type))
        given = {"icc_profile": icc, "exif": beside.exif, "xmp": beside.xmp}
        stream = io.BytesIO()
        PIL.Image.fromarray(values).save(
            stream, "AVIF", quality=self.quality, subsampling="4:4:4", speed=_SPEED,
            **{name: block for name, block in given.items() if block},
        )  # fmt: skip
        data = stream.getvalue()
        if record is None:
            return data
        return data.replace(_UNKNOWN.encode(), pixels_sha256(load("AVIF", data, "error")).encode())

    def _beside(self, stored: int | bytes) -> Beside:
        """What goes beside the pixels, which are stored and hashed as they will be read."""
        if self.record is None:
            return self.beside
        record = {**self.record, PIXELS: pixels_sha256(load(self.kind, stored, "error"))}
        return replace(self.beside, xmp=add_record(self.beside.xmp, record, self.source_type))


def _save(image: Any, target: Any, kind: str, quality: int) -> None:
    if kind == "JPEG":
        image.jpegsave_target(target, Q=quality, optimize_coding=True, keep="icc")
    elif kind == "PNG":
        image.pngsave_target(target, keep="icc")
    else:
        size = image.width * image.height * image.bands * (2 if image.format == "ushort" else 1)
        large = size > _CLASSIC_TIFF
        image.tiffsave_target(target, compression="deflate", predictor="horizontal", bigtiff=large, keep="icc")


def store(path: Path, save: Callable[[BinaryIO], None]) -> None:
    """Calls `save` with a new open file that takes the path's name when all is written.

    Raises:
        ImageWriteError: it cannot be written there.
    """
    check_target(path)
    try:
        with written_whole(path) as stream:
            _saved(save, stream)
    except pyvips.Error as error:
        text = str(error).strip()
        reason = text.splitlines()[-1].strip() if text else "libvips does not say why"
        raise ImageWriteError(f"{path}: cannot be written: {reason}", path) from error
    except OSError as error:
        raise ImageWriteError(sentence(error, path, failed="cannot be written"), path) from error
    except ValueError as error:
        raise ImageWriteError(f"{path}: cannot be written: {error}", path) from error


def _saved(save: Callable[[BinaryIO], None], stream: BinaryIO) -> None:
    try:
        save(stream)
    except pyvips.Error:  # some of its writers do not say why: the system does, when it is asked once more
        stream.write(bytes(2**16))
        stream.flush()
        raise

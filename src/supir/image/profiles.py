"""Colour spaces that a file names without a profile, as the ICC profiles they mean.

A profile of three primaries or of grey is a matrix and curves (ICC.1:2022, F.3): a few hundred bytes, written here, so
that what EXIF, PNG or TIFF say in their own ways goes into every format in the one way that all of them know.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Curve = float | tuple[float, ...]
"""From encoded to linear light: an exponent, or its values at even steps, all from 0 to 1."""

_D50 = np.array([0.9642, 1.0, 0.8249])  # of the space that profiles lead to
_D65, _D50_XY, _C, _DCI = (0.3127, 0.3290), (0.3457, 0.3585), (0.3101, 0.3162), (0.314, 0.351)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_NEAR = 0.002


def _table(function: Callable[[Array], Array]) -> Curve:
    return tuple(float(value) for value in function(np.linspace(0, 1, 1024)).clip(0, 1))


def _srgb(x: Array) -> Array:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _bt709(x: Array) -> Array:
    return np.where(x < 0.081, x / 4.5, ((x + 0.099) / 1.099) ** (1 / 0.45))


def _pq(x: Array) -> Array:
    """BT.2100, of 10 000 cd/m2."""
    power = x ** (1 / 78.84375)
    return (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)


def _hlg(x: Array) -> Array:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(x <= 0.5, x * x / 3, (np.exp((x - c) / a) + b) / 12)


SRGB_CURVE = _table(_srgb)


@dataclass(frozen=True)
class Colours:
    """A colour space of three primaries."""

    primaries: tuple[float, ...] = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
    """x and y of red, green and blue."""
    white: tuple[float, float] = _D65
    curves: tuple[Curve, ...] = (SRGB_CURVE,)
    """One, or one a channel."""
    name: str = "sRGB"

    @property
    def is_srgb(self) -> bool:
        """Whether it is what a picture without any word is taken for."""
        alike = zip((*self.primaries, *self.white), (*SRGB.primaries, *SRGB.white), strict=True)
        return all(abs(one - other) < _NEAR for one, other in alike) and all(
            curve in (SRGB_CURVE, 2.2) or (isinstance(curve, float) and abs(curve - 2.2) < 0.005)
            for curve in self.curves
        )


SRGB = Colours()
ADOBE_RGB = Colours((0.64, 0.33, 0.21, 0.71, 0.15, 0.06), _D65, (563 / 256,), "Adobe RGB (1998)")
_P3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
_BT601 = (0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
_NAMES = {
    "Adobe RGB (1998)": ADOBE_RGB,
    "Display P3": Colours(_P3, _D65, (SRGB_CURVE,), "Display P3"),
    "ProPhoto RGB": Colours((0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), _D50_XY, (1.8,), "ProPhoto RGB"),
}
# ITU-T H.273, tables 2 and 3
_PRIMARIES: dict[int, tuple[tuple[float, ...], tuple[float, float]]] = {
    1: (SRGB.primaries, _D65), 4: ((0.67, 0.33, 0.21, 0.71, 0.14, 0.08), _C),
    5: ((0.64, 0.33, 0.29, 0.60, 0.15, 0.06), _D65), 6: (_BT601, _D65), 7: (_BT601, _D65),
    9: ((0.708, 0.292, 0.170, 0.797, 0.131, 0.046), _D65), 11: (_P3, _DCI), 12: (_P3, _D65),
    22: ((0.630, 0.340, 0.295, 0.605, 0.155, 0.077), _D65),
}  # fmt: skip
_TRANSFERS: dict[int, Callable[[], Curve]] = {
    **dict.fromkeys((1, 6, 14, 15), functools.partial(_table, _bt709)), 4: lambda: 2.2, 5: lambda: 2.8,
    8: lambda: 1.0, 13: lambda: SRGB_CURVE, 16: functools.partial(_table, _pq), 17: lambda: 2.6,
    18: functools.partial(_table, _hlg),
}  # fmt: skip


def by_cicp(primaries: int, transfer: int) -> Colours | None:
    """The colour space of two code points of ITU-T H.273, as PNG's cICP has them; None for one not known here."""
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return None
    points, white = _PRIMARIES[primaries]
    return Colours(points, white, (_TRANSFERS[transfer](),), f"H.273 {primaries}/{transfer}")


def by_name(name: str) -> Colours | None:
    """The colour space of a profile that is named and not there, as Photoshop leaves it in XMP."""
    return _NAMES.get(name)


def by_gamma(gamma: float, points: Sequence[float]) -> Colours:
    """The colour space that PNG's gAMA and cHRM say.

    Args:
        gamma: the exponent of the encoding; 0 where it is not said.
        points: x and y of white, red, green and blue; none where they are not said.
    """
    curves = SRGB.curves if not gamma or abs(gamma - 0.45455) < 1e-5 else (round(1 / gamma, 4),)
    primaries, white = (tuple(points[2:]), (points[0], points[1])) if points else (SRGB.primaries, SRGB.white)
    return Colours(primaries, white, curves, "as PNG says")


@functools.lru_cache(maxsize=32)
def profile(colours: Colours, *, grey: bool = False) -> bytes | None:
    """The ICC profile of a colour space, for grey of its curve; None for sRGB, and where its numbers are no space."""
    if colours.is_srgb:
        return None
    curves = [_curve(curve) for curve in colours.curves]
    tags = {b"desc": _text(colours.name), b"cprt": _text("CC0"), b"wtpt": _xyz(_D50)}
    if grey:
        tags |= {b"kTRC": curves[0]}
    else:
        matrix = _matrix(colours)
        if matrix is None:
            return None
        curves = curves * 3 if len(curves) == 1 else curves
        for name, column, curve in zip("rgb", matrix.T, curves, strict=True):
            tags |= {f"{name}XYZ".encode(): _xyz(column), f"{name}TRC".encode(): curve}
    return _file(b"GRAY" if grey else b"RGB ", tags)


def icc_kind(block: bytes | None) -> str | None:
    """ "rgb", "grey" or "cmyk"; None for none, another or a damaged one (ICC.1:2022, 7.2)."""
    if block is None or len(block) < 132 or block[36:40] != b"acsp":
        return None
    return {b"RGB ": "rgb", b"GRAY": "grey", b"CMYK": "cmyk"}.get(block[16:20])


def _matrix(colours: Colours) -> Array | None:
    """From linear RGB to XYZ under D50, by Bradford's adaptation (ICC.1:2022, annex E)."""
    if min(*colours.white, *colours.primaries[1::2]) <= 0:
        return None
    points = np.array([_of_xy(*pair) for pair in zip(colours.primaries[::2], colours.primaries[1::2], strict=True)]).T
    white = _of_xy(*colours.white)
    if abs(np.linalg.det(points)) < 1e-6:
        return None
    source, target = _BRADFORD @ white, _BRADFORD @ _D50
    if min(abs(source)) < 1e-6:
        return None
    adapt = np.linalg.inv(_BRADFORD) @ np.diag(target / source) @ _BRADFORD
    found: Array = adapt @ points @ np.diag(np.linalg.solve(points, white))
    return found if abs(found).max() < 4 else None


def _of_xy(x: float, y: float) -> Array:
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _xyz(values: Array) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))


def _curve(curve: Curve) -> bytes:
    if isinstance(curve, float):
        return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(min(max(curve, 0.1), 10) * 256))
    steps = np.rint(np.array(curve) * 65535).clip(0, 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(steps)) + steps.tobytes()


def _text(text: str) -> bytes:
    words = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(words), 28) + words


def _file(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"none", 0x04300000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3i", *(round(value * 65536) for value in _D50))
    return head.ljust(128, b"\0") + table + body

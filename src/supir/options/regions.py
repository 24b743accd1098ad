"""Regions as a user names them: where, and what is to be done there otherwise. Several divided by |.

    face.png; protect                            the input's own pixels where the mask is white
    10%,20%,30%,40%; protect=preview             the clean preview's in a rectangle: left, top, width, height
    face.png; only                               all but the region stays as it came
    sky.png; prompt=a clear sky; detail=0.2      dials of its own, those of ``DIALS``

A mask is a picture of the photo's shape, at any size: a file, or the bytes of a small PNG written as
``data:image/png;base64,...``, which a page paints and a service takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from supir.errors import OptionError
from supir.options.dials import dialled, layered
from supir.prompts import whole_prompts

if TYPE_CHECKING:
    from supir.options.restore import RestoreOptions

DIVIDER, SEPARATOR = "|", ";"
INLINE = "data:image/png;base64,"
"""How a mask begins that is no file."""
DIALS = ("prompt", "detail", "control_scale", "restoration_guidance")
"""The options that a region may have of its own."""
KEEPS = ("input", "preview")
MOST = 16
"""Regions at most: each with dials of its own may cost an evaluation more."""
FORM = (
    "it must be AREA; WHAT; WHAT ..., where AREA is LEFT,TOP,WIDTH,HEIGHT in pixels of the photo or in %, or the file"
    f" of a mask, and WHAT is protect, protect=preview, only, only=preview, or one of {', '.join(DIALS)} with =VALUE"
)
_LENGTH = r"\s*(\d+(?:\.\d+)?)(%?)\s*"
_RECTANGLE = re.compile(",".join([_LENGTH] * 4))
_MASK = re.compile(rf"\s*({re.escape(INLINE)}[A-Za-z0-9+/=]*)\s*(?:;|$)")


@dataclass(frozen=True)
class Rectangle:
    """Left, top, width and height: pixels of the photo, or shares of its sides."""

    lengths: tuple[float, float, float, float]
    shares: tuple[bool, bool, bool, bool]

    def within(self, width: int, height: int) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) as shares of the sides of a photo of so many pixels.

        Raises:
            OptionError: nothing of it lies on the photo.
        """
        sides = (width, height, width, height)
        left, top, across, down = (
            length / 100 if share else length / side
            for length, share, side in zip(self.lengths, self.shares, sides, strict=True)
        )
        if left >= 1 or top >= 1 or across <= 0 or down <= 0:
            raise OptionError(f"region {self} lies outside of the photo, which is {width} x {height} pixels")
        return left, top, min(left + across, 1.0), min(top + down, 1.0)

    def __str__(self) -> str:
        return ",".join(f"{length:g}{'%' * share}" for length, share in zip(self.lengths, self.shares, strict=True))


@dataclass(frozen=True)
class Region:
    """One that is asked for."""

    area: Rectangle | str
    """A rectangle, or a mask: a file's name, or bytes as ``INLINE`` says."""
    keep: str = ""
    """Whose pixels stay, of ``KEEPS``; empty where none do."""
    only: bool = False
    """They stay everywhere but here."""
    dials: tuple[tuple[str, str], ...] = field(default=())
    """Options of its own, as they were written."""

    @property
    def mask(self) -> str:
        """The mask's name; empty of a rectangle."""
        return self.area if isinstance(self.area, str) else ""

    def with_mask(self, name: str) -> Region:
        """The same of another file."""
        return replace(self, area=name)

    def __str__(self) -> str:
        kept = f"{'only' if self.only else 'protect'}={self.keep}" if self.keep else ""
        words = [f"{name}={value}" for name, value in self.dials]
        return f"{SEPARATOR} ".join(filter(None, [str(self.area), kept, *words]))


@lru_cache(maxsize=64)
def split_regions(text: str) -> tuple[Region, ...]:
    """The regions of an option's text, in its order; none where it is empty. Values of dials are not checked.

    Raises:
        OptionError: one is not of this form, keeps what another treats, or has nothing to do.
    """
    found = tuple(map(_region, text.split(DIVIDER))) if text.strip() else ()
    if len(found) > MOST:
        raise OptionError(f"region holds {len(found)} regions; {MOST} are allowed")
    if len({each.keep for each in found if each.only}) > 1:
        raise OptionError(
            "region: one says only=input and another only=preview; all but them can stay in one way alone"
        )
    return found


def joined_regions(regions: tuple[Region, ...]) -> str:
    """The text that `split_regions` reads."""
    return f" {DIVIDER} ".join(map(str, regions))


def options_in(options: RestoreOptions, region: Region, *, own_ends: bool = True) -> RestoreOptions:
    """What acts in a region: the options with its dials.

    Args:
        options: of the picture.
        region: of them.
        own_ends: whether the model's encoder has both ends of ``detail``; elsewhere it stands for the numbers that
            ``supir.options.dialled`` says.

    Raises:
        OptionError: a dial is out of its range.
    """
    numbers = dict[str, float]()
    try:
        given = type(options).parse(dict(region.dials))
        dials = {name: None if value == "off" and name != "prompt" else value for name, value in given.items()}
        detail = dials.get("detail")
        if "prompt" in dials:
            dials["tile_prompts"] = ""
        if detail is not None:
            type(options).fields()["detail"].check(detail)
            if not own_ends and not options.reference_quirks:
                numbers = dialled("lightning" if options.grid == "trailing" else "quality", detail)
        return type(options).silent(**layered(vars(options) | {"region": ""}, numbers, dials))
    except OptionError as error:
        raise OptionError(f"region {_shown(str(region))}: {error}") from None


def prompts_of_regions(options: RestoreOptions) -> tuple[list[str], list[int]]:
    """The different prompts of regions, whole, and for each region with dials which is its own: from 1 on; 0: none."""
    prompts, numbers = list[str](), list[int]()
    for region in split_regions(options.region):
        if not region.dials:
            continue
        if "prompt" not in dict(region.dials):
            numbers.append(0)
            continue
        [prompt], _ = whole_prompts(options_in(options, region))
        if prompt not in prompts:
            prompts.append(prompt)
        numbers.append(prompts.index(prompt) + 1)
    return prompts, numbers


def _region(text: str) -> Region:
    area, rest = _area(text)
    keeps: list[tuple[bool, str]] = []
    dials: dict[str, str] = {}
    for word in filter(None, (each.strip() for each in rest.split(SEPARATOR))):
        name, sign, value = (part.strip() for part in word.partition("="))
        if name in ("protect", "only") and (value in KEEPS or not sign):
            keeps.append((name == "only", value or KEEPS[0]))
        elif name in DIALS and sign and name not in dials:
            dials[name] = value
        else:
            raise OptionError(f"region {_shown(text)} says {word!r}; {FORM}")
    if len(keeps) + bool(dials) == 0 or len(keeps) > 1:
        raise OptionError(f"region {_shown(text)} says {'more than one' if keeps else 'nothing'} of its place; {FORM}")
    only, keep = keeps[0] if keeps else (False, "")
    if keep and dials and not only:
        raise OptionError(
            f"region {_shown(text)} is protected, so that {', '.join(dials)} cannot act there; leave out one"
        )
    return Region(area, keep, only, tuple(dials.items()))


def _area(text: str) -> tuple[Rectangle | str, str]:
    """The place, and what stands behind it."""
    if (inline := _MASK.match(text)) is not None:
        return inline[1], text[inline.end() :]
    area, _, rest = text.partition(SEPARATOR)
    if (found := _RECTANGLE.fullmatch(area)) is not None:
        lengths, shares = found.groups()[::2], found.groups()[1::2]
        return Rectangle(tuple(map(float, lengths)), tuple(map(bool, shares))), rest  # type: ignore[arg-type]
    if not area.strip():
        raise OptionError(f"region {_shown(text)} does not say where; {FORM}")
    return area.strip(), rest


def _shown(text: str) -> str:
    """Not all of the bytes of a painted mask."""
    return repr(text.strip() if len(text) < 100 else text.strip()[:80] + " ...")

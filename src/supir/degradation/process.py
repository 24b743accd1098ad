"""A drawn degradation: a list of operations with all their values, one line of JSON, the same bytes at every replay.

``OPERATIONS`` is the one list of what a step may be called; the signature of its function says which values it takes.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, get_type_hints

import numpy as np

from supir.degradation import lens, ops, prints, sensor, video
from supir.degradation.ops import Picture
from supir.errors import OptionError
from supir.options.fields import Field, Range, field_of

OPERATIONS: Mapping[str, Callable[..., Picture]] = MappingProxyType(
    {
        "blur": ops.shaped_blur,
        "sinc": ops.sinc,
        "resize": ops.resize,
        "shrink": ops.shrink,
        "reduce": ops.reduce,
        "gaussian_noise": ops.gaussian_noise,
        "poisson_noise": ops.poisson_noise,
        "jpeg": ops.jpeg,
        "motion_blur": lens.motion_blur,
        "defocus": lens.defocus,
        "fringes": lens.fringes,
        "haze": lens.haze,
        "sensor": sensor.sensor,
        "low_light": sensor.low_light,
        "in_camera_denoise": sensor.in_camera_denoise,
        "fade": prints.fade,
        "grain": prints.grain,
        "scratches": prints.scratches,
        "creases": prints.creases,
        "dust": prints.dust,
        "halftone": prints.halftone,
        "webp": ops.webp,
        "recompress": ops.recompress,
        "video": video.video,
    }
)
"""Every operation by the name it has in a step."""
SMALLEST = 8
"""No resize goes below this many pixels a side."""


Fraction = Annotated[float, Range(0.001, 8.0)]
"""A size as a fraction of the clean picture's."""


@functools.cache
def parameters(operation: Callable[..., Any]) -> dict[str, Field]:
    """The parameters of an operation, all but its picture; ``height`` and ``width`` are written as one ``fraction``."""
    hints, found = get_type_hints(operation, include_extras=True), {}
    for name, parameter in inspect.signature(operation).parameters.items():
        if name != "picture":
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            found[name] = field_of(name, hints[name], default=default)
    if "height" in found:
        del found["height"], found["width"]
        found["fraction"] = field_of("fraction", Fraction)
    return found


def check(name: str, operation: Callable[..., Any], values: Mapping[str, object]) -> None:
    """Refuse values that the operation does not take.

    Raises:
        OptionError: a value is missing, unknown, or not allowed; the message names it and says what is.
    """
    allowed = parameters(operation)
    for key, field in allowed.items():
        if key not in values and field.default is ...:
            raise OptionError(f"degradation step {name!r} lacks {key}: {field}")
    for key, value in values.items():
        if key not in allowed:
            raise OptionError(f"degradation step {name!r} has no value {key!r}; it takes {', '.join(allowed)}")
        try:
            allowed[key].check(value)
        except OptionError as error:
            raise OptionError(f"degradation step {name!r}: {error}") from None


@dataclass(frozen=True)
class Step:
    """One operation of ``OPERATIONS`` with its values, checked at creation.

    Raises:
        OptionError: no operation of that name, or a value that it does not take.
    """

    operation: str
    values: tuple[tuple[str, Any], ...]
    """Its arguments by name. Sizes are fractions of the clean picture's, so that one drawing fits any picture."""

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise OptionError(f"unknown degradation step {self.operation!r}; there are {', '.join(OPERATIONS)}")
        check(self.operation, OPERATIONS[self.operation], dict(self.values))


def step(operation: str, **values: Any) -> Step:
    """A ``Step`` with its values written as arguments."""
    return Step(operation, tuple(values.items()))


@dataclass(frozen=True)
class Degradation:
    """A drawn degradation."""

    steps: tuple[Step, ...]

    def to_json(self) -> str:
        """One line: a list of pairs, each the name of an operation and an object of its values."""
        return json.dumps([[step.operation, dict(step.values)] for step in self.steps])

    @staticmethod
    def from_json(line: str) -> Degradation:
        """The inverse of ``to_json``.

        Raises:
            OptionError: the line is not JSON of that form, or a step is not one of ``OPERATIONS`` with allowed values.
        """
        try:
            pairs = json.loads(line)
        except json.JSONDecodeError as error:
            raise OptionError(f"a degradation is a line of JSON, but this is none ({error}): {line[:80]!r}") from None
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], dict)
            for pair in pairs
        ):
            raise OptionError(f'a degradation is a list of ["operation", {{values}}] pairs, not {line[:80]!r}')
        return Degradation(tuple(Step(name, tuple(values.items())) for name, values in pairs))


def apply(degradation: Degradation, picture: Picture, *, restore_size: bool = True) -> Picture:
    """The degraded picture, float32 (H, W, 3) RGB in [0, 1], of the clean one's size unless ``restore_size`` is off.

    The result is rounded to 8 bits, as a stored photo would be, before it is brought back to size by the cubic that the
    pipeline enlarges with (``supir.image.resize``): who learns from it sees what will be asked of it.
    """
    height, width = picture.shape[:2]
    degraded = picture
    for step in degradation.steps:
        values = dict(step.values)
        if "fraction" in values:
            fraction = values.pop("fraction")
            values["height"] = max(SMALLEST, round(height * fraction))
            values["width"] = max(SMALLEST, round(width * fraction))
        degraded = OPERATIONS[step.operation](degraded, **values)
    degraded = (np.round(degraded * 255) / 255).astype(np.float32)
    return ops.reduce(degraded, height, width) if restore_size else degraded

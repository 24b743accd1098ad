"""What the values of an operation may be: limits as annotations of its parameters, checked before it runs.

The signature of an operation is the whole description of the JSON that calls it: ``Annotated[float, Limits(0, 1)]`` is
a number from 0 to 1, a ``Literal`` one of some names, and a parameter with a default may be left out.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from supir.errors import OptionError


@dataclass(frozen=True)
class Limits:
    """The lowest and the highest value allowed, both included."""

    low: float
    high: float


Share = Annotated[float, Limits(0.0, 1.0)]
"""A part of the whole, 0 to 1."""
Angle = Annotated[float, Limits(-2 * math.pi, 2 * math.pi)]
"""Radians; 0 points right, a quarter turn down."""
Seed = Annotated[int, Limits(0, 2**32 - 1)]
"""Where an operation's chance starts."""
FRACTION = Limits(0.001, 8.0)
"""A size as a fraction of the clean picture's."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of an operation: its name, its type, what is allowed, and whether it must be given."""

    name: str
    kind: type
    limits: Limits | None
    choices: tuple[str, ...]
    required: bool

    def allows(self, value: object) -> bool:
        """Whether the value may be given; a whole number counts as a number, True and False do not."""
        if self.choices:
            return isinstance(value, str) and value in self.choices
        if self.kind is bool:
            return isinstance(value, bool)
        if isinstance(value, bool) or not isinstance(value, (int, float) if self.kind is float else int):
            return False
        return self.limits is None or self.limits.low <= value <= self.limits.high

    def __str__(self) -> str:
        if self.choices:
            return f"{self.name}: one of {', '.join(self.choices)}"
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[self.kind]
        return f"{self.name}: {kind}" + (f" from {self.limits.low:g} to {self.limits.high:g}" if self.limits else "")


@functools.cache
def parameters(operation: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters of an operation, all but its picture; ``height`` and ``width`` are written as one ``fraction``."""
    hints = get_type_hints(operation, include_extras=True)
    names = [name for name in inspect.signature(operation).parameters if name != "picture"]
    found = {}
    for name in names:
        hint, default = hints[name], inspect.signature(operation).parameters[name].default
        limits = next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Limits)), None)
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        kind = str if choices else get_args(hint)[0] if get_origin(hint) is Annotated else hint
        found[name] = Parameter(name, kind, limits, choices, default is inspect.Parameter.empty)
    if "height" in found:
        del found["height"], found["width"]
        found["fraction"] = Parameter("fraction", float, FRACTION, (), True)
    return found


def check(name: str, operation: Callable[..., Any], values: Mapping[str, object]) -> None:
    """Refuse values that the operation does not take.

    Raises:
        OptionError: a value is missing, unknown, or not allowed; the message names it and says what is.
    """
    allowed = parameters(operation)
    missing = [parameter for parameter in allowed.values() if parameter.required and parameter.name not in values]
    if missing:
        raise OptionError(f"degradation step {name!r} lacks {missing[0]}")
    for key, value in values.items():
        if key not in allowed:
            raise OptionError(f"degradation step {name!r} has no value {key!r}; it takes {', '.join(allowed)}")
        if not allowed[key].allows(value):
            raise OptionError(f"degradation step {name!r} has {key} = {value!r}, but may have {allowed[key]}")

"""What the values of an operation may be: limits as annotations of its parameters, checked before it runs.

The signature of an operation is the whole description of the JSON that calls it: ``Annotated[float, Range(0, 1)]`` is
a number from 0 to 1, a ``Literal`` one of some names, and a parameter with a default may be left out.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_type_hints

from supir.errors import OptionError
from supir.options.fields import Field, Range, field_of

Share = Annotated[float, Range(0.0, 1.0)]
"""A part of the whole, 0 to 1."""
Angle = Annotated[float, Range(-2 * math.pi, 2 * math.pi)]
"""Radians; 0 points right, a quarter turn down."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""Where an operation's chance starts."""
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

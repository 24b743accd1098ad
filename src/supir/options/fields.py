"""How options are written down: fields of frozen dataclasses with their range and sentence, checked in one way.

What a field may hold stands in its type and its metadata: ``low`` and ``high``, or ``choices``; and ``doc`` says what
it is. Front ends make their help from the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from supir.errors import OptionError


def number(default: float | None, low: float, high: float, doc: str, *, unit: str = "") -> Any:
    """A field for a number from ``low`` to ``high``; whole where its type is ``int``, or None where that says so."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "unit": unit, "doc": doc})


def choice(default: str, choices: tuple[str, ...], doc: str) -> Any:
    """A field for one of some words."""
    return dataclasses.field(default=default, metadata={"choices": choices, "doc": doc})


def plain(default: Any, doc: str) -> Any:
    """A field for a text, or for true or false."""
    return dataclasses.field(default=default, metadata={"doc": doc})


def check(options: Any) -> None:
    """Hold every field of a dataclass made of these against what it may be.

    Raises:
        OptionError: a value is of another kind or out of range; the message names the field and what is allowed.
    """
    for spec in dataclasses.fields(options):
        _check(spec, getattr(options, spec.name))


def known(kind: type, values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The values, when every name is a field of the dataclass ``kind``.

    Raises:
        OptionError: one is not; ``what`` says what it is not, as in "an option".
    """
    names = [spec.name for spec in dataclasses.fields(kind)]
    for name in values:
        if name not in names:
            raise OptionError(f"{name!r} is not {what}; there are: {', '.join(names)}")
    return dict(values)


def from_text(spec: dataclasses.Field[Any], text: str) -> Any:
    """What a person typed for a field, as a value of its type; its range is not checked here. Its unit may follow.

    Raises:
        OptionError: a number, or true or false, is asked for, and this is none.
    """
    if spec.type == "bool":
        if text.lower() not in ("true", "false"):
            raise OptionError(f"{text!r} is not true or false")
        return text.lower() == "true"
    if "low" not in spec.metadata:
        return text
    optional, whole = "None" in str(spec.type), "int" in str(spec.type)
    if optional and text == "off":
        return text
    unit = spec.metadata["unit"]
    text = text.strip()
    if unit and text.lower().endswith(unit.lower()):
        text = text[: -len(unit)].rstrip()
    try:
        return int(text) if whole else float(text)
    except ValueError:
        kind = f"a {'whole ' * whole}number{' or off' * optional}"
        raise OptionError(f"{text!r} is not {kind}") from None


def _check(spec: dataclasses.Field[Any], value: Any) -> None:
    allowed = spec.metadata
    if "choices" in allowed:
        if value not in allowed["choices"]:
            raise OptionError(f"{spec.name} is {value!r}; it must be one of {', '.join(allowed['choices'])}")
    elif "low" in allowed:
        if value is None and "None" in str(spec.type):
            return
        whole = "int" in str(spec.type)
        is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not is_number or value != value:  # that last one is NaN
            raise OptionError(f"{spec.name} is {value!r}; it must be a {'whole ' if whole else ''}number")
        if not allowed["low"] <= value <= allowed["high"]:
            raise OptionError(f"{spec.name} is {value}; it must be from {allowed['low']:g} to {allowed['high']:g}")
    elif spec.type == "str | None" and value is None:
        return
    elif not isinstance(value, bool if spec.type == "bool" else str):
        raise OptionError(f"{spec.name} is {value!r}; it must be {'true or false' if spec.type == 'bool' else 'text'}")

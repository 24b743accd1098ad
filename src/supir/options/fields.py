"""How an option is written down, once: its kind, what it may hold, a sentence. All else is made from that.

    scale: float = number(2.0, 0.05, 32, "output size over input size", unit="x")

A `Field` checks a value, reads what a person typed, and describes itself in words and as a JSON schema; the command
line, the forms, the columns of manifests and `--set` are made of Fields.

Ours and not msgspec: its classes check nothing when they are made in Python, and its messages name neither the value
nor the whole range, so that every line here would be needed beside it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from supir.errors import OptionError

OFF = "off"
"""What unsets a number that may be unset, where it is written as text or in JSON."""
BYTES = {
    "gib": 2**30 / 1e9, "mib": 2**20 / 1e9, "tb": 1e3, "gb": 1.0, "mb": 1e-3, "kb": 1e-6, "t": 1e3, "g": 1.0, "m": 1e-3,
}  # fmt: skip
"""Units of memory in gigabytes, longer names first."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One option: what it may hold, and what it is."""

    name: str
    kind: type
    """bool, int, float or str."""
    low: float = -math.inf
    high: float = math.inf
    """Of a number, both allowed."""
    choices: tuple[str, ...] = ()
    """Of a word; empty allows any text."""
    optional: bool = False
    """Whether None may stand for it."""
    default: Any = ...
    """Ellipsis where a value must be given."""
    doc: str = ""
    unit: str = ""
    divider: str = ""
    """Of a text that may hold several: what stands between them. A command's flag may then be repeated."""

    @property
    def is_number(self) -> bool:
        """Whether it is a number, whole or not."""
        return self.kind in (int, float)

    @property
    def may_be_off(self) -> bool:
        """Whether the word off unsets it."""
        return self.is_number and self.optional

    @property
    def allowed(self) -> str:
        """The choices, or the range of a number: "0.05 to 32"; empty where there is none."""
        bounds = [str(bound) if isinstance(bound, int) else f"{bound:g}" for bound in (self.low, self.high)]
        return " to ".join(bounds) if self.is_number else ", ".join(self.choices)

    def __str__(self) -> str:
        """What it may hold: "a whole number from 1 to 1000", "one of a, b", "true or false", "text"."""
        if self.choices:
            return f"one of {self.allowed}"
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[self.kind]
        return words + (f" from {self.allowed}" if self.allowed else "") + ", or off" * self.may_be_off

    def refused(self, value: object) -> OptionError:
        """What to raise for a value: a sentence with the name, the value, and what is allowed."""
        return OptionError(f"{self.name} is {value!r}; it must be {self}")

    def check(self, value: Any) -> None:
        """Refuse what it may not hold. A whole number counts as a number; True and False do not.

        Raises:
            OptionError: see ``refused``.
        """
        if value is None and self.optional:
            return
        kinds = (int, float) if self.kind is float else self.kind
        right = isinstance(value, kinds) and (self.kind is bool or not isinstance(value, bool))
        if right and self.is_number:
            right = self.low <= value <= self.high  # NaN is in no range
        if not right or (self.choices and value not in self.choices):
            raise self.refused(value)

    def parse(self, text: str) -> Any:
        """What a person typed, as a value of its kind, ``off`` as it is; a unit may follow. Ranges are not checked.

        Raises:
            OptionError: see ``refused``.
        """
        if self.kind is str or (self.may_be_off and text == OFF):
            return text
        if self.unit == "GB":
            return self._gigabytes(text)
        try:
            if self.kind is bool:
                return {"true": True, "false": False}[text.lower()]
            return self.kind(text.strip().lower().removesuffix(self.unit.lower()))
        except (KeyError, ValueError):
            raise self.refused(text) from None

    def _gigabytes(self, text: str) -> float:
        """A number with a unit of bytes, or of gigabytes without one; here the range is checked, in the user's words.

        Raises:
            OptionError: see ``refused``.
        """
        number = text.strip().lower()
        unit = next((unit for unit in BYTES if number.endswith(unit)), "gb")
        try:
            found = float(number.removesuffix(unit)) * BYTES[unit]
            self.check(found)
        except (ValueError, OptionError):
            raise OptionError(f"{self.refused(text)}; in GB, or with a unit as 800MB, 6GiB") from None
        return found

    def schema(self) -> dict[str, Any]:
        """As JSON schema, without a default, and without null."""
        found: dict[str, Any] = {"type": {bool: "boolean", int: "integer", float: "number", str: "string"}[self.kind]}
        found |= {"enum": [*self.choices]} if self.choices else {}
        found |= {"minimum": self.low, "maximum": self.high} if self.is_number else {}
        about = self.doc + "; off: unset" * self.may_be_off + (f" [{self.unit}]" if self.unit else "")
        return {**({"anyOf": [found, {"const": OFF}]} if self.may_be_off else found), "description": about}


@dataclass(frozen=True)
class Range:
    """What a number may be, both ends allowed, as an annotation: ``Annotated[float, Range(0, 1)]``."""

    low: float
    high: float


def number(default: float | None, low: float, high: float, doc: str, *, unit: str = "") -> Any:
    """A field for a number from ``low`` to ``high``; whole where its type is ``int``, or None where that says so."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "unit": unit, "doc": doc})


def choice(default: str | None, choices: tuple[str, ...], doc: str) -> Any:
    """A field for one of some words."""
    return dataclasses.field(default=default, metadata={"choices": choices, "doc": doc})


def text(default: str | None, doc: str, *, divider: str = "") -> Any:
    """A field for any text; for several with a divider between them, where there is one."""
    return dataclasses.field(default=default, metadata={"doc": doc, "divider": divider})


def flag(default: bool, doc: str) -> Any:
    """A field for true or false."""
    return dataclasses.field(default=default, metadata={"doc": doc})


def field_of(name: str, hint: Any, **about: Any) -> Field:
    """The field of a name with a type: bool, int, float, str, ``Literal``, ``Annotated`` with a ``Range``; or None."""
    optional = NoneType in get_args(hint)
    if optional:
        [hint] = [each for each in get_args(hint) if each is not NoneType]
    if get_origin(hint) is Literal:
        return Field(name=name, kind=str, choices=get_args(hint), optional=optional, **about)
    if get_origin(hint) is Annotated:
        hint, limits = get_args(hint)
        about |= dataclasses.asdict(limits)
    return Field(name=name, kind=hint, optional=optional, **about)


def json_object(text: str, name: str = "") -> dict[str, Any]:
    """A JSON object that a person wrote.

    Raises:
        OptionError: it is something else; ``name`` says what it is in messages.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"{name}not JSON: {error}") from None
    if not isinstance(found, dict):
        raise OptionError(f'{name}not a JSON object, as in {{"scale": 2}}')
    return found


class Options:
    """What dataclasses of such fields inherit: every value is checked when one is made.

    Raises:
        OptionError: a value is of another kind or out of range; the message names the field and what is allowed.
    """

    called: ClassVar[str] = "an option"
    """What a field is, in messages."""

    def __post_init__(self) -> None:
        for name, field in self.fields().items():
            field.check(getattr(self, name))

    @classmethod
    @cache
    def fields(cls) -> Mapping[str, Field]:
        """The fields by name, those that are declared by the functions above."""
        hints, specs = get_type_hints(cls), cls.__dataclass_fields__.values()  # type: ignore[attr-defined]
        declared = [spec for spec in specs if "doc" in spec.metadata]
        return {
            spec.name: field_of(spec.name, hints[spec.name], default=spec.default, **spec.metadata) for spec in declared
        }

    @classmethod
    def schemas(cls) -> dict[str, dict[str, Any]]:
        """A JSON schema for each of the fields, by name."""
        return {name: field.schema() for name, field in cls.fields().items()}

    @classmethod
    def known(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values, when every name is a field.

        Raises:
            OptionError: one is not; the message lists those that are.
        """
        if wrong := [name for name in values if name not in cls.fields()]:
            raise OptionError(f"{wrong[0]!r} is not {cls.called}; there are: {', '.join(cls.fields())}")
        return dict(values)

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> dict[str, Any]:
        """What a person typed for some of the fields, each as its kind (see ``Field.parse``).

        Raises:
            OptionError: there is no such field, or what is typed is of another kind.
        """
        return {name: cls.fields()[name].parse(typed) for name, typed in cls.known(values).items()}

    @classmethod
    def set_values(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the values that were set: not None; ``off`` of a number that may be unset becomes None."""
        numbers = [name for name, field in cls.fields().items() if field.may_be_off]
        chosen = {name: value for name, value in values.items() if value is not None}
        return {name: None if name in numbers and value == OFF else value for name, value in chosen.items()}

    @classmethod
    def given(cls, values: Mapping[str, Any]) -> Self:
        """Made of what a command or a client was given: None leaves a field as it is, ``off`` unsets it."""
        return cls(**cls.set_values(values))

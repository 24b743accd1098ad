"""Fields: what is declared once is what is checked, parsed, shown and put into a JSON schema."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from supir.data.options import BuildOptions, QualityRules
from supir.errors import OptionError
from supir.options import CaptionOptions, NetworkOptions, RestoreOptions
from supir.options.fields import Field, Options, choice, flag, number, text
from supir.service.limits import Limits
from supir.service.validation import SubmissionOptions
from supir.training.recipes import StageOptions

KINDS: list[type[Options]] = [
    RestoreOptions, CaptionOptions, NetworkOptions, QualityRules, BuildOptions, StageOptions, Limits, SubmissionOptions,
]  # fmt: skip
EVERY = [pytest.param(field, id=f"{kind.__name__}.{name}") for kind in KINDS for name, field in kind.fields().items()]


@dataclass(frozen=True, kw_only=True)
class Some(Options):
    side: int = number(64, 1, 1000, "of the picture", unit="px")
    pull: float | None = number(4.0, 0.01, 100, "toward it")
    solver: str = choice("euler", ("euler", "heun"), "of the steps")
    words: str | None = text(None, "what it shows")
    fresh: bool = flag(False, "begin anew")


def test_a_right_value_is_taken() -> None:
    for values in ({}, {"side": 1000, "pull": None}, {"pull": 1, "words": "", "solver": "heun", "fresh": True}):
        assert {name: getattr(Some(**values), name) for name in values} == values


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("side", 0, "side is 0; it must be a whole number from 1 to 1000"),
        ("side", 2.0, "side is 2.0; it must be a whole number from 1 to 1000"),
        ("side", True, "side is True; it must be a whole number from 1 to 1000"),
        ("side", None, "side is None; it must be a whole number from 1 to 1000"),
        ("pull", math.nan, "pull is nan; it must be a number from 0.01 to 100, or off"),
        ("pull", "off", "pull is 'off'; it must be a number from 0.01 to 100, or off"),
        ("solver", "dpm", "solver is 'dpm'; it must be one of euler, heun"),
        ("solver", None, "solver is None; it must be one of euler, heun"),
        ("words", 3, "words is 3; it must be text"),
        ("fresh", 1, "fresh is 1; it must be true or false"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_right(name: str, value: object, sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        Some(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_text_becomes_a_value() -> None:
    typed = {"side": " 512 PX", "pull": "off", "solver": "heun", "words": "off", "fresh": "True"}
    assert Some.parse(typed) == {"side": 512, "pull": "off", "solver": "heun", "words": "off", "fresh": True}
    assert Some.given(Some.parse(typed) | {"solver": None}) == Some(side=512, pull=None, words="off", fresh=True)


@pytest.mark.parametrize(
    ("name", "typed", "sentence"),
    [
        ("side", "many", "side is 'many'; it must be a whole number from 1 to 1000"),
        ("side", "2.5", "side is '2.5'; it must be a whole number from 1 to 1000"),
        ("side", "off", "side is 'off'; it must be a whole number from 1 to 1000"),
        ("pull", "", "pull is ''; it must be a number from 0.01 to 100, or off"),
        ("fresh", "yes", "fresh is 'yes'; it must be true or false"),
        ("speed", "1", "'speed' is not an option; there are: side, pull, solver, words, fresh"),
    ],
)
def test_wrong_text_is_told_with_what_is_right(name: str, typed: str, sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        Some.parse({name: typed})
    assert str(caught.value) == sentence


def test_the_schema_says_it_to_clients() -> None:
    assert Some.schemas() == {
        "side": {"type": "integer", "minimum": 1, "maximum": 1000, "description": "of the picture [px]"},
        "pull": {
            "anyOf": [{"type": "number", "minimum": 0.01, "maximum": 100}, {"const": "off"}],
            "description": "toward it; off: unset",
        },
        "solver": {"type": "string", "enum": ["euler", "heun"], "description": "of the steps"},
        "words": {"type": "string", "description": "what it shows"},
        "fresh": {"type": "boolean", "description": "begin anew"},
    }


@pytest.mark.parametrize("field", EVERY)
def test_schema_and_check_agree(field: Field) -> None:
    schema = Draft202012Validator(field.schema())
    values: list[Any] = [True, 0, -1, 0.5, 10**30, "", "other", "off", *field.choices]
    if field.is_number:
        values += [field.low, field.high, field.low - 1, field.high + 1, field.low + 0.5]
    for value in values:
        if isinstance(value, float) and value.is_integer() and field.kind is int:
            continue  # JSON does not tell 2.0 from 2
        try:
            field.check(None if value == "off" and field.may_be_off else value)
            taken = True
        except OptionError:
            taken = False
        assert schema.is_valid(value) == taken, value


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_declared_is_whole(kind: type[Options]) -> None:
    for name, field in kind.fields().items():
        assert field.doc, name
        field.check(field.default)
        assert field.default is None or field.parse(str(field.default)) == field.default

"""Command-line options made from the fields of `RestoreOptions`, so that the two cannot drift apart.

Every option is unset by default: unset means the preset's value, which only `supir.options` knows. Names differ from
the field's only where `FLAGS` says so.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from supir.options import OPTIONAL_NUMBERS, RestoreOptions

FLAGS = {"num_steps": "--steps"}
"""Field -> flag, where it is not simply the field's name with hyphens."""

COMMON = ("scale", "prompt", "negative_prompt", "seed", "num_steps", "tile")
"""The fields shown first; the others stand under a heading of their own."""

COMMON_PANEL = "Restoration (unset: the preset's value)"
MORE_PANEL = "More of the restoration (unset: the preset's value)"


def flag(name: str) -> str:
    """The flag of a field of `RestoreOptions`."""
    return FLAGS.get(name, "--" + name.replace("_", "-"))


def with_restore_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command that ends in ``**overrides``: each field of `RestoreOptions` becomes an option of it."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    fields = sorted(dataclasses.fields(RestoreOptions), key=lambda spec: _rank(spec.name))
    command.__signature__ = signature.replace(parameters=own + [_parameter(spec) for spec in fields])  # type: ignore[attr-defined]
    return command


def _rank(name: str) -> int:
    return COMMON.index(name) if name in COMMON else len(COMMON)


def _parameter(spec: dataclasses.Field[Any]) -> inspect.Parameter:
    return inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(spec))


def _annotation(spec: dataclasses.Field[Any]) -> Any:
    """The typer option of one field. Ranges and choices are shown here and checked by `RestoreOptions` itself."""
    allowed, name, doc = spec.metadata, flag(spec.name), spec.metadata["doc"]
    shared: dict[str, Any] = {
        "show_default": False,
        "rich_help_panel": COMMON_PANEL if spec.name in COMMON else MORE_PANEL,
    }
    if spec.type == "bool":
        return Annotated[bool | None, typer.Option(f"{name}/--no-{name[2:]}", help=doc, metavar=" ", **shared)]
    if "choices" in allowed:
        doc += f" ({', '.join(allowed['choices'])})"
    if "low" in allowed:
        optional = spec.name in OPTIONAL_NUMBERS
        unit = f" {allowed['unit']}" if allowed["unit"] else ""
        doc += f" ({_shown(allowed['low'])} to {_shown(allowed['high'])}{unit}{', or off' * optional})"
        number: type = int if "int" in str(spec.type) else float
        return Annotated[Any, typer.Option(name, help=doc, parser=_number(number, optional), metavar="N", **shared)]
    metavar = "NAME" if "choices" in allowed else "TEXT"
    return Annotated[str | None, typer.Option(name, help=doc, metavar=metavar, **shared)]


def _shown(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _number(number: type, optional: bool) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if optional and text == "off":
            return text
        try:
            return number(text)
        except ValueError:
            kind = f"a {'whole ' * (number is int)}number{' or off' * optional}"
            raise typer.BadParameter(f"{text!r} is not {kind}") from None

    return parse

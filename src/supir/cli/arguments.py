"""Command-line options made from the fields that are declared once, so that the two cannot drift apart.

Every such option is unset by default: what that means, the preset's value for one of `RestoreOptions`, only the class
of the fields knows. Names differ from the field's only where `FLAGS` says so.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from supir.errors import OptionError
from supir.jobs.model import Model
from supir.options import DEFAULT_PRESET, PRESETS, CaptionOptions, NetworkOptions, RestoreOptions, SigningOptions
from supir.options.audit import AuditOptions
from supir.options.fields import Field, Options

FLAGS = {"num_steps": "--steps"}
"""Field -> flag, where it is not simply the field's name with hyphens."""

COMMON = ("scale", "prompt", "negative_prompt", "seed", "num_steps", "tile")
"""The fields shown first; the others stand under a heading of their own."""

COMMON_PANEL = "Restoration (unset: the preset's value)"
MORE_PANEL = "More of the restoration (unset: the preset's value)"
PANELS: dict[type[Options], str] = {
    RestoreOptions: COMMON_PANEL,
    CaptionOptions: "Captions (see docs/captions.md)",
    NetworkOptions: "Networks (see docs/performance.md)",
    SigningOptions: "Signatures (see docs/marking.md)",
    AuditOptions: "Audit (see docs/audit.md)",
}
"""Headings in the help."""
Command = TypeVar("Command", bound=Callable[..., None])
Made = TypeVar("Made", bound=Options)


def option(text: str, *names: str, **more: Any) -> Any:
    """An option of a command, for use in ``Annotated``: its help, its flags where they are not made of its name."""
    return typer.Option(*names, help=text, **more)


def folder(text: str, *names: str) -> Any:
    """One for a folder that is there."""
    return option(text, *names, exists=True, file_okay=False)


Photos = Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Files, folders, or glob patterns.")]
Preset = Annotated[
    str | None, option(f"One of {', '.join(PRESETS)} (see `supir presets`). Unset: {DEFAULT_PRESET}.", metavar="NAME")
]
ModelFolder = Annotated[
    Path | None, folder("A model folder, as `supir convert` makes it. Unset: the bundled small model.")
]
LoraFolder = Annotated[
    Path | None,
    folder("The folder whose LoRAs requests may name, by their files' names without suffix. Unset: none.", "--loras"),
]
FirstFolder = Annotated[
    Path | None,
    folder(
        "The folder whose models --first of requests may name, by their files' names without suffix. Unset: none.",
        "--first-models",
    ),
]
Device = Annotated[str | None, option("cpu, cuda, cuda:1, mps ... Unset: a GPU if torch sees one.")]
Devices = Annotated[
    str | None,
    option(
        "cpu, cuda, mps ...; with commas, worker after worker in turn: cuda:0,cuda:1. Unset: a GPU if torch sees one."
    ),
]
Host = Annotated[str, option("The address to listen at.")]
Port = Annotated[int, option("0 takes a free one.", min=0, max=65535)]
RootPath = Annotated[
    str, option("The path under which a proxy shows this, as /supir.", metavar="PATH", show_default=False)
]
TrustedProxies = Annotated[
    str,
    option(
        "Addresses of proxies whose X-Forwarded-Host, -Proto and -Prefix are believed, with commas between.",
        metavar="ADDRESSES",
        show_default=False,
    ),
]
Audited = Annotated[
    bool, option("Audit each result: NAME.audit.json and NAME.audit.png beside it say what was invented.", "--audit")
]
Quiet = Annotated[bool, option("Say nothing but errors.", "--quiet", "-q")]
AsJson = Annotated[bool, option("Print the summary as JSON on standard output.", "--json")]


def known_names(text: str, known: Collection[str], what: str) -> list[str]:
    """The names of a list with commas, when all are known."""
    found = text.split(",")
    for name in found:
        if name not in known:
            raise typer.BadParameter(f"unknown {what} {name!r}; there are {', '.join(known)}")
    return found


def flag(name: str) -> str:
    """The flag of a field."""
    return FLAGS.get(name, "--" + name.replace("_", "-"))


def with_options(kind: type[Options], panel: str = "", only: Collection[str] = ()) -> Callable[[Command], Command]:
    """Decorate a command that ends in ``**overrides``: the fields of ``kind`` become options of it.

    Args:
        kind: the dataclass; `options_of` and `fields_in` find its values among the overrides.
        panel: the heading in the help; unset is that of ``PANELS``.
        only: names of the fields to take; empty takes all.
    """

    taken = [field for name, field in kind.fields().items() if not only or name in only]
    if kind is RestoreOptions:
        taken.sort(key=lambda field: COMMON.index(field.name) if field.name in COMMON else len(COMMON))
    return _taking([_parameter(kind, field, panel or _panel(kind, field.name)) for field in taken])


def with_fields(kind: type[Any]) -> Callable[[Command], Command]:
    """Likewise, of a dataclass whose fields are annotated as typer has parameters; they stand before its own."""
    return _taking(list(inspect.signature(kind, eval_str=True).parameters.values()), first=True)


def _taking(parameters: Sequence[inspect.Parameter], *, first: bool = False) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        others = [parameter for parameter in parameters if parameter.name not in signature.parameters]
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        whole = [*others, *own] if first else [*own, *others]
        command.__signature__ = signature.replace(parameters=whole)  # type: ignore[attr-defined]
        return command

    return decorate


def fields_in(overrides: Mapping[str, Any], kind: type[Options]) -> dict[str, Any]:
    """What was given for the fields of ``kind``, None where one is unset; of a repeated flag all in one text."""
    found, fields = {}, kind.fields()
    for name in overrides.keys() & fields.keys():
        value = overrides[name]
        found[name] = (fields[name].divider.join(value) or None) if isinstance(value, list) else value
    return found


def options_of(kind: type[Made], overrides: Mapping[str, Any]) -> Made:
    """The options of a kind, of what was given."""
    return kind.given(fields_in(overrides, kind))


def auditing_of(asked: bool, overrides: Mapping[str, Any]) -> AuditOptions | None:
    """How results are audited; None where ``--audit`` is not given.

    Raises:
        OptionError: an option of an audit without one, or two that exclude one another.
    """
    found = fields_in(overrides, AuditOptions)
    if not asked:
        if given := [name for name, value in found.items() if value is not None]:
            raise OptionError(f"{flag(given[0])} says how results are audited: add --audit, or leave it out")
        return None
    return AuditOptions.given(found)


def model_of(
    folder: Path | None,
    device: str | None = None,
    networks: NetworkOptions | None = None,
    loras: Path | None = None,
    signing: SigningOptions | None = None,
    first_models: Path | None = None,
) -> Model:
    """The model that a command names; ``device`` may name several, with commas between.

    Raises:
        OptionError, MissingExtraError: nothing can be signed as ``signing`` says.
    """
    devices = tuple(device.split(",")) if device else ()
    found = Model(
        folder=folder, devices=devices, networks=networks or NetworkOptions(), loras=loras, first_models=first_models,
        signing=signing or SigningOptions(),
    )  # fmt: skip
    found.check_signing()
    return found


def settings_of(kind: type[Options], texts: Sequence[str] | None) -> dict[str, Any]:
    """The values that ``--set FIELD=VALUE`` gives to fields of ``kind``."""
    pairs = [text.partition("=") for text in texts or ()]
    for name, sign, _ in pairs:
        if not sign:
            raise typer.BadParameter(f"--set {name}: write FIELD=VALUE")
    return kind.parse({name: value for name, _, value in pairs})


def _panel(kind: type[Options], name: str) -> str:
    return MORE_PANEL if kind is RestoreOptions and name not in COMMON else PANELS[kind]


def _parameter(kind: type[Options], field: Field, panel: str) -> inspect.Parameter:
    """The typer option of one field. Ranges and choices are shown here and checked by the dataclass itself."""
    about: dict[str, Any] = {"show_default": False, "rich_help_panel": panel, "help": field.doc}
    name = flag(field.name)
    hint: Any = bool | None if field.kind is bool else list[str] | None if field.divider else Any
    if field.kind is bool:
        option = typer.Option(f"{name}/--no-{name[2:]}", metavar=" ", **about)
    else:
        limits = field.allowed + f" {field.unit}" * bool(field.unit) + ", or off" * field.may_be_off
        default = f"{field.default:g}" if isinstance(field.default, float) else field.default
        unset = "" if kind is RestoreOptions or default in (None, "") else f"unset: {default}"
        about["help"] += f" ({'; '.join(filter(None, (limits, unset)))})" * bool(limits or unset)
        metavar = "N" if field.is_number else "NAME" if field.choices else "TEXT"
        if field.divider:
            about["help"] = about["help"].replace(f"several divided by {field.divider}", "may be repeated")
        else:
            about["parser"] = functools.partial(_parsed, field)
        option = typer.Option(name, metavar=metavar, **about)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[hint, option]
    )


def _parsed(field: Field, text: str) -> Any:
    try:
        return field.parse(text)
    except OptionError as error:
        raise typer.BadParameter(str(error)) from error

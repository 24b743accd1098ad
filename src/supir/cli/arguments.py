"""Command-line options made from the fields of `RestoreOptions`, so that the two cannot drift apart.

Every option is unset by default: unset means the preset's value, which only `supir.options` knows. Names differ from
the field's only where `FLAGS` says so.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from supir.errors import OptionError
from supir.jobs.captioning import OF_THE_PREVIEW
from supir.options import (
    DEFAULT_PRESET,
    OPTIONAL_NUMBERS,
    PRESETS,
    CaptionOptions,
    NetworkOptions,
    RestoreOptions,
    fields,
)

FLAGS = {"num_steps": "--steps"}
"""Field -> flag, where it is not simply the field's name with hyphens."""

COMMON = ("scale", "prompt", "negative_prompt", "seed", "num_steps", "tile")
"""The fields shown first; the others stand under a heading of their own."""

COMMON_PANEL = "Restoration (unset: the preset's value)"
MORE_PANEL = "More of the restoration (unset: the preset's value)"
CAPTION_PANEL = "Captions (see docs/captions.md)"
NETWORK_PANEL = "Networks (see docs/performance.md)"

Preset = Annotated[
    str | None,
    typer.Option(help=f"One of {', '.join(PRESETS)} (see `supir presets`). Unset: {DEFAULT_PRESET}.", metavar="NAME"),
]
ModelFolder = Annotated[
    Path | None,
    typer.Option(
        help="A model folder, as `supir convert` makes it. Unset: the bundled small model.",
        exists=True,
        file_okay=False,
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps ... Unset: a GPU if torch sees one.", show_default=False)
]
Devices = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, mps ...; with commas, worker after worker in turn. Unset: a GPU if torch sees one.",
        show_default=False,
    ),
]
RootPath = Annotated[
    str, typer.Option(help="The path under which a proxy shows this, as /supir.", metavar="PATH", show_default=False)
]
TrustedProxies = Annotated[
    str,
    typer.Option(
        help="Addresses of proxies whose X-Forwarded-Host, -Proto and -Prefix are believed, with commas between.",
        metavar="ADDRESSES",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on standard output.")]


def flag(name: str) -> str:
    """The flag of a field of `RestoreOptions`."""
    return FLAGS.get(name, "--" + name.replace("_", "-"))


def with_restore_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command that ends in ``**overrides``: each field of `RestoreOptions` becomes an option of it."""
    return _with(command, dataclasses.fields(RestoreOptions))


def with_caption_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same for `CaptionOptions`; ``**overrides`` then holds both, which `split_captions` parts."""
    return _with(command, dataclasses.fields(CaptionOptions))


def with_network_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same for `NetworkOptions`; `split_networks` parts them from the others."""
    return _with(command, dataclasses.fields(NetworkOptions))


def with_preview_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same for those fields of `RestoreOptions` that a clean preview depends on."""
    return _with(command, [spec for spec in dataclasses.fields(RestoreOptions) if spec.name in OF_THE_PREVIEW])


def with_captioner_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same for who describes photos, where no caption is kept for another run."""
    return _with(command, [spec for spec in dataclasses.fields(CaptionOptions) if spec.name != "caption_cache"])


def split_captions(overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was given for `RestoreOptions`, unset ones included, and what was set of `CaptionOptions`."""
    return _split(overrides, CaptionOptions)


def split_networks(overrides: dict[str, Any]) -> tuple[dict[str, Any], NetworkOptions]:
    """What was given for other options, unset ones included, and the `NetworkOptions`.

    Raises:
        OptionError: a value is none of those allowed.
    """
    rest, given = _split(overrides, NetworkOptions)
    return rest, NetworkOptions(**given)


def _split(overrides: dict[str, Any], kind: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    names = {spec.name for spec in dataclasses.fields(kind)}
    rest = {name: value for name, value in overrides.items() if name not in names}
    return rest, {name: value for name, value in overrides.items() if name in names and value is not None}


def _with(command: Callable[..., None], specs: Sequence[dataclasses.Field[Any]]) -> Callable[..., None]:
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    found = [_parameter(spec) for spec in sorted(specs, key=lambda spec: _rank(spec.name))]
    command.__signature__ = signature.replace(parameters=[*own, *found])  # type: ignore[attr-defined]
    return command


def _rank(name: str) -> int:
    return COMMON.index(name) if name in COMMON else len(COMMON)


def _parameter(spec: dataclasses.Field[Any]) -> inspect.Parameter:
    return inspect.Parameter(spec.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(spec))


def _annotation(spec: dataclasses.Field[Any]) -> Any:
    """The typer option of one field. Ranges and choices are shown here and checked by the dataclass itself."""
    allowed, name, doc = spec.metadata, flag(spec.name), spec.metadata["doc"]
    shared: dict[str, Any] = {"show_default": False, "rich_help_panel": _panel(spec.name)}
    if spec.type == "bool":
        return Annotated[bool | None, typer.Option(f"{name}/--no-{name[2:]}", help=doc, metavar=" ", **shared)]
    if "choices" in allowed:
        doc += f" ({', '.join(allowed['choices'])})"
    if "low" in allowed:
        optional = spec.name in OPTIONAL_NUMBERS
        unit = f" {allowed['unit']}" if allowed["unit"] else ""
        doc += f" ({_shown(allowed['low'])} to {_shown(allowed['high'])}{unit}{', or off' * optional})"
        return Annotated[Any, typer.Option(name, help=doc, parser=_parser(spec), metavar="N", **shared)]
    metavar = "NAME" if "choices" in allowed else "TEXT"
    return Annotated[str | None, typer.Option(name, help=doc, metavar=metavar, **shared)]


def _panel(name: str) -> str:
    if name in (spec.name for spec in dataclasses.fields(CaptionOptions)):
        return CAPTION_PANEL
    if name in (spec.name for spec in dataclasses.fields(NetworkOptions)):
        return NETWORK_PANEL
    return COMMON_PANEL if name in COMMON else MORE_PANEL


def _shown(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _parser(spec: dataclasses.Field[Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return fields.from_text(spec, text)
        except OptionError as error:
            raise typer.BadParameter(str(error)) from None

    return parse

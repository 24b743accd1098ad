"""A list of pictures in a file, each with options of its own: CSV with a header, or JSON lines.

    path,output,preset,prompt,num_steps            {"path": "a/1.jpg", "prompt": "a red door"}
    a/1.jpg,,,"a red door",                        {"path": "b/2.jpg", "output": "two.png", "preset": "fast"}
    b/2.jpg,two.png,fast,,8

An empty cell, or null, leaves the batch's own value. The whole file is checked before anything starts, and one wrong
line stops it: it is a mistake in what was asked, cheaper to mend than to find among the results of a long run. A
picture that is missing or damaged is no such mistake; it fails alone, when its turn comes.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from supir.caption import Caption, clean_caption
from supir.errors import OptionError
from supir.jobs.plan import BatchItem
from supir.options import RestoreOptions
from supir.options.fields import Field, json_object
from supir.options.loras import joined_loras, split_loras
from supir.options.regions import INLINE, joined_regions, split_regions

_OWN = ("path", "output", "preset", "caption", "captioner")
"""The last two say what was made by whom before somebody edited the prompt; they are for the record alone."""
_TEXTS = [Field(name=name, kind=str) for name in ("preset", "caption", "captioner")]
_MAX_SHOWN = 20
_REST = "more cells than the header has"


def read_manifest(
    path: Path | str, options: Callable[..., RestoreOptions], defaults: Mapping[str, Any] | None = None
) -> list[BatchItem]:
    """The pictures of a manifest, in its order.

    Args:
        path: a .csv, or a .jsonl, .ndjson or .json of one object a line; in UTF-8. The pictures' paths are relative to
            its folder, and stay inside it.
        options: makes options of a preset and overrides, as `supir.jobs.Model.options` does.
        defaults: what each picture has where its line says nothing else.

    Raises:
        OptionError: the file cannot be read, is empty, or has wrong lines; they are named, with what is wrong in each.
    """
    path = Path(path)
    lines = _LINES.get(path.suffix.lower())
    if lines is None:
        raise OptionError(f"{path}: suffix {path.suffix!r}; a manifest is one of {', '.join(_LINES)}")
    wanted: list[BatchItem] = []
    wrong: list[str] = []
    try:
        for line, read in lines(path):
            try:
                wanted.append(_wanted(read(), path.parent, options, defaults or {}))
            except OptionError as error:
                wrong.append(f"line {line}: {error}")
    except OSError as error:
        raise OptionError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"{path}: not in UTF-8") from error
    if wrong:
        more = [f"and {len(wrong) - _MAX_SHOWN} more"] if len(wrong) > _MAX_SHOWN else []
        raise OptionError("\n".join([f"{path}: nothing was started", *wrong[:_MAX_SHOWN], *more]))
    if not wanted:
        raise OptionError(f"{path}: names no picture")
    return wanted


def _wanted(
    values: Mapping[str, Any], folder: Path, options: Callable[..., RestoreOptions], defaults: Mapping[str, Any]
) -> BatchItem:
    _check_names(values)
    given = {name: value for name, value in values.items() if value is not None}
    place = _inside("path", given.pop("path", None))
    output = _inside("output", given.pop("output", str(place)))
    if given.get("blend_mask") and isinstance(given["blend_mask"], str):
        given["blend_mask"] = _beside(folder, given["blend_mask"])
    if isinstance(given.get("region"), str):
        regions = split_regions(given["region"])
        given["region"] = joined_regions(
            tuple(each.with_mask(_beside(folder, each.mask)) if each.mask else each for each in regions)
        )
    for field in _TEXTS:
        field.check(given.get(field.name, ""))
    caption = _caption(given.pop("caption", ""), given.pop("captioner", ""))
    if isinstance(given.get("lora"), str):
        loras = split_loras(given["lora"])
        given["lora"] = joined_loras(replace(each, name=str(folder / each.name)) for each in loras)
    if given.get("first") and isinstance(given["first"], str):
        given["first"] = str(folder / given["first"])
    if values.get("output") is not None:
        from supir.image import SUFFIXES

        if output.suffix.lower() not in SUFFIXES:
            raise OptionError(f"output {str(output)!r}: cannot be written; use one of {' '.join(SUFFIXES)}")
    chosen = {**defaults, **given}
    scaled = chosen.get("scale") is not None
    own = caption if given.get("prompt") else None  # without a prompt in its line there is nothing that it was made for
    return BatchItem(source=folder / place, place=output, options=options(**chosen), caption=own, scaled=scaled)


def _beside(folder: Path, mask: str) -> str:
    return mask if mask.startswith(INLINE) else str(folder / mask)


def _caption(text: str, captioner: str) -> Caption | None:
    return Caption(text=clean_caption(text), captioner=clean_caption(captioner)) if text else None


def _check_names(names: Collection[str]) -> None:
    for name in names:
        if name not in (columns := (*_OWN, *RestoreOptions.fields())):
            raise OptionError(f"{name!r} is not a field; there are: {', '.join(columns)}")
    if "path" not in names:
        raise OptionError("path is not given; it says which picture")


def _inside(name: str, text: Any) -> PurePath:
    """A path below the folder that it is relative to."""
    if not isinstance(text, str) or not PurePath(text).name or "\0" in text:
        raise OptionError(f"{name} is {text!r}; it must name a file")
    path = PurePath(text)
    if path.is_absolute() or path.drive or ".." in path.parts:
        raise OptionError(f"{name} {text!r} leads out of its folder; give a path below it, without '..'")
    return path


_Line = tuple[int, Callable[[], Mapping[str, Any]]]


def _csv_lines(path: Path) -> Iterator[_Line]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets begin UTF-8 with a mark
        reader = csv.DictReader(file, restkey=_REST, strict=True)
        try:
            _check_header(path, list(reader.fieldnames or ()))
            for row in reader:
                yield reader.line_num, functools.partial(_from_cells, row)
        except csv.Error as error:
            raise OptionError(f"{path}: line {reader.line_num + 1}: {error}") from error  # of the last whole line


def _check_header(path: Path, names: list[str]) -> None:
    twice = {name for name in names if names.count(name) > 1}
    try:
        if twice:
            raise OptionError(f"{', '.join(sorted(twice))} stands there twice")
        _check_names(names)
    except OptionError as error:
        raise OptionError(f"{path}: line 1: {error}") from error


def _from_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    if _REST in row:
        raise OptionError(_REST)
    options = {name: text for name, text in row.items() if text and name not in _OWN}
    return {name: text or None for name, text in row.items()} | RestoreOptions.parse(options)


def _json_lines(path: Path) -> Iterator[_Line]:
    with path.open(encoding="utf-8-sig") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                yield number, functools.partial(json_object, text)


_LINES = {".csv": _csv_lines, ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json_lines}

"""What a study compares: pictures that every method has, of one size, by a benchmark or from folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from supir.data.pixels import Pixels, encode, srgb
from supir.errors import OptionError, StudyError
from supir.image import by_name, find_pictures, read

INPUT, ORIGINAL = "input", "original"
"""Of a case's files those that are no method's: what was restored, and what it was made from."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One picture, restored by every method."""

    recipe: str
    """Of a benchmark; empty for pictures from folders."""
    name: str
    """Without suffix."""
    files: Mapping[str, Path]
    """By method, and by ``INPUT`` and ``ORIGINAL`` where they are there."""


def folder_cases(
    methods: Mapping[str, Path], inputs: Path | None = None, originals: Path | None = None, *, recipe: str = ""
) -> tuple[list[Compared], list[str]]:
    """The pictures that all methods have, paired by name without suffix, and the names of those left out.

    Args:
        methods: the folder of each, two or more.
        inputs: folder of the pictures that were restored.
        originals: folder of what the results should look like.
        recipe: what the cases are filed under.

    Raises:
        OptionError: fewer than two methods, one called as ``INPUT`` or ``ORIGINAL`` are, or two pictures of one name.
        ImageReadError: a folder that is not there or has no pictures.
    """
    for name in (INPUT, ORIGINAL):
        if name in methods:
            raise OptionError(f"a method cannot be called {name!r}; choose another name")
    if len(methods) < 2:
        raise OptionError(f"one method or none ({', '.join(methods)}); a comparison needs two at least")
    found = {method: by_name(find_pictures(folder)) for method, folder in methods.items()}
    beside = {INPUT: inputs, ORIGINAL: originals}
    others = {kind: by_name(find_pictures(folder)) for kind, folder in beside.items() if folder is not None}
    common = set.intersection(*(set(paths) for paths in found.values()))
    cases = [
        Compared(
            recipe=recipe,
            name=name,
            files={kind: paths[name] for kind, paths in {**found, **others}.items() if name in paths},
        )
        for name in sorted(common)
    ]
    left_out = set.union(*(set(paths) for paths in found.values())) - common
    return cases, [f"{recipe}/{name}" if recipe else name for name in sorted(left_out)]


def benchmark_cases(
    folder: Path, methods: Sequence[str], recipes: Sequence[str] | None = None, inputs: Path | None = None
) -> tuple[list[Compared], list[str]]:
    """As ``folder_cases``, of a folder that ``supir benchmark`` wrote.

    Args:
        recipes: those to take; None takes every one that has all the methods.
        inputs: folder of the degraded pictures where the benchmark holds none: those of real pictures.

    Raises:
        OptionError: as ``folder_cases``, or no recipe has all the methods.
        ImageReadError: as ``folder_cases``.
    """
    if recipes is None:
        there = sorted(path.name for path in folder.iterdir() if path.is_dir())
        recipes = [recipe for recipe in there if all((folder / recipe / method).is_dir() for method in methods)]
        if not recipes:
            raise OptionError(f"{folder}: holds no recipe with the methods {', '.join(methods)}")
    cases, left_out = [], []
    for recipe in recipes:
        low, high = folder / recipe / "lq", folder / recipe / "hq"
        found, missing = folder_cases(
            {method: folder / recipe / method for method in methods},
            low if low.is_dir() else inputs,
            high if high.is_dir() else None,
            recipe=recipe,
        )
        cases += found
        left_out += missing
    return cases, left_out


def identities(cases: Iterable[Compared], methods: Sequence[str]) -> dict[tuple[str, str, str], str]:
    """The SHA-256 of every picture by (recipe, name, method or ``INPUT`` or ``ORIGINAL``): size and 8-bit sRGB pixels.

    Raises:
        ImageReadError: a picture that cannot be read.
        StudyError: two results of one picture have different sizes.
    """
    found = {}
    for case in cases:
        sizes = {}
        for kind, path in case.files.items():
            pixels = srgb(read(path))
            found[case.recipe, case.name, kind] = _sha256(pixels)
            sizes[kind] = f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
        of_results = {method: sizes[method] for method in methods}
        if len(set(of_results.values())) > 1:
            told = ", ".join(f"{method} {size}" for method, size in of_results.items())
            raise StudyError(f"{case.recipe or 'the'} {case.name}: {told}; results of one picture must have one size")
    return found


def served(path: Path, sha256: str) -> bytes:
    """A picture as PNG without metadata, made anew from its pixels so that no file betrays what made it.

    Raises:
        ImageReadError: it cannot be read.
        StudyError: it is not the one that the study began with.
    """
    pixels = srgb(read(path))
    if _sha256(pixels) != sha256:
        raise StudyError(f"{path}: was changed while the study ran; bring the old one back, or begin another study")
    return encode(pixels)


def _sha256(pixels: Pixels) -> str:
    height, width, _ = pixels.shape
    return hashlib.sha256(f"{width} x {height} ".encode() + pixels.tobytes()).hexdigest()

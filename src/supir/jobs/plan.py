"""Which results are made: where each picture is found, and where each result goes."""

from __future__ import annotations

import functools
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from supir.caption import Caption
from supir.errors import ImageError, ImageReadError, OptionError
from supir.files import Places, check_apart
from supir.jobs.auditing import AUDIT_SUFFIX
from supir.jobs.job import Job, Outcome
from supir.options import RestoreOptions

RESULT_SUFFIX = ".restored"
"""Added to the name of a result that lies beside its input."""

COMPARE_SUFFIX = ".compare"
"""Added to the name of a result for its before-and-after sheet."""

_RESULT_ENDINGS = (RESULT_SUFFIX, RESULT_SUFFIX + COMPARE_SUFFIX, RESULT_SUFFIX + AUDIT_SUFFIX)

_OTHER_PICTURES = (
    ".bmp", ".gif", ".jp2", ".jxl", ".psd", ".svg",
)  # fmt: skip
"""Suffixes of pictures that supir does not read."""


@dataclass(frozen=True, kw_only=True)
class BatchItem:
    """A picture of a batch."""

    source: Path
    place: PurePath
    """Of its result, in the output folder; the suffix need not be one that can be written."""
    options: RestoreOptions
    caption: Caption | None = None
    """What a captioner once said of it; the prompt that is used stands in ``options``."""
    scaled: bool = True
    """Whether somebody has said the scale; otherwise it may be made smaller."""


def discover(inputs: Sequence[str], out: Path, options: RestoreOptions) -> tuple[list[BatchItem], list[Outcome]]:
    """The pictures that files, folders (gone through to the bottom) and globs stand for, and the inputs without any.

    A result's place is its source's path below the folder that was named, or below the part of a glob that is no
    pattern; a file's is its name. Nothing in ``out`` is taken. Results that lie beside their inputs are taken only when
    named.
    """
    wanted: list[BatchItem] = []
    failures: list[Outcome] = []
    known = Places(through_links=False)
    for name in inputs:
        try:
            for source, place in _found(name, out):
                if source not in known:
                    known.add(source)
                    wanted.append(BatchItem(source=source, place=place, options=options))
        except ImageError as error:
            failures.append(Outcome(source=error.path or Path(name), error=str(error)))
    return wanted, failures


def source_name(path: PurePath) -> str:
    """The name without suffix of the picture that a result lies beside; of any other picture its own."""
    return path.stem.removesuffix(RESULT_SUFFIX)


def _is_result(path: PurePath) -> bool:
    """Whether a picture has the name of a result that lies beside its input."""
    return path.stem.endswith(_RESULT_ENDINGS)


def _found(name: str, out: Path) -> Iterator[tuple[Path, PurePath]]:
    """(path, path below what was named) of the pictures of one input."""
    from supir.data.sources import find_photographs
    from supir.image import find_pictures

    if os.path.isdir(name):  # noqa: PTH112 (a name may hold a null character: answered with False)
        found = [Path(found.path) for found in find_photographs([name], skip=out, each_link=True)]
        base, paths = Path(name), [path for path in found if not _is_result(path)]
        if not paths:
            raise ImageReadError(f"{name}: no picture but results; name those that are to be restored again", name)
    elif os.path.lexists(name) or not glob.has_magic(name):
        base, paths = Path(name).parent, find_pictures([name])
    else:
        own = Places([out], through_links=True)
        is_own = functools.cache(lambda folder: any(each in own for each in (folder, *folder.parents)))
        paths = find_pictures([name], leave_out=lambda path: _is_result(path) or is_own(path.parent))
        whole = Path(name).parts[:-1]
        plain = next((index for index, part in enumerate(whole) if glob.has_magic(part)), len(whole))
        base = Path(*whole[:plain])
    yield from ((path, path.relative_to(base)) for path in paths)


def left_out(inputs: Sequence[str], out: Path) -> Counter[str]:
    """How many pictures of kinds that supir does not read lie in the folders among the inputs, by suffix.

    `discover` passes over them, as it does over everything that is no picture.
    """
    found: Counter[str] = Counter()
    own = Places([out], through_links=True)
    for folder in filter(os.path.isdir, inputs):
        for here, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if name[0] != "." and Path(here, name) not in own]
            suffixes = [Path(name).suffix.lower() for name in names if name[0] != "."]
            found.update(suffix for suffix in suffixes if suffix in _OTHER_PICTURES)
    return found


def find_sources(inputs: Sequence[str], *, results: bool = True) -> tuple[list[Path], list[Outcome]]:
    """The picture files that the inputs (files, folders, glob patterns) stand for, and the inputs that stand for none.

    A mistyped input does not hide the others.

    Args:
        inputs: as the user typed them.
        results: whether a folder or a pattern also stands for the results of `supir restore` in it; one that is named
            is always taken.
    """
    from supir.image import find_pictures

    failures: list[Outcome] = []

    def fail(error: ImageError) -> None:
        failures.append(Outcome(source=error.path or Path(), error=str(error)))

    return find_pictures(inputs, on_error=fail, leave_out=(lambda _: False) if results else _is_result), failures


def plan_jobs(sources: Sequence[Path], output: str | None, options: RestoreOptions, *, compare: bool) -> list[Job]:
    """Say where each result goes.

    Without `output` it lies beside its input with `.restored` in its name. `output` is a file when there is one input
    and it has a suffix, and is otherwise a folder that keeps the names. The input's suffix is kept when it can be
    written, else the result is a PNG.

    Args:
        sources: the pictures.
        output: a file or folder as the user typed it, or None.
        options: how each is restored.
        compare: also plan a before-and-after sheet, `NAME.compare.SUFFIX` beside the result.

    Raises:
        OptionError: a result would overwrite its own or another input, two results would have one name, or the
            suffix asked for cannot be written.
    """
    from supir.image import SUFFIXES

    single_file = output is not None and _is_file_name(output, len(sources))
    jobs = []
    for source in sources:
        if output is None:
            target = source.with_name(f"{source.stem}{RESULT_SUFFIX}{_writable(source)}")
        elif single_file:
            target = Path(output)
        else:
            target = Path(output) / f"{source.stem}{_writable(source)}"
        if target.suffix.lower() not in SUFFIXES:
            raise OptionError(f"--output {target}: cannot write {target.suffix!r}; use one of {' '.join(SUFFIXES)}")
        sheet = target.with_name(f"{target.stem}{COMPARE_SUFFIX}{target.suffix}") if compare else None
        jobs.append(Job(source=source, target=target, options=options, compare=sheet))
    _check_targets(jobs)
    return jobs


def _is_file_name(output: str, num_sources: int) -> bool:
    from supir.image import SUFFIXES

    path = Path(output)
    named = bool(path.suffix) and not path.is_dir() and not output.endswith(("/", os.sep))
    if named and num_sources > 1 and path.suffix.lower() in SUFFIXES:
        raise OptionError(f"--output {output} is one file, and there are {num_sources} photos; name a folder")
    return named and num_sources == 1


def with_fitting_scale(jobs: Sequence[Job]) -> list[Job]:
    """The jobs; those whose results would be beyond what is made unasked with the largest scale that is not.

    For jobs of which nobody has said the scale.
    """
    return [replace(job, options=_fitting(job.source, job.target, job.options)) for job in jobs]


def _fitting(source: Path, target: PurePath, options: RestoreOptions) -> RestoreOptions:
    from supir.image import read_size, scale_within

    try:
        scale = scale_within(*read_size(source), options.scale, target.suffix)
    except ImageError:  # said when its turn comes
        return options
    return options if scale == options.scale else options.replace(scale=scale)


def plan_batch(wanted: Sequence[BatchItem], out: Path, *, variants: int = 1) -> list[Job]:
    """Say where each result goes, in ``out``.

    A suffix that can be written is kept, any other becomes .png. Of several variants, each with the next seed, the
    names say the seed: NAME.s7.png, NAME.s8.png.

    Args:
        wanted: the pictures.
        out: the output folder.
        variants: results a picture, at least 1.

    Raises:
        OptionError: a result would overwrite an input, two would have one name, or one would lie outside ``out``.
    """
    jobs = []
    for picture in wanted:
        target = out / picture.place.with_suffix(_writable(picture.place))
        if not picture.scaled:
            picture = replace(picture, options=_fitting(picture.source, target, picture.options))
        if variants == 1:
            jobs.append(Job(source=picture.source, target=target, options=picture.options, caption=picture.caption))
            continue
        for seed in range(picture.options.seed, picture.options.seed + variants):
            name = target.with_name(f"{target.stem}.s{seed}{target.suffix}")
            options = picture.options.replace(seed=seed)
            jobs.append(Job(source=picture.source, target=name, options=options, caption=picture.caption))
    _check_targets(jobs, out)
    return jobs


def _writable(path: PurePath) -> str:
    """The suffix of the result of a picture: its own where that format can be written, else .png."""
    from supir.image import SUFFIXES

    return path.suffix if path.suffix.lower() in SUFFIXES else ".png"


def _check_targets(jobs: Sequence[Job], out: Path | None = None) -> None:
    """Refuse results that would overwrite an input or one another, or lie outside ``out``.

    Raises:
        OptionError: one would; it names the files.
    """
    results = [(job.source, target) for job in jobs for target in (job.target, job.compare) if target is not None]
    if out is not None:
        inside = os.path.join(os.path.realpath(out), "")  # noqa: PTH118 (ends in a separator)
        for _, target in results:
            if not os.path.realpath(target).startswith(inside):
                raise OptionError(f"{target} leads out of {out} by a link; name another --output")
    check_apart(results)

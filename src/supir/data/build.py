"""`supir data build`: photographs in, shards out.

    find ─▶ measure each (workers) ─▶ judge in sorted order ─▶ write each shard (workers) ─▶ index, list, report

Measuring and writing are functions of one picture and of one shard, so any number of workers comes to the same bytes.
A build that is killed goes on where it was: what was measured lies in a journal, and a finished shard is known by the
hash of all that decided its bytes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from supir.data.filtering import FilterResult, Measured, add_measured, judge, measure, read_measured, stored_size
from supir.data.options import BuildOptions
from supir.data.provenance import check_lists
from supir.data.report import FACTS, PICTURES, write_report
from supir.data.shards import (
    INDEX,
    RECORDS,
    SHARDS,
    Captioner,
    ShardJob,
    WrittenShard,
    index_bytes,
    shard_name,
    write_shard,
)
from supir.data.sources import Source, find_photographs
from supir.errors import OptionError, SupirError
from supir.files import alone, check_ours, sentence, sweep, write_entries, write_whole
from supir.pool import Calling, Runner, Serial, WorkerPool

WORK = ".build"
"""Folder inside the data set that a build resumes from; a finished set is read without it."""

_SETTINGS = "settings.json"
_OURS = (SHARDS, f"{WORK}/{RECORDS}", INDEX, "build.json", "pictures.jsonl", "report.html")


@contextmanager
def claimed(out: Path, settings: dict[str, Any], *, overwrite: bool) -> Iterator[None]:
    """Inside, the folder is ours, made with these settings, and without half-written files of a killed build.

    Raises:
        OptionError: it holds something that no build made, or a data set built with other settings (`overwrite`
            replaces that one; what was measured is kept as far as it still holds).
        SupirError: it cannot be made or written, or another build is at work in it.
    """
    work = out / WORK
    try:
        check_ours(out, [WORK], "build")
        work.mkdir(parents=True, exist_ok=True)
        with alone(work / "lock", "build"):
            _settle(out, work / _SETTINGS, settings, overwrite)
            try:
                _sweep(out)
                yield
            finally:
                _sweep(out)
    except OSError as error:
        raise SupirError(sentence(error, error.filename or out)) from error


def _sweep(out: Path) -> None:
    """Remove half-written files: of workers that ended in the middle of one."""
    for folder in (out, out / WORK):
        sweep(folder)


def _settle(out: Path, path: Path, settings: dict[str, Any], overwrite: bool) -> None:
    try:
        before = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        before = None
    if before is not None and before != settings:
        if not overwrite:
            raise OptionError(
                f"{out}: was built with other options ({', '.join(_differences(before, settings))});"
                " name another folder, or pass --overwrite to build it anew"
            )
        for pattern in _OURS:
            for old in out.glob(pattern):
                old.unlink()
    if before != settings:
        write_whole(path, json.dumps(settings, sort_keys=True))


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of the settings that differ, with both values."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new)
        elif old != new:
            found.append(f"{name} {old}, now {new}")
    return found


logger = logging.getLogger(__name__)

FORMAT = 1
"""Raised when the same pictures and options come to other bytes."""

Call = Callable[[], Any]
_CHUNK = 8  # pictures measured by one task: what a kill can cost, against what handing out a task costs


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a build came to."""

    num_pictures: int
    """Found."""
    num_kept: int
    num_samples: int
    """In the shards: pictures kept, or tiles."""
    num_shards: int
    num_tiles_left_out: int
    reasons: dict[str, int]
    """Reason to the number of pictures it holds for; a picture may have several."""
    num_measured: int
    """Photographs that this run had to read and measure; the others were known from an earlier run."""
    num_written: int
    """Shards that this run had to write."""
    refused: tuple[str, ...] = ()
    """Why words beside pictures that were kept were not taken, one a picture."""


_OF_THIS_RUN = ("num_measured", "num_written", "refused")
"""Fields of a summary that are no facts of the data set."""


def build(
    inputs: Iterable[Path | str],
    out: Path | str,
    *,
    options: BuildOptions | None = None,
    captioner: Captioner | None = None,
    runner: Runner[Any] | None = None,
    overwrite: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Summary:
    """Builds a data set, or goes on with one.

    Args:
        inputs: files, folders (gone through to the bottom) and globs.
        out: the folder to write; made if it is not there.
        options: what is kept and how it is stored.
        captioner: asked about pictures without a caption beside them.
        runner: who works; unset: this process alone. It is not closed here.
        overwrite: replace what was built there with other options.
        on_progress: called with the step (``measure``, ``write``), how many of its items are done, and how many
            there are.

    Raises:
        ImageReadError: an input that is not there, or a folder without pictures.
        OptionError: the folder holds something else, or was built with other options.
        SupirError: another build is at work there; a photograph changed in between; a list of licences is no such.
    """
    out = Path(out)
    options = options or BuildOptions()
    runner = runner or Serial()
    sources = find_photographs(inputs, skip=out)
    check_lists(sources)
    settings = {
        "format": FORMAT,
        "options": options.as_json(),
        "captioner": None if captioner is None else captioner.name,
    }
    with claimed(out, settings, overwrite=overwrite), WorkerPool[Call, Any](runner, Calling()) as pool:
        measured, num_measured = _measure_all(sources, out, options, pool, on_progress)
        verdicts = list(judge(measured, options))
        refused = (v.measured.provenance.refused for v in verdicts if not v.reasons)
        jobs = _shard_jobs([verdict.measured for verdict in verdicts if not verdict.reasons], out, options, captioner)
        shards, num_written = _write_all(jobs, out, pool, on_progress)
        summary = Summary(
            num_pictures=len(verdicts),
            num_kept=sum(not verdict.reasons for verdict in verdicts),
            num_samples=sum(len(shard.entries) for shard in shards),
            num_shards=len(shards),
            num_tiles_left_out=sum(shard.num_tiles_left_out for shard in shards),
            reasons=_counted(reason.split(":")[0] for verdict in verdicts for reason in verdict.reasons),
            num_measured=num_measured,
            num_written=num_written,
            refused=tuple(filter(None, refused)),
        )
        _finish(out, settings, verdicts, shards, summary)
    return summary


def _measure_all(
    sources: Sequence[Source],
    out: Path,
    options: BuildOptions,
    pool: WorkerPool[Call, Any],
    on_progress: Callable[[str, int, int], None],
) -> tuple[list[Measured], int]:
    """What was measured of each, in their order, and how many were not known before."""
    decisive = [FORMAT, options.reduce, options.licence, options.max_pixels]  # all that measuring depends on
    name = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]
    journal = out / WORK / f"measured-{name}.jsonl"
    known = read_measured(journal)
    unknown = [source for source in sources if source.identity not in known]
    done = len(sources) - len(unknown)
    on_progress("measure", done, len(sources))
    chunks = (unknown[start : start + _CHUNK] for start in range(0, len(unknown), _CHUNK))
    for found in pool.run(functools.partial(_measure_chunk, chunk, options) for chunk in chunks):
        add_measured(journal, found)
        known |= {source.identity: one for source, one in found}
        done += len(found)
        on_progress("measure", done, len(sources))
    return [known[source.identity] for source in sources], len(unknown)


def _measure_chunk(chunk: Sequence[Source], options: BuildOptions) -> list[tuple[Source, Measured]]:
    return [(source, measure(source, options)) for source in chunk]


def _shard_jobs(
    kept: Sequence[Measured], out: Path, options: BuildOptions, captioner: Captioner | None
) -> Iterator[ShardJob]:
    """Pictures in order, a new shard after every `photos_per_shard` of them or of their possible tiles."""

    def job(pictures: list[Measured]) -> ShardJob:
        return ShardJob(number=number, folder=str(out), pictures=tuple(pictures), options=options, captioner=captioner)

    number, size, pictures = 0, 0, []
    for picture in kept:
        pictures.append(picture)
        width, height = stored_size(picture, options.reduce)
        size += 1 if options.tile is None else (width // options.tile) * (height // options.tile)
        if size >= options.photos_per_shard:
            yield job(pictures)
            number, size, pictures = number + 1, 0, []
    if pictures:
        yield job(pictures)


def _write_all(
    jobs: Iterable[ShardJob],
    out: Path,
    pool: WorkerPool[Call, Any],
    on_progress: Callable[[str, int, int], None],
) -> tuple[list[WrittenShard], int]:
    """All shards, and how many of them this run had to write."""
    known: dict[int, WrittenShard] = {}
    missing: dict[int, tuple[ShardJob, str]] = {}
    for job in jobs:
        identity = _identity(job)
        written = _known_shard(out, job.number, identity)
        if written is None:
            missing[job.number] = job, identity
        else:
            known[job.number] = written
    total = len(known) + len(missing)
    if missing:
        (out / INDEX).unlink(missing_ok=True)  # it would point into shards that are about to change
    on_progress("write", len(known), total)
    for written in pool.run(functools.partial(write_shard, job) for job, _ in missing.values()):
        identity = missing[written.number][1]
        write_whole(_manifest(out, written.number), json.dumps({"identity": identity, **asdict(written)}))
        known[written.number] = written
        on_progress("write", len(known), total)
    for stale in [*out.glob(SHARDS), *(out / WORK).glob(RECORDS)]:
        if int(stale.stem.split("-")[1]) >= total:
            stale.unlink()
    return [known[number] for number in sorted(known)], len(missing)


def _identity(job: ShardJob) -> str:
    """A hash of all that decides the bytes of a shard."""
    captioner = None if job.captioner is None else job.captioner.name
    pictures = [picture.as_json() for picture in job.pictures]
    decisive = json.dumps([FORMAT, job.options.as_json(), captioner, pictures], sort_keys=True)
    return hashlib.sha256(decisive.encode()).hexdigest()


def _manifest(out: Path, number: int) -> Path:
    return out / WORK / f"shard-{number:06d}.json"


def _known_shard(out: Path, number: int, identity: str) -> WrittenShard | None:
    """The shard as an earlier run wrote it; None when it is not there, not whole, or another."""
    try:
        entry = json.loads(_manifest(out, number).read_bytes())
        if entry.pop("identity") != identity or (out / shard_name(number)).stat().st_size != entry["size"]:
            return None
    except (OSError, ValueError, KeyError):
        return None
    return WrittenShard(**{**entry, "number": number, "entries": tuple(map(tuple, entry["entries"]))})


def _finish(
    out: Path, settings: dict[str, Any], verdicts: list[FilterResult], shards: list[WrittenShard], summary: Summary
) -> None:
    """The list of pictures, the facts, the report, and last the index: with it the data set can be read."""
    lines = (
        {"kept": not verdict.reasons, "reasons": verdict.reasons, **verdict.measured.as_json()} for verdict in verdicts
    )
    write_entries(out / PICTURES, lines)
    facts = {
        **settings,
        **{name: value for name, value in asdict(summary).items() if name not in _OF_THIS_RUN},
        "num_bytes": sum(shard.size for shard in shards),
        "licences": _counted(v.measured.provenance.licence for v in verdicts if not v.reasons),
    }
    write_whole(out / FACTS, json.dumps(facts, indent=1, sort_keys=True) + "\n")
    write_whole(out / INDEX, index_bytes(shards))
    write_report(out)


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))

"""A result that was just made, audited: its report and overlay beside it, and other pixels where a limit is passed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supir.errors import ImageWriteError, OptionError
from supir.jobs.job import Job
from supir.options.audit import AuditOptions

if TYPE_CHECKING:
    from supir.pipeline import SupirPipeline
    from supir.restoration.work import Reached

AUDIT_SUFFIX = ".audit"
TOLD = ("kept", "reconstructed", "invented", "guarantee", "past_limits", "says")
"""Of the report, what a batch's log and a summary have too."""


def audit_files(target: Path) -> tuple[Path, Path]:
    """Report and overlay of a result."""
    stem = f"{target.stem}{AUDIT_SUFFIX}"
    return target.with_name(f"{stem}.json"), target.with_name(f"{stem}.png")


def check_audited(job: Job, photo: tuple[int, int], result: tuple[int, int]) -> None:
    """Find out before the work whether a job's result can be audited.

    Args:
        job: with or without an audit.
        photo: its (width, height).
        result: its (height, width).

    Raises:
        ImageWriteError: it is too small or too large for that.
    """
    if job.audit is None:
        return
    from supir.audit.auditing import check_sizes
    from supir.image import check_target

    height, width = result
    try:
        check_sizes(photo, (width, height))
    except OptionError as error:
        raise ImageWriteError(
            f"{job.target}: {error}; choose another --scale, or leave out --audit", job.target
        ) from error
    check_target(audit_files(job.target)[1], result)


def check_audits(jobs: Iterable[Job]) -> None:
    """Find out before the work whether the audits of jobs can promise and count what is asked of them.

    Raises:
        OptionError, MissingExtraError: see ``supir.audit.check_asked``.
    """
    if not (asked := dict.fromkeys(job.audit for job in jobs if job.audit is not None)):
        return
    from supir.audit import Calibration, check_asked

    calibration = Calibration.load()
    for options in asked:
        check_asked(options, calibration)


def audit_result(
    pipeline: SupirPipeline, job: Job, options: AuditOptions, on_work: Callable[[Reached], None] | None = None
) -> dict[str, Any]:
    """Audit the result that lies at the job's target; what its report says in short.

    Past a limit the result's file is written anew, as ``on_doubt`` says, and its record says so. ``on_work`` is told
    how far that is, as it was of the restoration.
    """
    from supir import image
    from supir.audit import Calibration, audit, doubted, open_witness
    from supir.restoration.work import Reached

    calibration = Calibration.load()
    own = pipeline.identity.get("model_sha256") in calibration.restorers
    witness = pipeline if own else open_witness(str(pipeline.device))
    before = image.read(job.source, salvage=job.options.salvage)
    after = image.read(job.target)
    record = image.read_record(job.target) or {"model_sha256": pipeline.identity.get("model_sha256", "")}

    def tell(done: int) -> None:
        if on_work is not None:
            on_work(Reached(1.0, previewed=True, steps=1.0, audited=done / (options.seeds + 1)))

    tell(0)
    report = audit(before, after, options, witness=witness, calibration=calibration, record=record, on_version=tell)
    found = {name: each for name, each in report.as_json().items() if name in TOLD}
    pixels = doubted(report)
    if pixels is not None:
        found["returned"] = options.on_doubt
        kept = {**record, "audit": "; ".join(report.passed), "on_doubt": options.on_doubt}
        signed = pipeline.signing if job.options.marking else None
        image.write(
            replace(after.with_pixels(pixels), path=job.source),
            job.target,
            record=kept if job.options.marking else None,
            signature=image.Signature(signed, job.source) if signed else None,
        )
    told, picture = audit_files(job.target)
    report.write(told, picture)
    return found

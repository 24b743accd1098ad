"""One picture, restored by a loaded pipeline: whatever is wrong with it, the answer is an `Outcome`."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from supir.caption.words import WORDS, record_of_words
from supir.errors import (
    DeviceLostError,
    ImageError,
    ImageReadError,
    OptionError,
    SupirError,
    WeightsError,
)
from supir.files import check_absent, lacks_room, sentence, write_whole
from supir.jobs.auditing import audit_files, audit_result, check_audited
from supir.jobs.job import BROWSERS_SHOW, THUMBNAIL, Job, Outcome, file_sha256, settings_sha256
from supir.jobs.model import Model

if TYPE_CHECKING:
    from supir.image import Condition
    from supir.pipeline import SupirPipeline
    from supir.restoration.work import Reached
    from supir.sampling.solvers import StepCallback


KEPT = "kept"
"""What is said, beside the words, of a photo that was good already."""


def restore_job(
    pipeline: SupirPipeline,
    job: Job,
    *,
    overwrite: bool = False,
    on_work: Callable[[Reached], None] | None = None,
) -> Outcome:
    """Restore one picture; the result is written whole or not at all.

    Args:
        pipeline: restores it.
        job: from where, how, to where.
        overwrite: replace a result that exists; without it such a picture is an error.
        on_work: told how far the work is. Raise a ``SupirError`` from it to stop.

    Raises:
        DeviceLostError: the accelerator failed, so that the next picture would fail in this process too.
    """
    start = time.perf_counter()
    outcome, lacked_memory = Outcome(source=job.source, target=job.target, compare=job.compare), False
    try:
        outcome = replace(outcome, words=_restore(pipeline, job, overwrite, on_work))
        if job.audit is not None:
            outcome = replace(outcome, audit=audit_result(pipeline, job, job.audit, on_work))
        _finish(pipeline, job)
    except (OSError, SupirError, MemoryError) as caught:
        text = sentence(caught) if isinstance(caught, OSError) else str(caught) or type(caught).__name__
        outcome = replace(outcome, error=text, lacks_room=lacks_room(caught))
        lacked_memory = isinstance(caught, MemoryError)
    except Exception as caught:  # a mistake of ours in one picture must not cost the user the other pictures
        from supir.weights.device import is_lost

        if is_lost(caught):
            raise DeviceLostError(f"{job.source}: the device failed; start again: {caught}") from caught
        outcome = replace(outcome, error=f"{type(caught).__name__}: {caught}", unexpected=traceback.format_exc())
    if lacked_memory:
        from supir.tensors.memory import give_back

        give_back()  # the next picture, or another process, may do with what this one filled
    return replace(outcome, seconds=time.perf_counter() - start)


def _restore(
    pipeline: SupirPipeline,
    job: Job,
    overwrite: bool,
    on_work: Callable[[Reached], None] | None,
) -> dict[str, str]:
    """Restore and write; what the record says of the words."""
    from supir import image

    _check_free(job, overwrite)
    _check_written(job)
    if job.preview_alone:
        _preview(pipeline, job, on_work)
        return {}
    if (condition := _good_already(job)) is not None:
        told = f"{job.source}: is good as it is ({condition}), and is kept; --always restores it"
        warnings.warn(told, UserWarning, stacklevel=2)
        _keep(job)
        return {KEPT: str(condition)}
    glimpse: StepCallback | None = None
    if job.views is not None:
        step_view = job.views.step
        glimpse = pipeline.glimpses(job.source, job.options, lambda seen: image.write(seen, step_view))
    record = pipeline.restore_file(
        job.source,
        job.target,
        job.options,
        preview=job.preview,
        record=record_of_words(job.options.tile_prompts or job.options.prompt, job.caption),
        on_step=glimpse,
        on_work=on_work,
    )
    if "faces" in record:
        warnings.warn(f"{job.source}: faces: {record['faces']}", UserWarning, stacklevel=2)
    return {name: record[name] for name in WORDS if name in record}


def _finish(pipeline: SupirPipeline, job: Job) -> None:
    """Write what is made of the result: the sheet, and what people who watch see."""
    from supir import image

    if job.preview_alone:
        return
    if job.compare is not None:
        image.write_sheet(job.source, job.target, job.compare, salvage=job.options.salvage, signing=pipeline.signing)
    _show(job)


def _good_already(job: Job) -> Condition | None:
    """What a photo shows of itself where there is nothing to mend and nothing else was asked for."""
    from supir import image

    options = job.options
    worded = (options.prompt or options.tile_prompts) and job.caption is None
    if job.audit is not None:  # which asks what a restoration does to it
        return None
    if options.scale != 1 or options.always or options.reference_quirks or worded or options.region or options.lora:
        return None
    found = image.condition_of(job.source, salvage=options.salvage)
    return found if found is not None and found.good else None


def _keep(job: Job) -> None:
    """The photo itself as the result: its bytes, where the result is of the same format."""
    from supir import image

    kind, _, _ = image.check_file(job.source)
    developed = job.source.suffix.lower() in image.DEVELOPED or image.SUFFIXES.get(job.source.suffix.lower()) != kind
    if developed or image.SUFFIXES[job.target.suffix.lower()] != kind:
        image.write(image.read(job.source, salvage=job.options.salvage), job.target)
    else:
        write_whole(job.target, job.source.read_bytes())
    if job.preview is not None:
        image.write(image.read(job.source, salvage=job.options.salvage), job.preview)


def _check_free(job: Job, overwrite: bool) -> None:
    """Raise ImageWriteError where a result is there and not to be replaced."""
    audited = audit_files(job.target) if job.audit is not None else ()
    check_absent((job.target, job.compare, job.preview, *audited), overwrite=overwrite)


def _check_written(job: Job) -> None:
    """Find out before the work whether a job's results can be written.

    Raises:
        ImageError: its source is no picture, or one of its results cannot be written as it is called, where it is, or
            as large as it would be.
        OptionError: a mask is not there, or has another shape.
    """
    from supir import image

    width, height = image.read_size(job.source)
    size = image.working_size(width, height, job.options.scale)
    result = size.output_height, size.output_width
    image.check_masks(job.options, width, height)
    image.check_target(job.target, result)
    check_audited(job, (width, height), result)
    if job.compare is not None:
        image.check_target(job.compare, image.sheet_size(*result))


def part_ready(jobs: Sequence[Job], *, overwrite: bool) -> tuple[list[Job], list[Outcome]]:
    """The jobs that can be begun, and the failures of the others: known before torch and the weights are loaded.

    Such are a file that is no picture, a result that cannot be written, and one that is there and not to be replaced.
    """
    kept, failures = [], []
    for job in jobs:
        try:
            _check_free(job, overwrite)
            _check_written(job)
        except (ImageError, OptionError) as error:
            failures.append(Outcome(source=job.source, target=job.target, error=str(error)))
        else:
            kept.append(job)
    return kept, failures


class _Previewed(Exception):
    """Raised when the clean preview, which alone was asked for, is written."""


def _preview(pipeline: SupirPipeline, job: Job, on_work: Callable[[Reached], None] | None) -> None:
    if job.crop is not None:
        pipeline.preview_crop(job.source, job.target, job.crop, job.options)
        return

    def leave() -> None:
        raise _Previewed

    with suppress(_Previewed):  # so that a large one streams to its file
        hearing: dict[str, Any] = {"on_preview": leave, "on_work": on_work}
        pipeline.restore_file(job.source, job.target, job.options, preview=job.target, **hearing)
    _show(job)


def _show(job: Job) -> None:
    """Write what people who watch see at the end."""
    from supir import image

    if job.views is None:
        return
    image.write_shown(job.source, job.views.input)
    image.write_shown(job.target, job.views.thumbnail, THUMBNAIL)
    if job.target.suffix not in BROWSERS_SHOW:
        image.write_shown(job.target, job.views.result)
    job.views.step.unlink(missing_ok=True)


@dataclass(frozen=True)
class OpenModel:
    """How a worker begins (`supir.pool.Opening`): it opens the weights."""

    model: Model
    overwrite: bool = True

    @property
    def on_gpu(self) -> bool:
        """As `Opening.on_gpu`."""
        return not self.model.on_processor

    def __call__(self, place: int) -> Restoring:
        """As `Opening.__call__`."""
        return Restoring(self.model, place, overwrite=self.overwrite)


class Restoring:
    """What a worker does with each job, with the weights it has opened; the same on every runner.

    Args:
        model: what is opened.
        place: the worker's number, from 0.
        overwrite: replace a result that exists; without it such a picture is an error.

    Raises:
        WeightsError: the weights cannot be opened here, or are not those that the batch was planned with.
    """

    def __init__(self, model: Model, place: int = 0, *, overwrite: bool = True) -> None:
        from supir.restoration.encoding import LastEncodings

        self._overwrite = overwrite
        _ = model.identity  # first: so the pipeline need not read every byte for it once more
        self._model = model
        self._pipeline = model.open(place)
        self._pipeline.last_encodings = LastEncodings()
        if any(self._pipeline.identity.get(name) != model.identity.get(name) for name in ("model", "model_sha256")):
            raise WeightsError(f"{model.folder}: holds other weights here than where the batch was started")

    def __call__(self, job: Job, on_work: Callable[[Reached], None] | None = None) -> Outcome:
        """Make the result, and say from which bytes it was made and what it is."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=UserWarning, module=r"supir\b")
            try:
                before = file_sha256(job.source)
                outcome = restore_job(self._pipeline, job, overwrite=self._overwrite, on_work=on_work)
                if outcome.error is None and file_sha256(job.source) != before:
                    raise ImageReadError(f"{job.source}: changed while it was restored; run again", job.source)
                if outcome.error is None:
                    settings = settings_sha256(job.options, self._model.identity_with(job.options), job.audit)
                    made = file_sha256(job.target)
                    outcome = replace(outcome, source_sha256=before, settings_sha256=settings, sha256=made)
            except ImageError as error:
                outcome = Outcome(source=job.source, target=job.target, error=str(error))
        return replace(outcome, warnings=tuple(dict.fromkeys(str(each.message) for each in caught)))

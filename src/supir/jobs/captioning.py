"""Words for pictures that have none, all of them before the first is restored.

So a captioner that is a model is in memory with the autoencoder alone, which makes the previews, and has left when the
networks that restore come in. It works in one process, whoever restores; what it said is kept, and an interrupted run
asks for no picture twice.

Answers are kept in the user's cache folder: one small JSON file each, found again by the bytes of the photo, all that
its preview depends on, and who was asked. It is read as untrusted: whatever is not an entry for just that is passed
over and written anew.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from supir.caption import Caption, clean_caption
from supir.caption.words import MAX_SIDE
from supir.errors import CaptionerError, CaptionError, ImageError, OptionError, SupirError
from supir.files import write_whole
from supir.jobs.job import Job, Outcome, file_sha256
from supir.jobs.model import Model
from supir.options import warn_of_idle
from supir.options.combinations import without_effect

if TYPE_CHECKING:
    from supir.caption.spec import PictureCaptioner
    from supir.caption.text_files import TextFileCaptioner
    from supir.options import RestoreOptions
    from supir.pipeline import SupirPipeline

MAX_FAILURES = 3
"""Pictures, one after the other, for which the captioner fails before it is given up for all."""

OF_THE_PREVIEW = ("scale", "min_size", "first", "vae_tile", "reference_quirks", "salvage")
"""The options that a preview depends on; the last decides whether there is one."""
_MAX_BYTES = 100_000
"""Of an entry of the cache."""
_SPARING_TILE = 512
"""Pixels of the autoencoder's tiles at most where memory is counted."""


def _default_folder() -> Path:
    """Where this platform keeps a user's caches: on Linux ``$XDG_CACHE_HOME/supir/captions``, or in ``~/.cache``."""
    return user_cache_path("supir", appauthor=False) / "captions"


@dataclass(frozen=True)
class CaptionCache:
    """A folder of captions. One that cannot be written costs a warning, no caption."""

    folder: Path = field(default_factory=_default_folder)

    def find(self, key: Mapping[str, str]) -> Caption | None:
        """The caption that was kept under this key, or None.

        Args:
            key: everything that decides a caption, as texts.
        """
        try:
            with self._path(key).open("rb") as stream:
                entry = json.loads(stream.read(_MAX_BYTES))
            text, captioner = entry["caption"], entry["captioner"]
            if entry["key"] != dict(key) or not isinstance(text, str) or not isinstance(captioner, str):
                return None
        except (OSError, ValueError, RecursionError, LookupError, TypeError):
            return None
        return Caption(text=clean_caption(text), captioner=captioner)

    def keep(self, key: Mapping[str, str], caption: Caption) -> None:
        """Write a caption, whole or not at all."""
        path = self._path(key)
        entry = {"caption": caption.text, "captioner": caption.captioner, "key": dict(key)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(path, json.dumps(entry, indent=1) + "\n")
        except OSError as error:
            warnings.warn(f"{self.folder}: captions cannot be kept: {error.strerror or error}", stacklevel=2)

    def _path(self, key: Mapping[str, str]) -> Path:
        return self.folder / f"{hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()}.json"


@dataclass(frozen=True, kw_only=True)
class Captioning:
    """Who is asked about pictures without a prompt, and where the answers are kept."""

    captioner: PictureCaptioner | TextFileCaptioner
    cache: CaptionCache | None = None
    """None asks about every picture anew."""
    on_progress: Callable[[int, int], None] = field(default=lambda done, total: None)
    """Told how many pictures have their words, and how many there are."""

    def captions(self, photos: Sequence[tuple[Path, RestoreOptions]], model: Model) -> Iterator[Caption | SupirError]:
        """A caption for each picture, or why there is none; the captioner is closed at the end, however it comes.

        Args:
            photos: files, and with which options each will be restored, of which sizes and tiles matter; in any order.
                The same picture in the same size is asked about once.
            model: whose autoencoder makes the previews; opened when the first is needed.

        Raises:
            CaptionerError: the captioner cannot be used, or fails for `MAX_FAILURES` pictures one after the other.
            WeightsError: the weights cannot be opened.
        """
        with self.captioner:
            asking = _CaptionSession(self, model)
            try:
                for done, (source, options) in enumerate(photos):
                    self.on_progress(done, len(photos))
                    yield asking.answer(source, options)
                self.on_progress(len(photos), len(photos))
            finally:
                asking.close()


def add_captions(
    jobs: Sequence[Job], captioning: Captioning, model: Model, wants: Callable[[Job], bool] = lambda job: True
) -> tuple[list[Job], list[Outcome]]:
    """The jobs with captions for prompts where they had none; and those of which no caption could be made.

    A job that has a prompt is left as it is, and one with a prompt for each tile: what a person typed goes before what
    a captioner would say. So is one that is not wanted, and one whose guidance leaves no prompt to be read.
    """
    uncaptioned = [job for job in jobs if _wants_words(job.options) and wants(job)]
    if uncaptioned and captioning.captioner.name == "beside" and not _any_text(uncaptioned, captioning):
        first = uncaptioned[0].source
        raise OptionError(
            f"captioner is 'beside', and no text lies beside {first}"
            + f" or any other of {len(uncaptioned)} photos" * (len(uncaptioned) > 1)
            + f"; write one into {first.with_suffix('.txt').name}, or leave the captioner out"
        )
    if not uncaptioned and any(map(wants, jobs)):
        warn_of_idle("the captioner is not asked: no picture wants words of it")
    found: dict[Path, Job] = {}
    failures: list[Outcome] = []
    answers = captioning.captions([(job.source, job.options) for job in uncaptioned], model)
    for job, answer in zip(uncaptioned, answers, strict=True):
        if isinstance(answer, Caption):
            found[job.target] = replace(job, options=job.options.replace(prompt=answer.text), caption=answer)
        else:
            failures.append(Outcome(source=job.source, target=job.target, error=str(answer)))
    failed = {outcome.target for outcome in failures}
    return [found.get(job.target, job) for job in jobs if job.target not in failed], failures


def _any_text(jobs: Sequence[Job], captioning: Captioning) -> bool:
    """Whether something is written of any of the pictures."""
    for job in jobs:
        try:
            if captioning.captioner.read(job.source):  # type: ignore[union-attr]
                return True
        except SupirError:  # said when its turn comes
            return True
    return False


def _wants_words(options: RestoreOptions) -> bool:
    return not options.prompt and "prompt" not in without_effect(
        type(options).silent(**(vars(options) | {"prompt": "words"})), ("prompt",), options
    )


def of_preview(options: RestoreOptions, width: int, height: int) -> RestoreOptions:
    """The options of a preview for a captioner: as large as captioners look, or as the picture is worked on.

    Args:
        options: with which the picture is restored.
        width, height: of the picture, in pixels; what is shown to the networks is ``read_reduced`` to `MAX_SIDE`.
    """
    from supir.image import working_size

    tile = options.vae_tile if options.memory is None else min(options.vae_tile, _SPARING_TILE)
    changes: dict[str, Any] = {"memory": None, "vae_tile": tile}
    size = working_size(width, height, options.scale, options.min_size, 1)
    if max(size.height, size.width, width, height) > MAX_SIDE:
        longest = min(max(size.height, size.width), MAX_SIDE)
        changes |= {"scale": min(longest / min(max(width, height), MAX_SIDE), 32.0), "min_size": 16}
    return type(options).silent(**(vars(options) | changes))


class _CaptionSession:
    """One pass over pictures."""

    def __init__(self, captioning: Captioning, model: Model) -> None:
        self._captioner, self._cache, self._model = captioning.captioner, captioning.cache, model
        self._identity = ""
        self._known: dict[tuple[str, ...], Caption | SupirError] = {}
        self._previewer: SupirPipeline | None = None
        self._num_failures = 0

    def close(self) -> None:
        """The autoencoder leaves its device: whoever restores wants the room."""
        if self._previewer is not None:
            from supir.tensors.memory import give_back

            self._previewer = None
            give_back()

    def answer(self, source: Path, options: RestoreOptions) -> Caption | SupirError:
        """A caption, or what stands against it in this picture; what stands against all is raised."""
        from supir.caption.text_files import TextFileCaptioner

        try:
            if isinstance(self._captioner, TextFileCaptioner):
                return Caption(text=self._captioner.read(source), captioner=self._captioner.name)
            return self._from_picture(source, options, self._captioner)
        except CaptionerError:
            raise
        except (ImageError, CaptionError) as error:
            return error
        except MemoryError as error:
            return CaptionError(f"{source}: no caption: {str(error) or 'out of memory'}")

    def _from_picture(self, source: Path, options: RestoreOptions, captioner: PictureCaptioner) -> Caption | SupirError:
        from supir.image import read_size

        options = of_preview(options, *read_size(source))
        key = self._key(source, options, captioner)
        unique = tuple(key.values())
        if unique not in self._known:
            caption = None if self._cache is None else self._cache.find(key)
            self._known[unique] = caption or self._fresh(source, options, captioner, key)
        return self._known[unique]

    def _fresh(
        self, source: Path, options: RestoreOptions, captioner: PictureCaptioner, key: dict[str, str]
    ) -> Caption | SupirError:
        from supir import image
        from supir.caption.spec import readable

        if self._previewer is None:
            self._previewer = self._model.open_previewer()
        shown = image.read_reduced(source, MAX_SIDE, salvage=options.salvage)
        preview = readable(self._previewer.preview(shown, options))
        try:
            caption = Caption(text=clean_caption(captioner(preview)), captioner=captioner.name)
        except CaptionerError:
            raise
        except CaptionError as error:
            self._num_failures += 1
            if self._num_failures >= MAX_FAILURES:
                raise CaptionerError(f"{error} ({MAX_FAILURES} pictures in a row; the rest were not tried)") from error
            return CaptionError(f"{source}: no caption: {error}")
        self._num_failures = 0
        if self._cache is not None:
            self._cache.keep(key, caption)
        return caption

    def _key(self, source: Path, options: RestoreOptions, captioner: PictureCaptioner) -> dict[str, str]:
        """All that decides a caption. A preview depends on the photo, four options and the weights."""
        self._identity = self._identity or captioner.identity
        return {
            "source_sha256": file_sha256(source),
            "preview": ", ".join(f"{name} {getattr(options, name)}" for name in OF_THE_PREVIEW[:-1]),
            **self._model.identity,
            "captioner": self._identity,
        }

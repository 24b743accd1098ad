"""What is to be restored, and what became of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from supir.caption import Caption
from supir.errors import ImageReadError
from supir.options import RestoreOptions
from supir.options.audit import AuditOptions
from supir.options.crop import Crop
from supir.options.regions import INLINE, joined_regions, split_regions
from supir.prompts import holds_weights


@dataclass(frozen=True, kw_only=True)
class Views:
    """Where to write pictures for people who watch: such as every browser shows, without metadata."""

    input: Path
    """The photo as it is read, upright; a PNG."""
    step: Path
    """What the steps aim at; a small JPEG, written anew after some of the steps."""
    result: Path
    """The result as a PNG; written where its own format is one that browsers do not show."""
    thumbnail: Path
    """The result, or a preview that is made alone, as a JPEG of at most `THUMBNAIL` pixels a side."""


THUMBNAIL = 256
BROWSERS_SHOW = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One result to make: read ``source``, restore it as ``options`` say, write ``target``."""

    source: Path
    target: Path
    options: RestoreOptions
    compare: Path | None = None
    """Where to write before and after, side by side; None writes no such sheet."""
    caption: Caption | None = None
    """What a captioner said of the picture, where one did; the words that are used are those of ``options``."""
    preview: Path | None = None
    """Where to write the clean preview, as soon as it is made; None writes none."""
    preview_alone: bool = False
    """The clean preview is the result: nothing is sampled."""
    crop: Crop | None = None
    """Of a preview that is made alone: the part of the photo that it shows; None shows it all."""
    views: Views | None = None
    """Where people watch; None where nobody does."""
    audit: AuditOptions | None = None
    """How the result is audited; None where it is not."""

    @property
    def taken(self) -> bool:
        """Whether something lies where the result would."""
        return any(path.exists() for path in (self.target, self.compare) if path is not None)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one job, or of an input that stands for no picture."""

    source: Path
    target: Path | None = None
    """Where the result is, or would be; None for an input that stands for no picture."""
    compare: Path | None = None
    seconds: float = 0.0
    error: str | None = None
    """The sentence to show; None when the result is there."""
    unexpected: str = ""
    """A traceback, when the reason is a mistake of ours."""
    lacks_room: bool = False
    """A disk was full: the same may go well when room was made."""
    warnings: tuple[str, ...] = ()
    skipped: bool = False
    """The result was there already, made from the same bytes by the same weights with the same options."""
    source_sha256: str = ""
    """Of the file that was restored; a batch alone fills in this and what follows."""
    settings_sha256: str = ""
    """See `settings_sha256`."""
    sha256: str = ""
    """Of the result."""
    words: Mapping[str, str] = field(default_factory=dict)
    """What the record of the result says of its words: the whole prompt, the caption, and whose they are."""
    audit: Mapping[str, Any] = field(default_factory=dict)
    """What an audit of the result came to; empty where there was none."""


def settings_sha256(options: RestoreOptions, identity: Mapping[str, str], audit: AuditOptions | None = None) -> str:
    """What decides a result beside its source: the options, the identity of the weights, an audit, as one hash."""
    chosen = asdict(options)
    del chosen["salvage"]  # it decides which files are read at all
    del chosen["lora"], chosen["first"]  # the identity says what is in their files, wherever they lie
    later = (
        "keep_grain",
        "color_strength",
        "blend",
        "blend_mask",
        "decoder_tile",
        "marking",
        "region",
        "region_edge",
        "faces",
        "always",
        "see_larger",
    )
    for name in later:
        if chosen[name] == RestoreOptions.fields()[name].default:
            del chosen[name]  # as before there was such an option
    if not options.prompt_weights or not holds_weights(options):
        del chosen["prompt_weights"]  # letters, as before there was such an option
    if options.blend_mask and options.blend:
        chosen["blend_mask"] = _mask_sha256(options.blend_mask)
    if options.region:
        regions = split_regions(options.region)
        chosen["region"] = joined_regions(
            tuple(each.with_mask(_mask_sha256(each.mask)) if each.mask else each for each in regions)
        )
    audited = asdict(audit) if audit else {}
    for name in ("likeness", "min_face_similarity") if audit else ():
        if audited[name] == AuditOptions.fields()[name].default:
            del audited[name]  # likewise
    decisive = {"options": chosen, "weights": dict(identity)} | ({"audit": audited} if audit else {})
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _mask_sha256(name: str) -> str:
    return name if name.startswith(INLINE) else file_sha256(Path(name))


def file_sha256(path: Path) -> str:
    """SHA-256 of a picture's file.

    Raises:
        ImageReadError: it cannot be read.
    """
    from supir.weights.catalog import file_hash

    try:
        if path.exists() and not path.is_file():  # a named pipe would wait for ever
            raise ImageReadError(f"{path}: not a regular file; a picture file is needed", path)
        return file_hash(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageReadError(f"{path}: cannot be read: {reason}", path) from error

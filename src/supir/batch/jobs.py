"""What is to be restored, and what became of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from supir.options import RestoreOptions


@dataclass(frozen=True, kw_only=True)
class Job:
    """One result to make: read ``source``, restore it as ``options`` say, write ``target``."""

    source: Path
    target: Path
    options: RestoreOptions
    compare: Path | None = None
    """Where to write before and after, side by side; None writes no such sheet."""
    preview: Path | None = None
    """Where to write the clean preview, as soon as it is made; None writes none."""


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
    warnings: tuple[str, ...] = ()
    skipped: bool = False
    """The result was there already, made from the same bytes by the same weights with the same options."""
    source_sha256: str = ""
    """Of the file that was restored; a batch alone fills in this and what follows."""
    settings_sha256: str = ""
    """See `settings_sha256`."""
    sha256: str = ""
    """Of the result."""


def settings_sha256(options: RestoreOptions, identity: Mapping[str, str]) -> str:
    """What decides a result beside its source: the options and the identity of the weights, as one hash."""
    decisive = {"options": asdict(options), "weights": dict(identity)}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

"""The report of an audit: JSON, a sentence, the overlay, and which of the caller's limits were passed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from supir.audit.auditing import INVENTED, Findings, gathered, judged
from supir.audit.calibration import BUNDLED, WRONG, Calibration
from supir.audit.faces import Likeness, compare_faces
from supir.audit.letters import Reading, check_reader, read_letters
from supir.audit.overlay import FACES, LINE, overlay
from supir.audit.windows import gaussian, levels, spread_over
from supir.audit.witness import open_witness
from supir.errors import MissingExtraError
from supir.files import write_whole
from supir.image import Picture, read, read_record, resize, write
from supir.image.faces import check_faces
from supir.options.audit import AuditOptions
from supir.weights.catalog import file_hash

if TYPE_CHECKING:
    from supir.pipeline import SupirPipeline


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that an audit says."""

    findings: Findings
    options: AuditOptions
    letters: Sequence[Reading] | None
    """None where nobody read them."""
    faces: Sequence[Likeness] | None
    """None where nobody compared them."""
    files: Mapping[str, Any] = field(default_factory=dict)
    """Names, hashes and sizes of the two."""
    holds: str | None
    """Why the calibration's promise is not one for this result; None where it is."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Of the calibration."""
    after: Tensor
    """(3, H, W) in grey levels."""
    weak: Tensor
    """The witness's clean preview, likewise."""

    @cached_property
    def num_changed_words(self) -> int:
        """Words that are others than before, or were none."""
        return sum(reading.num_changed for reading in self.letters or ())

    @cached_property
    def unlike(self) -> tuple[Likeness, ...]:
        """Faces that are less alike than the caller's limit; those too small to tell anything do not count."""
        least = self.options.min_face_similarity
        if least is None:
            return ()
        return tuple(face for face in self.faces or () if face.usual is not None and face.similarity < least)

    @cached_property
    def passed(self) -> tuple[str, ...]:
        """A clause for each of the caller's limits that the result is past."""
        found, asked = self.findings, self.options
        told = []
        if asked.max_invented is not None and found.invented > asked.max_invented:
            told.append(f"{_percent(found.invented)} is invented, and at most {_percent(asked.max_invented)} may be")
        if asked.max_contradictions is not None and len(found.contradictions) > asked.max_contradictions:
            told.append(f"{_places(len(found.contradictions))} the input, and at most {asked.max_contradictions} may")
        if asked.max_changed_words is not None and self.num_changed_words > asked.max_changed_words:
            told.append(
                f"{self.num_changed_words} words are changed or invented, and at most {asked.max_changed_words} may be"
            )
        if self.unlike:
            similarity, least = min(face.similarity for face in self.unlike), asked.min_face_similarity
            told.append(f"a face is {similarity:.2f} like the one before, and it must be {least:g} at least")
        return tuple(told)

    def as_json(self) -> dict[str, Any]:
        """As ``supir audit --json`` prints it."""
        found = self.findings
        return {
            **self.files,
            "kept": round(found.kept, 4),
            "reconstructed": round(found.reconstructed, 4),
            "invented": round(found.invented, 4),
            "wrong_from_levels": WRONG,
            "level": found.level,
            "false_alarms": self.options.false_alarms,
            "guarantee": self.holds or "holds",
            "damage": found.damage.as_json(),
            "consistency": found.consistency.as_json(),
            "contradictions": [
                {**asdict(each), "box": list(each.box), "strength": round(each.strength, 2)}
                for each in found.contradictions
            ],
            "letters": None if self.letters is None else [each.as_json() for each in self.letters],
            "faces": None if self.faces is None else [each.as_json() for each in self.faces],
            "past_limits": list(self.passed),
            "calibration": dict(self.about),
            "says": str(self),
        }

    def __str__(self) -> str:
        """A sentence."""
        found = self.findings
        shares = (
            f"{_percent(found.kept)} kept, {_percent(found.reconstructed)} reconstructed,"
            f" {_percent(found.invented)} invented"
        )
        against = [_places(len(found.contradictions)) + " the input"] if found.contradictions else []
        letters = _counted(self.letters, "letters were not read", "no letters", "lines of text")
        faces = _counted(self.faces, "faces were not compared", "no faces", "faces")
        return "; ".join([shares, *against, letters, faces, *self._said_of_guarantee()])

    def _said_of_guarantee(self) -> list[str]:
        return [] if self.holds is None else [f"without a guarantee, since {self.holds}"]

    def overlay(self) -> Picture:
        """The result in grey under the map, with contradictions and faces outlined."""
        outlined = [(each.box, LINE) for each in self.findings.contradictions]
        outlined += [(each.box, FACES[each.verdict]) for each in self.faces or ()]
        return Picture(pixels=overlay(self.after, self.findings.classes, outlined))

    def map(self) -> Picture:
        """By how many levels the result is expected to be off around each pixel: grey, white is 255."""
        return Picture(pixels=(self.findings.expected[None].clamp(0, 255) / 127.5 - 1), bits=16)

    def write(self, report: Path | None = None, picture: Path | None = None, values: Path | None = None) -> None:
        """The JSON, the overlay and the map, each where a name is given; whole or not at all."""
        if report is not None:
            write_whole(report, json.dumps(self.as_json(), indent=1) + "\n")
        if picture is not None:
            write(self.overlay(), picture)
        if values is not None:
            write(self.map(), values)


def _counted(found: Sequence[Reading] | Sequence[Likeness] | None, unlooked: str, nothing: str, what: str) -> str:
    """How many have each verdict."""
    if not found:
        return unlooked if found is None else nothing
    counts: dict[str, int] = {}
    for each in found:
        counts[each.verdict] = counts.get(each.verdict, 0) + 1
    return f"{what}: " + ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items()))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.2g} %"


def _places(number: int) -> str:
    return "1 place contradicts" if number == 1 else f"{number} places contradict"


def check_asked(options: AuditOptions, calibration: Calibration) -> None:
    """Find out before the work whether an audit can promise and count what is asked.

    Raises:
        OptionError: the calibration's photographs are too few for the level or the rate of false alarms.
        MissingExtraError: words are to be counted or faces compared, and nothing that does is installed.
    """
    calibration.check(options.level, options.false_alarms)
    if options.max_changed_words is not None:
        check_reader()
    if options.min_face_similarity is not None:
        check_faces("comparing faces")


def audit(
    before: Path | str | Picture,
    after: Path | str | Picture,
    options: AuditOptions | None = None,
    *,
    witness: SupirPipeline | None = None,
    calibration: Calibration | None = None,
    record: Mapping[str, str] | None = None,
    on_version: Callable[[int], None] = lambda done: None,
) -> Report:
    """Say what a result kept of its input, what was reconstructed and what was invented.

    Args:
        before: the input.
        after: the result, of the same shape.
        options: unset, the usual ones.
        witness: the bundled model; opened where it is not given.
        calibration: unset, that of the bundled model.
        record: of the result, which says what made it; read from its file where it is one.
        on_version: told how many of ``options.seeds + 1`` pieces of work are done; raise from it to stop.

    Raises:
        ImageError: one of the two cannot be read.
        OptionError, MissingExtraError: they are no pair, or see ``check_asked``.
    """
    options = options or AuditOptions()
    calibration = calibration or Calibration.load(BUNDLED)
    check_asked(options, calibration)
    files = {name: _about(each) for name, each in (("before", before), ("after", after))}
    if record is None:
        record = {} if isinstance(after, Picture) else read_record(after)
    first, second = (each if isinstance(each, Picture) else read(each) for each in (before, after))
    evidence = gathered(first, second, witness or open_witness(), seeds=options.seeds, on_version=on_version)
    findings = judged(evidence, calibration, level=options.level, rate=options.false_alarms)
    letters, faces = None, None
    if options.letters:
        with suppress(MissingExtraError):
            enlarged = resize(first.rgb.contiguous(), second.height, second.width)
            letters = read_letters(levels(enlarged), evidence.after)
    if options.likeness:
        with suppress(MissingExtraError):
            faces = compare_faces(evidence)
    return Report(
        findings=findings, options=options, letters=letters, faces=faces, files=files,
        holds=_why_not(calibration, record),
        about=calibration.about, after=evidence.after, weak=evidence.weak,
    )  # fmt: skip


def _why_not(calibration: Calibration, record: Mapping[str, str]) -> str | None:
    """Why no promise can be made for a result with this record."""
    if "model_sha256" not in record:
        return "the result does not say which model made it"
    if record["model_sha256"] not in calibration.restorers:
        return "another model made the result than the calibration's"
    return None


def _about(picture: Path | str | Picture) -> dict[str, Any]:
    if isinstance(picture, Picture):
        return {"size": [picture.width, picture.height]}
    return {"file": str(picture), "sha256": file_hash(Path(picture))}


SOFT = 4.0
"""Pixels over which the preview fades into the result around what was invented, faces of others among that."""


def doubted(report: Report) -> Tensor | None:
    """The pixels (3, H, W) in [-1, 1] to return in place of a result past a limit; None where it stays as it is."""
    if not report.passed or report.options.on_doubt == "keep":
        return None
    if report.options.on_doubt == "preview":
        return report.weak / 127.5 - 1
    share = spread_over((report.findings.classes == INVENTED).float(), *report.after.shape[-2:])
    for left, top, width, height in (face.box for face in report.unlike):
        share[top : top + height, left : left + width] = 1
    share = gaussian(share[None], SOFT)
    return torch.lerp(report.after, report.weak, share) / 127.5 - 1

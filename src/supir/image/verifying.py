"""What holds of a picture that says how it was made: its mark, its record, its pixels, its signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from supir.image.credentials import Manifest, manifest_of
from supir.image.marking import MADE_WITH_MODELS, PIXELS, pixels_sha256
from supir.image.opening import opened
from supir.image.reading import decode
from supir.image.xmp import record_of, source_type_of


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What holds of a file."""

    file: Path
    source_type: str | None
    """What it says of its digital source: a URI of the IPTC's."""
    record: Mapping[str, str] = field(default_factory=dict)
    pixels: str = "unknown"
    """unchanged since they were marked, changed, or unknown: nothing was kept to tell by."""
    c2pa: Manifest

    @property
    def marked(self) -> bool:
        """Whether it says that a trained model made or altered it."""
        return self.source_type in MADE_WITH_MODELS

    @property
    def holds(self) -> bool:
        """Whether it is marked, and nothing in it contradicts that or tells of a later change."""
        return self.marked and self.pixels != "changed" and self.c2pa.state != "invalid"

    def __str__(self) -> str:
        """A sentence."""
        return "; ".join(filter(None, (self._mark(), self._maker(), self._change(), self._signature())))

    def as_json(self) -> dict[str, Any]:
        """As ``supir verify --json`` has it."""
        return {
            "file": str(self.file), "holds": self.holds, "marked": self.marked,
            "digital_source_type": self.source_type, "record": dict(self.record), "pixels": self.pixels,
            "c2pa": asdict(self.c2pa), "says": str(self),
        }  # fmt: skip

    def _mark(self) -> str:
        if self.marked:
            return f"marked as {MADE_WITH_MODELS[str(self.source_type)]}"
        told = "" if self.source_type is None else f" (it says {self.source_type.rpartition('/')[2]})"
        taken_out = ", which its record contradicts" if self.record else ""
        return f"not marked as made with AI{told}{taken_out}"

    def _maker(self) -> str:
        if not self.record:
            return "without a record of how it was made"
        names = (("software", "made by {}"), ("model", "with the model {}"), ("made", "{}"))
        return " ".join(form.format(self.record[name]) for name, form in names if name in self.record)

    def _change(self) -> str:
        if not self.record:
            return ""
        return {
            "unchanged": "its pixels are those that were marked",
            "changed": "its pixels were changed after it was marked",
            "unknown": "its record does not say which pixels were marked",
        }[self.pixels]

    def _signature(self) -> str:
        by = f" by {self.c2pa.signed_by}" if self.c2pa.signed_by else ""
        return {
            "absent": "no C2PA signature",
            "unread": "C2PA was not looked for (pip install 'supir[c2pa]')",
            "trusted": f"its C2PA manifest is valid, signed{by}, whose certificate this machine trusts",
            "valid": f"its C2PA manifest is valid, signed{by}, whose certificate nobody vouches for on this machine",
            "invalid": f"its C2PA manifest, signed{by}, is not valid: {'; '.join(self.c2pa.problems)}",
        }[self.c2pa.state]


def verify(path: Path | str) -> Verdict:
    """Read what a picture file says of how it was made, and whether it still is what was marked.

    Raises:
        ImageReadError: it is no picture that can be read; one that is damaged is none.
    """
    path = Path(path)
    with opened(path) as source:
        xmp = source.facts.xmp
    record = record_of(xmp)
    pixels = "unknown"
    if PIXELS in record:
        found, _ = decode(path, lambda image, bits: pixels_sha256(image), quiet=True)
        pixels = "unchanged" if found == record[PIXELS] else "changed"
    manifest = manifest_of(path)
    said = source_type_of(xmp) or _source_type_in(manifest)
    return Verdict(file=path, source_type=said, record=record, pixels=pixels, c2pa=manifest)


def _source_type_in(manifest: Manifest) -> str | None:
    """What the actions of a valid manifest say, of those that count as a mark."""
    said = [action.get("digitalSourceType") for action in manifest.actions]
    return next((each for each in said if manifest.state in ("valid", "trusted") and each in MADE_WITH_MODELS), None)

"""Whether what lies in a model folder is distilled to few steps: by what was noted when it was converted."""

from __future__ import annotations

import json
from pathlib import Path

from supir.options.distilled import distilled_kind
from supir.weights.catalog import REPORT_NAME


def distilled_folder(folder: Path) -> str | None:
    """As `distilled_kind`, of a model folder: by its name, and those of the files that it was made from."""
    try:
        sources = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))["sources"]
        names = [str(text) for source in sources for text in (source["name"], source.get("distilled") or "")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        names = []
    return distilled_kind(folder.resolve().name, *names)

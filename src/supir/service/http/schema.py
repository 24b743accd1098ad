"""The form of a submission and the options as JSON schemas, made from the fields that check them."""

from __future__ import annotations

from typing import Any

from supir.options import RestoreOptions
from supir.service.validation import SubmissionOptions


def chosen_schema() -> dict[str, Any]:
    """Preset and options as one JSON object. None has a default: unset, or null, is the preset's value."""
    given = {"preset": SubmissionOptions.schemas()["preset"], **RestoreOptions.schemas()}
    properties = {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in given.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def form_schema() -> dict[str, Any]:
    """The fields of a submission: the picture, and how to restore it, as one JSON object or field by field."""
    picture = "the picture: JPEG, PNG, WebP or TIFF, by its content"
    about = "preset and options as one JSON object, in place of the fields below; null: unset"
    return {
        "type": "object",
        "required": ["file"],
        "additionalProperties": False,
        "properties": {
            "file": {"type": "string", "format": "binary", "description": picture},
            "options": chosen_schema() | {"description": about},
            **SubmissionOptions.schemas(),
            **RestoreOptions.schemas(),
        },
    }

"""The form of a submission and the options as JSON schemas, made from the fields of `RestoreOptions`."""

from __future__ import annotations

import dataclasses
from typing import Any

from supir.options import DEFAULT_PRESET, OPTIONAL_NUMBERS, PRESETS, RestoreOptions
from supir.service.stored_job import UNTIL
from supir.service.validation import FORMATS

__all__ = ["chosen_schema", "form_schema", "option_schemas"]


def option_schemas() -> dict[str, dict[str, Any]]:
    """A JSON schema for each option, by name. None has a default: unset, or null, is the preset's value."""
    return {spec.name: _schema(spec) for spec in dataclasses.fields(RestoreOptions)}


def chosen_schema() -> dict[str, Any]:
    """Preset and options as one JSON object."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _or_null(each) for name, each in {"preset": _preset(), **option_schemas()}.items()},
    }


def form_schema() -> dict[str, Any]:
    """The fields of a submission: the picture, and how to restore it, as one JSON object or field by field."""
    about = "preset and options as one JSON object, in place of the fields below; null: unset"
    return {
        "type": "object",
        "required": ["file"],
        "additionalProperties": False,
        "properties": {
            "file": {
                "type": "string",
                "format": "binary",
                "description": "the picture: JPEG, PNG, WebP or TIFF, by its content",
            },
            "options": chosen_schema() | {"description": about},
            "format": {
                "type": "string",
                "enum": list(FORMATS),
                "description": "of the result; unset: that of the picture",
            },
            "until": {
                "type": "string",
                "enum": list(UNTIL),
                "description": "preview: the clean preview is all that is made, before any other job; unset: result",
            },
            "preset": _preset(),
            **option_schemas(),
        },
    }


def _preset() -> dict[str, Any]:
    about = f"the values that are not set; unset: {DEFAULT_PRESET}"
    return {"type": "string", "enum": list(PRESETS), "description": about}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _schema(spec: dataclasses.Field[Any]) -> dict[str, Any]:
    allowed, doc = spec.metadata, spec.metadata["doc"]
    if "choices" in allowed:
        return {"type": "string", "enum": list(allowed["choices"]), "description": doc}
    if "low" not in allowed:
        return {"type": "boolean" if spec.type == "bool" else "string", "description": doc}
    unit = f" [{allowed['unit']}]" if allowed["unit"] else ""
    number = {
        "type": "integer" if "int" in str(spec.type) else "number",
        "minimum": allowed["low"],
        "maximum": allowed["high"],
    }
    if spec.name in OPTIONAL_NUMBERS:
        return {"anyOf": [number, {"const": "off"}], "description": f"{doc}; off: unset{unit}"}
    return {**number, "description": doc + unit}

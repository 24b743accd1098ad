"""Python reads this first where the folder is in ``PYTHONPATH``.

Packages that a plain installation does not have are not found, though they are here for other tests. Diffusers and
transformers import whatever they find, which takes seconds.
"""

from __future__ import annotations

import os
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

HIDDEN = frozenset(os.environ.get("HIDDEN_PACKAGES", "").split())
_found = PathFinder.find_spec


def _find(name: str, *where: Any) -> ModuleSpec | None:
    return None if name in HIDDEN else _found(name, *where)


PathFinder.find_spec = _find  # type: ignore[method-assign,assignment]

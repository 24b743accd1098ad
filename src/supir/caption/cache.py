"""Captions that were made, kept in the user's cache folder: one small JSON file each.

A caption is found again by the bytes of the photo, all that its preview depends on, and who was asked. It is read as
untrusted: whatever is not an entry for just that is passed over and written anew.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path

from supir.caption.words import Caption, clean_caption
from supir.files import write_whole

_MAX_BYTES = 100_000


def default_folder() -> Path:
    """Where this platform keeps a user's caches: on Linux ``$XDG_CACHE_HOME/supir/captions``, or in ``~/.cache``."""
    return user_cache_path("supir", appauthor=False) / "captions"


@dataclass(frozen=True)
class CaptionCache:
    """A folder of captions. One that cannot be written costs a warning, no caption."""

    folder: Path = field(default_factory=default_folder)

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

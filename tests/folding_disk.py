"""A disk that takes names for one that differ in capitals or in how an accent is stored, as those of macOS do."""

from __future__ import annotations

import builtins
import io
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class FoldingDisk:
    """Below `root` every name finds the file that was first written under one of its spellings.

    Python's own calls are led there; a library that opens files by itself finds them under the spelling they have.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._root, self._listdir, self._lstat = os.fspath(root), os.listdir, os.lstat
        for module, names in {
            os: (
                "access",
                "stat",
                "lstat",
                "open",
                "mkdir",
                "rmdir",
                "unlink",
                "remove",
                "listdir",
                "scandir",
                "readlink",
                "utime",
            ),
            io: ("open",),
            builtins: ("open",),
        }.items():
            for name in names:
                self._lead(patch, module, name, 1)
        for name in ("replace", "rename", "link"):
            self._lead(patch, os, name, 2)

    def _lead(self, patch: pytest.MonkeyPatch, module: Any, name: str, num_paths: int) -> None:
        original = getattr(module, name)

        def led(*arguments: Any, **more: Any) -> Any:
            paths = [self.found(path) for path in arguments[:num_paths]]
            return original(*paths, *arguments[num_paths:], **more)

        patch.setattr(module, name, led)

    def found(self, path: Any) -> Any:
        """The path as the disk spells it."""
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
        if not isinstance(text, str) or not os.path.abspath(text).startswith(self._root + os.sep):
            return path
        here = self._root
        for part in os.path.relpath(text, self._root).split(os.sep):
            exact = os.path.join(here, part)
            try:
                self._lstat(exact)
            except OSError:
                try:
                    alike = [name for name in self._listdir(here) if folded(name) == folded(part)]
                except OSError:
                    alike = []
                exact = os.path.join(here, alike[0]) if alike else exact
            here = exact
        return path if here == os.path.abspath(text) else here

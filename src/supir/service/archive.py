"""Copies of uploads and results in object storage, or wherever else fsspec reaches; the one file that knows it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from supir.errors import MissingExtraError, OptionError


class Archive:
    """A place that holds a folder for each job: ``URL/ID/upload``, ``URL/ID/result.SUFFIX`` and its audit.

    A job is done only after its files are there. What the service's own disk holds is what it works with and serves;
    it is removed as ever, and what lies here stays until its job is deleted or the storage's own rules take it away.

    Args:
        url: as ``s3://bucket/photos``, ``gs://...``, ``file:///mnt/share``. Who may write there is told to fsspec's
            package for it as that wants to be told: for S3 by AWS_ACCESS_KEY_ID and the like, or the machine's role.

    Raises:
        MissingExtraError: fsspec is not installed.
        OptionError: there is no such kind of storage, its package is missing, or nothing can be written there.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise MissingExtraError("fsspec", "storage", "object storage") from error
        try:
            self._files: Any
            self._files, self._root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise OptionError(f"archive is {url!r}: {error}") from error
        probe = f"{self._root}/.supir-writes-here"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(probe, b"")
            self._files.rm_file(probe)
        except Exception as error:  # each storage has errors of its own
            raise OptionError(f"archive is {url!r}, where nothing can be written: {_reason(error)}") from error

    def keep(self, job: str, paths: Iterable[Path]) -> None:
        """Copy files of a job there, under their own names; a file that is there is replaced.

        Raises:
            OSError: the storage refuses.
        """
        folder = f"{self._root}/{job}"
        try:
            self._files.makedirs(folder, exist_ok=True)
            for path in paths:
                self._files.put_file(str(path), f"{folder}/{path.name}")
        except Exception as error:
            raise OSError(f"the archive refuses it: {_reason(error)}") from error

    def forget(self, job: str) -> None:
        """Remove a job's files there.

        Raises:
            OSError: the storage refuses.
        """
        folder = f"{self._root}/{job}"
        try:
            if self._files.exists(folder):
                self._files.rm(folder, recursive=True)
        except Exception as error:
            raise OSError(f"the archive refuses it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__

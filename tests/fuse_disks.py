"""Disks by FUSE, in a process of their own: one that takes IMG.jpg and img.jpg for one name, one of a few megabytes.

python fuse_disks.py folding|small BACK DISK
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SMALL = 12_000_000
"""Bytes of the small disk."""


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    """The disk, below a folder, for as long as the block runs.

    Raises:
        OSError: it cannot be mounted here; the message says why.
    """
    back, disk = folder / "back", folder / "disk"
    back.mkdir()
    disk.mkdir()
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise OSError("there is no /dev/fuse that may be used")
    process = subprocess.Popen([sys.executable, __file__, kind, back, disk], stderr=subprocess.PIPE)
    try:
        while not os.path.ismount(disk):
            if process.poll() is not None:
                assert process.stderr is not None
                raise OSError(process.stderr.read().decode(errors="replace").strip().splitlines()[-1])
            time.sleep(0.01)
        yield disk
    finally:
        for command in (["fusermount", "-u", disk], ["fusermount3", "-u", disk], ["umount", disk]):
            with suppress(OSError):
                if os.path.ismount(disk) and subprocess.run(command, capture_output=True).returncode == 0:
                    break
        process.terminate()
        process.communicate()


def main(kind: str, root: str, disk: str) -> None:
    import mfusepy

    def number(error: OSError) -> Exception:
        return mfusepy.FuseOSError(error.errno)

    class Disk(mfusepy.Operations):
        """Leads to the files below the root."""

        def real(self, path: str) -> str:
            here = root
            for part in filter(None, path.split("/")):
                exact = os.path.join(here, part)
                if kind == "folding" and not os.path.lexists(exact) and os.path.isdir(here):
                    alike = [name for name in os.listdir(here) if folded(name) == folded(part)]
                    exact = os.path.join(here, alike[0]) if alike else exact
                here = exact
            return here

        def __call__(self, operation: str, *arguments: Any) -> Any:
            try:
                return getattr(self, operation)(*arguments)
            except OSError as error:
                raise number(error) from error

        def room(self) -> int:
            return SMALL - sum(path.stat().st_size for path in Path(root).rglob("*") if path.is_file())

        def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
            found = os.lstat(self.real(path))
            return {name: getattr(found, name) for name in dir(found) if name.startswith("st_") and name != "st_ino"}

        def readdir(self, path: str, fh: Any) -> list[str]:
            return [".", "..", *os.listdir(self.real(path))]

        def readlink(self, path: str) -> str:
            return os.readlink(self.real(path))

        def mkdir(self, path: str, mode: int) -> None:
            os.mkdir(self.real(path), mode)

        def rmdir(self, path: str) -> None:
            os.rmdir(self.real(path))

        def unlink(self, path: str) -> None:
            os.unlink(self.real(path))

        def rename(self, old: str, new: str) -> None:
            os.rename(self.real(old), self.real(new))

        def chmod(self, path: str, mode: int) -> None:
            os.chmod(self.real(path), mode)

        def utimens(self, path: str, times: Any = None) -> None:
            os.utime(self.real(path), times)

        def statfs(self, path: str) -> dict[str, int]:
            found = os.statvfs(root)
            said = {name: getattr(found, name) for name in dir(found) if name.startswith("f_") and name != "f_fsid"}
            if kind == "small":
                free = max(0, self.room()) // found.f_frsize
                said |= {"f_blocks": SMALL // found.f_frsize, "f_bfree": free, "f_bavail": free}
            return said

        def open(self, path: str, flags: int) -> int:
            return os.open(self.real(path), flags & ~os.O_APPEND)

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            return os.open(self.real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(fh, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            more = max(0, offset + len(data) - os.fstat(fh).st_size)
            if kind == "small" and more > self.room():
                raise OSError(errno.ENOSPC, "No space left on device")
            return os.pwrite(fh, data, offset)

        def truncate(self, path: str, length: int, fh: int | None = None) -> None:
            os.truncate(self.real(path) if fh is None else fh, length)

        def flush(self, path: str, fh: int) -> int:
            return 0

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            return 0

        def release(self, path: str, fh: int) -> None:
            os.close(fh)

    mfusepy.FUSE(Disk(), disk, foreground=True, nothreads=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A submission's body, read as it comes: counted, refused when too large, written into the service's folder."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from supir.errors import UploadError, UploadTooLargeError
from supir.service.validation import MAX_TEXT

_MAX_FIELDS = 64
_MAX_FIELD = 8 * MAX_TEXT
"""Bytes of one text: JSON writes a character in up to six."""
_AROUND = 1_000_000
"""Bytes of a body beside the picture."""
_MAX_DROPPED = 64_000_000
"""Bytes that are read and dropped after a refusal: a client that is still sending would not see the answer."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """The parts of a submission, but for the picture."""

    name: str
    """Of the picture, as its sender calls it."""
    fields: dict[str, str]


async def read_form(request: Request, max_bytes: int, path: Path) -> Form:
    """Read a multipart body, its picture into a new file; the caller removes that when this fails.

    Args:
        request: its body is not read yet.
        max_bytes: of the picture.
        path: of the file.

    Raises:
        UploadTooLargeError: there is more; the rest was not kept.
        UploadError: no multipart body with one part ``file``, or a part is twice there.
        OSError: the disk does not take it.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise UploadError("the body must be multipart/form-data with the picture as its part 'file'")
    stream = request.stream()
    try:
        parser = _Parser(
            request.headers, _counted(request, stream, max_bytes), max_files=1, max_fields=_MAX_FIELDS,
            max_part_size=_MAX_FIELD,
        )  # fmt: skip
        parser.path = path
        parts = (await parser.parse()).multi_items()
        for _, part in parts:
            if isinstance(part, UploadFile):
                await part.close()
    except MultiPartException as error:
        await drop_rest(stream)
        raise UploadError(f"the body is no multipart/form-data that can be read: {error.message}") from None
    except (UploadTooLargeError, OSError):
        await drop_rest(stream)
        raise
    return _form_of(parts, max_bytes)


def _form_of(parts: list[tuple[str, UploadFile | str]], max_bytes: int) -> Form:
    fields: dict[str, str] = {}
    file: UploadFile | None = None
    for name, part in parts:
        if name in fields or (name == "file" and file is not None):
            raise UploadError(f"the part {name!r} is there twice")
        if isinstance(part, str):
            fields[name] = part
        elif name == "file":
            file = part
        else:
            raise UploadError(f"the part {name!r} is a file; only 'file' may be one")
    if file is None or "file" in fields:
        raise UploadError("there is no part 'file' with a file name; it holds the picture")
    if (file.size or 0) > max_bytes:
        raise _too_large(max_bytes)
    return Form(name=file.filename or "", fields=fields)


class _Parser(MultiPartParser):
    """Writes the file of a body to where it belongs at once: no other disk is filled, and nothing is copied."""

    path: Path

    def on_headers_finished(self) -> None:
        """As in starlette."""
        super().on_headers_finished()
        found = self._current_part.file
        if found is not None:
            found.file.close()
            found.file = self.path.open("xb")
            self._files_to_close_on_error[-1] = found.file  # type: ignore[call-overload]


async def read_json(request: Request) -> str:
    """A body of JSON, as text that is not looked at yet; an empty one is an empty object.

    Raises:
        UploadError: it is something else, or longer than all options together may be.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = b""
    stream = request.stream()
    async for chunk in stream:
        body += chunk
        if len(body) > _MAX_FIELD:
            await drop_rest(stream)
            raise UploadError(f"the body has more than {_MAX_FIELD} bytes")
    if not body:
        return "{}"
    if kind != "application/json":
        raise UploadError("the body must be application/json: preset and options as one object")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise UploadError("the body is not UTF-8") from None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stored:
        return hashlib.file_digest(stored, "sha256").hexdigest()


async def drop_rest(stream: AsyncGenerator[bytes, None]) -> None:
    """Read what a client still sends, within bounds, so that it comes to read the answer."""
    dropped = 0
    async for chunk in stream:
        dropped += len(chunk)
        if dropped > _MAX_DROPPED:
            return


async def _counted(
    request: Request, stream: AsyncGenerator[bytes, None], max_bytes: int
) -> AsyncGenerator[bytes, None]:
    told = request.headers.get("content-length", "")
    if told.isdecimal() and len(told) < 20 and int(told) > max_bytes + _AROUND:
        raise _too_large(max_bytes)
    count = 0
    async for chunk in stream:
        count += len(chunk)
        if count > max_bytes + _AROUND:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> UploadTooLargeError:
    return UploadTooLargeError(
        f"the picture has more than {max_bytes / 1e6:g} megabytes, which is what this key may send"
    )

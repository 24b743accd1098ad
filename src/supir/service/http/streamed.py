"""Answers that come piece by piece, and leave nothing open however they end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import BinaryIO

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

_CHUNK = 1 << 18


class EventStream(StreamingResponse):
    """Server-sent events; a client that leaves ends what makes them.

    Args:
        texts: the events.
    """

    def __init__(self, texts: AsyncGenerator[str, None]) -> None:
        super().__init__(texts, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._texts = texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As in starlette."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._texts.aclose()


class OpenFile(StreamingResponse):
    """A file that is open already, so that it is whole even if it is removed meanwhile; closed at the end.

    Args:
        stream: the file.
        media_type: what it is.
        headers: beside its length.
    """

    def __init__(self, stream: BinaryIO, media_type: str, headers: dict[str, str]) -> None:
        self._stream = stream
        length = {"Content-Length": str(stream.seek(0, 2))}
        stream.seek(0)
        super().__init__(self._chunks(), media_type=media_type, headers=headers | length)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As in starlette."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._stream.read(_CHUNK):
            yield chunk

"""A captioner behind an OpenAI-compatible chat-completions endpoint: vLLM, Ollama, llama.cpp's server, OpenAI.

The one file that imports httpx2. The key is read from the environment when a request is made and is held nowhere; what
a server sends back is cleaned of it, since some servers repeat it in their errors.
"""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from supir.caption.words import MAX_SIDE, QUESTION, ROOM_TO_THINK, Closable, caption_in, clean_caption, has_thoughts
from supir.errors import CaptionerError, CaptionError, MissingExtraError, OptionError, SupirError
from supir.files.report import jpeg_uri
from supir.retry import retry

try:
    import httpx2
except ImportError as error:
    raise MissingExtraError("httpx2", "caption", "a captioner behind a URL") from error

if TYPE_CHECKING:
    from PIL import Image

KEY_VARIABLE = "SUPIR_CAPTION_KEY"
"""The environment variable that holds the endpoint's key, where it wants one."""

MAX_ANSWER = 1_000_000
"""Bytes of an answer that are read at most; a caption takes some thousand."""

_REFUSED = {
    401: f"does not accept the key; set {KEY_VARIABLE} to one that it knows",
    403: f"does not allow this to the key in {KEY_VARIABLE}",
    404: "knows no such address or model; the URL ends most often in /v1, and the model is given by --caption-model",
}
_NOT_TAKEN = (400, 422)
_UNKNOWN = re.compile("unsupported|not supported|not support|unknown|unexpected|unrecogni[sz]ed|extra|not permitted")
_BUSY = (408, 429, 500, 502, 503, 504)
_FIRST_WAIT, _MAX_WAIT = 1.0, 60.0
"""Seconds before the second try; and at most: a server that asks for more is not waited for."""
_JPEG_QUALITY = 90


class _AskDifferently(Exception):
    """The same picture, asked about with what has just been learned of the server, may get an answer."""


@dataclass
class _Learned:
    """How a server wants to be asked; begun with what most understand."""

    limit: str | None = "max_tokens"
    """The parameter that bounds an answer; some models know max_completion_tokens, a few none."""
    temperature: bool = True
    thinks: bool = False
    """The model thinks before it speaks, which takes more tokens than a caption."""

    def from_refusal(self, words: str) -> bool:
        """Learn from what a server says of a request that it does not take; whether there was anything to learn."""
        words = words.lower()
        if "max_completion_tokens" in words and self.limit == "max_tokens":
            self.limit = "max_completion_tokens"
        elif "temperature" in words and self.temperature:
            self.temperature = False
        elif self.limit is not None and self.limit in words and _UNKNOWN.search(words):
            self.limit = None
        else:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class EndpointCaptioner(Closable):
    """Sends the picture as a JPEG and takes the answer's words, without the thoughts before them.

    Raises:
        OptionError: the URL is none, or holds a user, a password or a query; or no model is named.
    """

    url: str
    """Of the API, as in ``http://localhost:11434/v1``."""
    model: str
    """Its name there."""
    question: str = QUESTION
    max_tokens: int = 77
    temperature: float = 0.0
    """Tokens of a caption at most."""
    max_side: int = MAX_SIDE
    """Pixels of the longer side of the picture that is sent."""
    timeout: float = 120.0
    """Seconds for one answer, from the request to its last byte; ten of them for the connection."""
    num_tries: int = 4
    """Of one request, while the server is busy."""
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)
    _learned: _Learned = field(default_factory=_Learned, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            parts, host = urlsplit(""), None
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise OptionError(
                "captioner: the URL holds a user, a password or a query, which could be recorded; give the address"
                f" alone, and the key in the environment variable {KEY_VARIABLE}"
            )
        if parts.scheme not in ("http", "https") or not host:
            raise OptionError("captioner: this is no URL, as in http://localhost:11434/v1")
        if not self.model:
            raise OptionError(f"captioner {self.url}: which model is to be asked? Name it with --caption-model")

    @property
    def name(self) -> str:
        """The model's name with what is asked of it; not the address, which may be nobody else's business."""
        drawn = f", temperature {self.temperature:g}" if self.temperature else ""
        return f"{self.model}, {self.max_tokens} tokens, prompt {self.question!r}{drawn}"

    @property
    def identity(self) -> str:
        """What decides its words."""
        return json.dumps([self.name, self._address, self.max_side, _JPEG_QUALITY])

    def __call__(self, image: Image.Image) -> str:
        """A caption in one line.

        Args:
            image: RGB, upright, sRGB, of any size.

        Raises:
            CaptionError: the endpoint has failed at this picture, after all tries; or its answer is none, or a refusal.
            CaptionerError: it is not there, refuses the key, or has no such model.
        """
        key = os.environ.get(KEY_VARIABLE, "").strip()
        while True:  # each turn has learned something of the server that it did not know before
            request = json.dumps(self._request(image)).encode()
            try:
                body = retry(partial(self._ask, request, key), self._wait, self.sleep)
                return _without(self._caption(body, key), key)
            except _AskDifferently:
                continue

    @property
    def _address(self) -> str:
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"

    def _request(self, image: Image.Image) -> dict[str, Any]:
        url = jpeg_uri(_reduced(image, self.max_side).convert("RGB"), _JPEG_QUALITY)
        content = [{"type": "text", "text": self.question}, {"type": "image_url", "image_url": {"url": url}}]
        messages = [{"role": "user", "content": content}]
        learned, tokens = self._learned, self.max_tokens
        if learned.thinks:
            tokens = max(tokens, ROOM_TO_THINK)
        limit = {} if learned.limit is None else {learned.limit: tokens}
        return {
            "model": self.model,
            "messages": messages,
            **limit,
            **({"temperature": self.temperature} if learned.temperature else {}),
        }

    def _caption(self, body: bytes, key: str) -> str:
        """The caption of an answer that came as it should."""
        answer = _answer_of(body, self._address, key)
        found = caption_in(_without(answer.text, key), self._address)
        if found:
            return found
        if answer.cut and not self._learned.thinks and self._learned.limit is not None:
            self._learned.thinks = True
            raise _AskDifferently
        if answer.cut or answer.thought:
            raise CaptionError(
                f"{self._address}: the model has thought and come to no caption"
                f"{f' within {ROOM_TO_THINK} tokens' * answer.cut}; switch its thinking off there, or ask another"
            )
        raise CaptionError(
            f"{self._address}: the answer holds no caption (choices[0].message.content of a chat completion is needed);"
            " is it an OpenAI-compatible endpoint, and does the model read pictures?"
        )

    def _ask(self, request: bytes, key: str) -> bytes:
        """The bytes of one answer. Redirections are not followed: they would take the picture and the key elsewhere."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {checked_key(key, self.url)}"
        limits = httpx2.Timeout(self.timeout, connect=min(10.0, self.timeout))
        deadline = time.monotonic() + self.timeout
        try:
            with (
                httpx2.Client(timeout=limits, follow_redirects=False) as client,
                client.stream("POST", self._address, content=request, headers=headers) as response,
            ):
                body = _body(response, deadline)
        except httpx2.TimeoutException:
            raise CaptionError(f"{self._address}: no answer within {self.timeout:g} s", retry_after=0) from None
        except httpx2.ConnectError as error:
            message = f"{self._address}: cannot be reached: {_without(str(error), key)}"
            raise CaptionerError(message, retry_after=0) from None
        except httpx2.TransportError as error:
            message = f"{self._address}: the connection broke: {_without(str(error), key) or type(error).__name__}"
            raise CaptionError(message, retry_after=0) from None
        if response.status_code == 200:
            if body is None:
                raise CaptionError(f"{self._address}: an answer of more than {MAX_ANSWER} bytes; it was not read")
            return body
        raise self._failure(response, body or b"", key)

    def _failure(self, response: Any, body: bytes, key: str) -> Exception:
        """What to raise for an answer that is not 200; the server's own words are cut short and cleaned."""
        status = response.status_code
        words = _said_by(body, key)
        if status in _NOT_TAKEN and self._learned.from_refusal(words):
            return _AskDifferently()
        said = f" It says: {words}" if words else ""
        if status in _REFUSED:
            return CaptionerError(f"{self._address}: answers {status}: {_REFUSED[status]}.{said}")
        if 300 <= status < 400:
            return CaptionerError(f"{self._address}: answers {status}, a redirection, which is not followed")
        seconds = _seconds(response.headers.get("Retry-After", "")) if status in _BUSY else None
        return CaptionError(f"{self._address}: answers {status}.{said}", seconds)

    def _wait(self, error: SupirError, number: int) -> float | None:
        """Seconds before another try: as the server asks, and each time twice as long; None where there is none."""
        asked = error.retry_after if isinstance(error, CaptionError) else None
        if asked is None or asked > _MAX_WAIT or number + 1 >= self.num_tries:
            return None
        return max(asked, min(_FIRST_WAIT * 2**number, _MAX_WAIT))


def _seconds(header: str) -> float:
    """Seconds that a Retry-After asks for (RFC 9110, 10.2.3), given as such or as a date; 0 when it says neither."""
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _body(response: Any, deadline: float) -> bytes | None:
    """The bytes as they came, uncompressed was asked for; None when there are more than `MAX_ANSWER`."""
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MAX_ANSWER:
            return None
        if time.monotonic() > deadline:  # a server that sends a byte now and then never times out by itself
            raise httpx2.ReadTimeout("too slow")
    return bytes(body)


class _Answer(NamedTuple):
    text: str
    cut: bool
    """It ended because the tokens did."""
    thought: bool


def _answer_of(body: bytes, address: str, key: str) -> _Answer:
    """A chat completion, whose content is a text or a list of parts; without any where it holds none.

    Raises:
        CaptionError: it is an error after all, is withheld, or a refusal that is said apart.
    """
    try:
        told = json.loads(body)
        if isinstance(told, dict) and told.get("error") and not told.get("choices"):
            raise CaptionError(f"{address}: answers with an error. It says: {_said_by(body, key)}")
        choice = told["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason")
        content, refusal = message.get("content"), message.get("refusal")
        if isinstance(content, list):
            content = " ".join(part["text"] for part in content if part.get("type") == "text")
        text = content if isinstance(content, str) else ""
        thoughts = any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return _Answer("", cut=False, thought=False)
    if ended == "content_filter":
        raise CaptionError(f"{address}: a filter of the server withholds what the model says of this picture")
    if refusal and not text:
        words = clean_caption(_without(str(refusal), key))[:300]
        raise CaptionError(f"{address}: the model refuses to describe the picture. It says: {words}")
    return _Answer(text, cut=ended == "length", thought=thoughts or has_thoughts(text))


def _said_by(body: bytes, key: str) -> str:
    """A server's own words about what went wrong, cut short and cleaned: of JSON the message alone."""
    text = body.decode("utf-8", errors="replace")
    try:
        told = json.loads(text)
        for name in ("error", "message", "detail", "message"):  # an error may hold its message
            told = told[name] if isinstance(told, dict) and told.get(name) else told
        text = told if isinstance(told, str) else text
    except (ValueError, RecursionError):
        pass
    return _without(clean_caption(_without(text, key)), key)[:300]


def checked_key(key: str, url: str) -> str:
    """The key, when it can be one; sending it where others can read it along is said aloud.

    Raises:
        CaptionerError: it holds characters that no header holds.
    """
    if not key.isascii() or not key.isprintable():
        raise CaptionerError(f"{KEY_VARIABLE} holds characters that no key has; nothing was sent")
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_near(parts.hostname or ""):
        warnings.warn(f"{KEY_VARIABLE} is sent over http, where others can read it; use https", stacklevel=2)
    return key


def _is_near(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _without(text: str, key: str) -> str:
    return text.replace(key, "[key]") if key else text


def _reduced(image: Image.Image, max_side: int) -> Image.Image:
    """The picture, smaller where it is larger than that; its aspect is kept."""
    from PIL import Image

    if max(image.size) <= max_side:
        return image
    smaller = image.copy()
    smaller.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return smaller

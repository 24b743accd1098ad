"""What the command says, in the reader's language: English sentences, and what stands for them in ``words.LANG.json``.

As on the page of `supir web` there is one catalogue a language, whose messages hold values in braces. Here the English
sentence itself is a message's name, since most sentences come from rooms that know of no reader: `said` is asked where
text goes to the terminal, and what a catalogue does not have stays English. For another language add such a file; the
environment chooses it. JSON, logs, records and exit codes are the same in every language.
"""

from __future__ import annotations

import json
import os
import re
import sys
from functools import lru_cache
from importlib.resources import files

ENGLISH = "en"
_CHOOSING = ("LC_ALL", "LC_MESSAGES", "LANG")
"""Variables of the environment, the first that is set decides (POSIX)."""
_PLACE = re.compile(r"\{(\w+)(:n)?\}")


def spoken() -> str:
    """The reader's language, as ``ko``; English where the environment names none."""
    chosen = next(filter(None, map(os.environ.get, _CHOOSING)), "")
    found = re.match(r"[a-z]{2,3}(?=[_.@]|$)", chosen)
    return found.group() if found else ENGLISH


def said(text: str, language: str | None = None) -> str:
    """A sentence in the reader's language; as it is where nothing is known for it, or the terminal cannot show it.

    Args:
        text: English; values in it may be sentences themselves.
        language: unset: that of the environment.
    """
    language = language or spoken()
    for pattern, message in _catalogue(language):
        if (found := pattern.fullmatch(text)) is not None:
            values = {name: said(value, language) for name, value in found.groupdict().items()}
            return _shown(message.format(**values), text)
    return text


@lru_cache(maxsize=2)
def _catalogue(language: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """What English sentences look like, and what stands for them."""
    place = files(__package__).joinpath(f"words.{language}.json")
    if language == ENGLISH or not place.is_file():
        return ()
    messages: dict[str, str] = json.loads(place.read_text(encoding="utf-8"))
    return tuple((_pattern(sentence), message) for sentence, message in messages.items())


def _pattern(sentence: str) -> re.Pattern[str]:
    """``{name}`` stands for any text, and ``{name:n}`` for a number or a time."""
    found, end = "", 0
    for place in _PLACE.finditer(sentence):
        value = r"[\d.,:]+" if place[2] else ".+?"
        found += re.escape(sentence[end : place.start()]) + f"(?P<{place[1]}>{value})"
        end = place.end()
    return re.compile(found + re.escape(sentence[end:]), re.DOTALL)


def _shown(text: str, otherwise: str) -> str:
    try:
        text.encode(getattr(sys.stderr, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return otherwise
    return text

"""What people wrote into a file beside a picture, letter by letter or not at all."""

from __future__ import annotations

import codecs

from supir.errors import ImageReadError

__all__ = ["decoded"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(data: bytes, path: str, picture: str | None = None) -> str:
    """The text of a file: by its mark where it has one, else UTF-8. Another encoding is not guessed.

    Args:
        data: the file's bytes.
        path: the file, for the error.
        picture: which the words are about, for the error; unset: the file.

    Raises:
        ImageReadError: it is neither.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        raise ImageReadError(
            f"{path}: its words are not {encoding.removesuffix('-sig').upper()} ({error}); save it as UTF-8",
            picture or path,
        ) from error
    if "\0" in text:
        raise ImageReadError(f"{path}: holds null characters, as UTF-16 without its mark; save it as UTF-8", picture)
    return text

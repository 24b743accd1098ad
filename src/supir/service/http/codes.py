"""An address as a code that a phone's camera reads."""

from __future__ import annotations

import io

from supir.errors import MissingExtraError, OptionError

try:
    import segno
except ImportError as error:
    raise MissingExtraError("segno", "serve", "a code for the phone") from error


def code_of(text: str) -> bytes:
    """A QR code as an SVG, dark on white with the margin that cameras need.

    Args:
        text: at most a few hundred characters.

    Raises:
        OptionError: it cannot be written as a code.
    """
    written = io.BytesIO()
    try:
        code = segno.make_qr(text, error="m")
    except ValueError as error:  # half a character among them
        raise OptionError(f"text cannot stand in a code: {error}; send an address, or other plain text") from None
    code.save(written, kind="svg", scale=8, border=4, light="#fff", dark="#000", xmldecl=False, nl=False)
    return written.getvalue()

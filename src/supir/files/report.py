"""What reports are made of: tables in markdown, CSV and HTML, and HTML pages that need no other file.

By f-strings rather than jinja2: two pages share their frame and their tables, and all else in them is computed.
"""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .15rem .8rem; text-align: left; vertical-align: top }
.number { text-align: right } tr:nth-child(even) { background: #f4f4f4 }
.pictures { display: flex; flex-wrap: wrap; gap: 1.2rem } figure { margin: 0 } figcaption { font-size: 12px }
"""


def escaped(value: object) -> str:
    """As text in HTML, or within quotes there."""
    return html.escape(str(value))


def html_page(title: str, parts: Iterable[str], *, style: str = "", script: str = "") -> bytes:
    """A whole page, in UTF-8, under a heading.

    Args:
        title: text.
        parts: HTML.
        style: more rules of CSS.
        script: JavaScript, run when all is there.
    """
    head = f"<meta charset='utf-8'><title>{escaped(title)}</title><style>{_STYLE}{style}</style>"
    body = f"<h1>{escaped(title)}</h1>{''.join(parts)}" + (f"<script>{script}</script>" if script else "")
    page = f"<!doctype html><html lang='en'><head>{head}</head><body>{body}</body></html>\n"
    return page.encode("utf-8", errors="backslashreplace")


def html_table(rows: Sequence[Sequence[object]], *, heading: bool = True) -> str:
    """A table of cells; columns of numbers stand to the right."""
    kinds = [" class='number'" if numeric else "" for numeric in _numeric(rows, int(heading))]
    lines = []
    for number, row in enumerate(rows):
        tag = "th" if heading and number == 0 else "td"
        lines.append("".join(f"<{tag}{kind}>{escaped(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True)))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def markdown_table(rows: Sequence[Sequence[object]]) -> str:
    """A table of cells, its heading first; columns of numbers stand to the right."""
    ruler = ["--:" if numeric else "---" for numeric in _numeric(rows, 1)]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in [rows[0], ruler, *rows[1:]])


def csv_table(rows: Iterable[Iterable[object]]) -> str:
    """A table of cells as CSV."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def figure(pictures: str, lines: Iterable[object]) -> str:
    """Pictures (HTML) and the lines of text under them."""
    return f"<figure>{pictures}<figcaption>{'<br>'.join(map(escaped, lines))}</figcaption></figure>"


def jpeg_uri(image: Image.Image, quality: int) -> str:
    """An RGB picture as an address that holds it."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _numeric(rows: Sequence[Sequence[object]], first: int) -> list[bool]:
    """Which columns hold numbers alone from a row on, or dashes where there is none."""
    return [all(map(_is_number, column[first:])) for column in zip(*rows, strict=True)]


def _is_number(cell: object) -> bool:
    text = str(cell)
    return text == "–" or text.replace(".", "", 1).lstrip("-").isdigit()

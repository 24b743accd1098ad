"""The files of the page that `supir web` shows: static, with nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

from fastapi import APIRouter, Response

__all__ = ["page_router"]

_KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
_FILES = {
    "page": (
        "api.js", "compare.js", "controls.js", "form.js", "history.js", "icon.svg", "index.html", "pictures.js",
        "stage.js", "web.css", "web.js", "words.js",
    ),
    "study_page": ("view.js",),  # two pages, one way to zoom
}  # fmt: skip
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_router() -> APIRouter:
    """One route a file; the page itself at the root. They ask for no key: nothing in them is anybody's."""
    router = APIRouter(include_in_schema=False)
    for folder, names in _FILES.items():
        for name in names:
            address = "/" if name == "index.html" else f"/{name}"
            router.add_api_route(address, _static(folder, name), methods=["GET"])
    return router


def _static(folder: str, name: str) -> Callable[[], Response]:
    data = files("supir.service").joinpath(folder, name).read_bytes()
    kind = _KINDS[name.rpartition(".")[2]]
    return lambda: Response(data, media_type=kind, headers={"Content-Security-Policy": _POLICY})

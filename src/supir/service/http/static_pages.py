"""The files of a page: static, with nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Response

_KINDS = {
    "html": "text/html",
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
    "json": "application/json",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_router(*places: str) -> APIRouter:
    """One route a file; `index.html` at the root, other pages without their suffix. They ask for no key: they are
    nobody's.

    Args:
        places: folders and files in the room of the service.
    """
    router = APIRouter(include_in_schema=False)
    for place in map(files("supir.service").joinpath, places):
        for file in place.iterdir() if place.is_dir() else [place]:
            if file.name.rpartition(".")[2] in _KINDS:
                address = "/" if file.name == "index.html" else f"/{file.name.removesuffix('.html')}"
                router.add_api_route(address, _static(file), methods=["GET"])
    return router


def _static(file: Traversable) -> Callable[[], Response]:
    data, kind = file.read_bytes(), _KINDS[file.name.rpartition(".")[2]]
    return lambda: Response(data, media_type=kind, headers={"Content-Security-Policy": _POLICY})

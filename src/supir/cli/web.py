"""`supir web`: the page for photographers, on the engine of the service. Nothing heavy is imported before."""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer
from platformdirs import user_data_path

from supir.caption.words import OF_THE_PAPER
from supir.cli.arguments import (
    Devices,
    FirstFolder,
    LoraFolder,
    ModelFolder,
    Port,
    RootPath,
    TrustedProxies,
    model_of,
    option,
    options_of,
    with_options,
)
from supir.cli.errors import exit_on_error
from supir.cli.serve import LIMITS_PANEL, LogFormat, address_of, listen, seconds_of
from supir.errors import OptionError
from supir.options import CaptionOptions, NetworkOptions, SigningOptions
from supir.service.limits import LOCAL, Client, Limits, new_key

_GRACE = 2.0
"""Seconds that a job at work has when the page is stopped; it is begun again at the next start."""


@with_options(CaptionOptions, only=("captioner", "caption_model", "caption_bits", *OF_THE_PAPER))
@with_options(SigningOptions)
@with_options(NetworkOptions)
@with_options(Limits, LIMITS_PANEL, only=("megapixels", "work_megapixels", "megabytes"))
def web(
    data: Annotated[
        Path | None, option("The folder of photos and results. Unset: in your folder of application data.")
    ] = None,
    model: ModelFolder = None,
    loras: LoraFolder = None,
    first_models: FirstFolder = None,
    device: Devices = None,
    workers: Annotated[
        int, option("Photos at work at a time; each holds its own copy of the weights.", min=1, metavar="N")
    ] = 1,
    host: Annotated[
        str, option("The address to listen at; one that others reach asks for a key, which the address shows.")
    ] = "127.0.0.1",
    port: Port = 8190,
    root_path: RootPath = "",
    trusted_proxies: TrustedProxies = "",
    keep: Annotated[str, option("For how long photos and results are kept: 24h, 30d.")] = "30d",
    log_format: LogFormat = "text",
    no_browser: Annotated[bool, option("Do not open the page.", "--no-browser")] = False,
    **overrides: Any,
) -> None:
    """Restore photos in the browser: drop one in, look, choose, compare, download.

    The first line on standard output is the address. Nothing leaves this machine, unless the captioner is elsewhere.
    Ctrl-C ends it; photos, results and what is waiting are there at the next start.
    """
    with exit_on_error() as console:
        limits = options_of(Limits, overrides)
        seconds = seconds_of(keep)
        networks = options_of(NetworkOptions, overrides)
        captioner = _captioner(options_of(CaptionOptions, overrides), device)
        from supir.service.engine import Engine
        from supir.service.http.addressing import Front
        from supir.service.http.logs import set_up_logs
        from supir.service.http.middleware import is_loopback
        from supir.service.http.server import serve, web_app

        front = Front.of(root_path, trusted_proxies)
        listening = listen(host, port, open_to_all=True)
        key, clients = _key(listening, limits, open_to_all=bool(front.proxies))
        data = data or user_data_path("supir", appauthor=False) / "web"
        weights = model_of(model, device, networks, loras, options_of(SigningOptions, overrides), first_models)
        engine = Engine(data, weights, num_workers=workers, keep=seconds, watched=True, captioner=captioner)
        shown = _address(listening, None, root_path)
        lan = None if is_loopback(listening.getsockname()[0]) else shown
        app = web_app(engine, clients, limits, front=front, page=True, address=lan)
        set_up_logs(logging.WARNING, log_format)
        address = _address(listening, key, root_path)
        typer.echo(address)
        console.print("Ctrl-C ends it", style="dim")
        if not no_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        serve(app, engine, listening, _GRACE)


def _captioner(options: CaptionOptions, device: str | None) -> Any:
    """Who is asked about photos; None for nobody.

    Raises:
        OptionError: texts beside files are asked for: the page has no files.
    """
    from supir.caption.spec import captioner_of
    from supir.caption.text_files import TextFileCaptioner

    found = captioner_of(options, device=None if device is None else device.split(",")[0])
    if isinstance(found, TextFileCaptioner):
        raise OptionError(f"captioner is {options.captioner!r}; here it must be the folder of a model, a URL, or none")
    return found


def _key(listening: socket.socket, limits: Limits, *, open_to_all: bool) -> tuple[str | None, list[Client] | None]:
    """(a key of this run, who has it); none where only this machine is listened to, and by no proxy for others."""
    from supir.service.http.middleware import is_loopback

    if is_loopback(listening.getsockname()[0]) and not open_to_all:
        return None, None
    key, _ = new_key(LOCAL)
    return key, [Client(name=LOCAL, limits=limits, sha256=hashlib.sha256(key.encode()).hexdigest())]


def _address(listening: socket.socket, key: str | None, root_path: str) -> str:
    """What to open, here or on a phone; the key stands behind the #, which browsers send to nobody."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = _own_address()
    return address_of(host, port, root_path) + (f"#key={key}" if key else "")


def _own_address() -> str:
    """The address by which this machine reaches others; no packet is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"

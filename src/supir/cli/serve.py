"""`supir serve`: the service. Nothing heavy is imported before."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from supir.cli.arguments import (
    Devices,
    FirstFolder,
    Host,
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
from supir.errors import OptionError, ServiceError
from supir.options import NetworkOptions, SigningOptions
from supir.pool import Runner
from supir.service.limits import Limits, new_key, read_keys

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LogFormat = Annotated[
    Literal["json", "text"], typer.Option(help="The log as one JSON object a line, or as lines for people.")
]
LIMITS_PANEL = "Limits of a key that sets none"


@with_options(SigningOptions)
@with_options(NetworkOptions)
@with_options(Limits, LIMITS_PANEL)
def serve(
    data: Annotated[Path, option("The folder of jobs and files, begun or gone on with.")] = Path("supir-service"),
    model: ModelFolder = None,
    loras: LoraFolder = None,
    first_models: FirstFolder = None,
    device: Devices = None,
    workers: Annotated[int, option("Each holds its own copy of the weights.", min=1, max=256, metavar="N")] = 1,
    ray_address: Annotated[
        str | None,
        option("Workers on a Ray cluster in place of this machine's: auto, HOST:PORT, or local.", metavar="ADDRESS"),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8189,
    root_path: RootPath = "",
    trusted_proxies: TrustedProxies = "",
    keys: Annotated[Path | None, option("A TOML file of the keys that may ask (see docs/service.md).")] = None,
    insecure: Annotated[
        bool, option("Let everybody ask who reaches an address that is not this machine's.", "--insecure")
    ] = False,
    new_key_name: Annotated[
        str | None,
        option(
            "Print a new key of this name on standard error, its lines for --keys on standard output; then leave.",
            "--new-key",
            metavar="NAME",
        ),
    ] = None,
    queue: Annotated[int, option("Jobs waiting or at work at a time, of all keys.", min=1, metavar="N")] = 1000,
    archive: Annotated[
        str | None,
        option("Copy uploads and results there as well: s3://BUCKET/PATH, or what else fsspec knows.", metavar="URL"),
    ] = None,
    keep: Annotated[str, option("For how long results are kept: 90s, 30m, 24h, 7d.")] = "24h",
    grace: Annotated[float, option("Seconds that jobs at work have to end when the service is stopped.", min=0)] = 30.0,
    log_details: Annotated[
        bool, option("Write file names and options into the log, prompts among them.", "--log-details")
    ] = False,
    log_format: LogFormat = "json",
    **overrides: Any,
) -> None:
    """Serve restorations over HTTP, with a queue that outlives the process.

    The first line on standard output is the address; everything else is on standard error. What may be asked stands at
    /api, and for machines at /openapi.json. SIGTERM and Ctrl-C end it after the jobs at work, or put them back into the
    queue.
    """
    with exit_on_error():
        if new_key_name is not None:
            key, lines = new_key(new_key_name)
            typer.echo(f"the key, shown this once: {key}", err=True)  # apart, so that the file gets the lines alone
            typer.echo(lines, nl=False)
            return
        networks = options_of(NetworkOptions, overrides)
        limits = options_of(Limits, overrides)
        clients = None if keys is None else read_keys(keys, limits)
        seconds = seconds_of(keep)
        from supir.service.archive import Archive
        from supir.service.engine import Engine
        from supir.service.http.addressing import Front
        from supir.service.http.logs import set_up_logs
        from supir.service.http.server import serve as serve_until_stopped
        from supir.service.http.server import web_app

        front = Front.of(root_path, trusted_proxies)
        if front.proxies and clients is None and not insecure:
            raise typer.BadParameter(
                "--trusted-proxies: others reach this through the proxy; give --keys FILE, or say --insecure to let"
                " everybody ask"
            )
        listening = listen(host, port, open_to_all=clients is not None or insecure)
        weights = model_of(model, device, networks, loras, options_of(SigningOptions, overrides), first_models)
        runner = None if ray_address is None else _on_ray(workers, ray_address)
        copies = None if archive is None else Archive(archive)
        engine = Engine(
            data, weights, num_workers=workers, max_queued=queue, keep=seconds, runner=runner, archive=copies
        )
        app = web_app(engine, clients, limits, front=front, insecure=insecure, log_details=log_details)
        set_up_logs(form=log_format)
        typer.echo(address_of(host, listening.getsockname()[1], root_path))
        serve_until_stopped(app, engine, listening, grace)


def address_of(host: str, port: int, root_path: str) -> str:
    """Where a browser finds what listens there."""
    shown_host = f"[{host}]" if ":" in host else host
    path = root_path.strip("/")
    return f"http://{shown_host}:{port}/" + (f"{path}/" if path else "")


def _on_ray(num_workers: int, address: str) -> Runner[Any]:
    from supir.pool.on_ray import OnRay

    return OnRay(num_workers, address, shared_folders=False)


def seconds_of(text: str) -> float:
    """What ``--keep`` says.

    Raises:
        OptionError: it is no time.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None or float(found[1]) == 0:
        raise OptionError(f"--keep is {text!r}; write a number and a unit, as 90s, 30m, 24h or 7d")
    return float(found[1]) * _UNITS[found[2]]


def listen(host: str, port: int, *, open_to_all: bool) -> socket.socket:
    """Bound before anything is said, so that the address is true."""
    from supir.service.http.middleware import is_loopback

    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ServiceError(f"--host {host} --port {port}: cannot listen there: {error.strerror}") from error
    if not open_to_all and not is_loopback(listening.getsockname()[0]):
        listening.close()
        raise typer.BadParameter(
            f"--host {host}: others reach this address; give --keys FILE, or say --insecure to let everybody ask"
        )
    return listening

"""The image, the compose files and the cluster file: their rules, held against the commands and packages they name.

No container is built here. What a container takes away, a root that can be written, is taken away in a test below.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
TEXT = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of each instruction, continued lines joined, comments left out."""
    lines = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def final() -> list[tuple[str, str]]:
    """Of the last stage."""
    found = instructions()
    return found[max(index for index, (word, _) in enumerate(found) if word == "FROM") :]


def commands(compose: dict[str, Any]) -> list[str]:
    return list(compose["services"]["supir"]["command"])


def flags_of(command: str) -> set[str]:
    from supir.cli.main import load_command

    return {flag for parameter in load_command(command).params for flag in parameter.opts}


def load(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def test_the_dockerfile_keeps_the_common_rules() -> None:
    found = instructions()
    assert {word for word, _ in found} <= {
        "ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL",
        "ENTRYPOINT", "CMD",
    }  # fmt: skip
    for word, rest in found:
        if word == "FROM":
            assert ":" in rest, "a tag, and not latest"
            assert "latest" not in rest
        if word in ("ENTRYPOINT", "CMD"):
            assert rest.startswith("["), "as a list: signals reach the process itself"
        if word == "WORKDIR":
            assert rest.startswith("/")
        if word == "RUN" and "pip install" in rest:
            assert "--no-cache-dir" in rest or "PIP_NO_CACHE_DIR=1" in TEXT
            assert "sudo" not in rest
        assert word != "ADD"
        assert not re.search(r"(?i)password|secret_key|token=", rest)
    assert sum(word in ("CMD", "ENTRYPOINT", "HEALTHCHECK") for word, _ in found) == 3


def test_it_runs_as_nobody_in_particular_and_writes_in_two_places() -> None:
    found = final()
    [user] = [rest for word, rest in found if word == "USER"]
    assert all(int(part) >= 10000 for part in user.split(":"))
    order = [word for word, _ in found]
    assert order.index("USER") > max(index for index, word in enumerate(order) if word in ("RUN", "COPY"))
    environment = dict(part.split("=", 1) for word, rest in found if word == "ENV" for part in shlex.split(rest))
    assert environment["HOME"] == "/data"
    assert environment["XDG_CACHE_HOME"].startswith("/data/")
    assert [rest for word, rest in found if word == "VOLUME"] == ["/data"]


def test_layers_that_change_least_come_first() -> None:
    steps = [rest for word, rest in final() if word in ("RUN", "COPY")]
    places = [
        next(index for index, step in enumerate(steps) if part in step) for part in (" torch", "needs.txt", "*.whl")
    ]
    assert places == sorted(places)
    assert "src" not in " ".join(step.split()[0] for step in steps)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*", "what is not named does not travel to the builder: data, keys, .venv"


def test_cuda_comes_by_a_build_argument() -> None:
    assert "ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu" in TEXT
    assert '--index-url "${TORCH_INDEX}" torch' in TEXT
    assert "TORCH_INDEX" in load("compose.cuda.yaml")["services"]["supir"]["build"]["args"]


def test_the_line_that_lists_what_is_needed_lists_it() -> None:
    [code] = re.findall(r'python -c "(import tomllib;.*?)" > /wheels/needs\.txt', TEXT)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    extras = PROJECT["optional-dependencies"]
    expected = [*PROJECT["dependencies"], *extras["serve"], *extras["lora"], *extras["caption"], *extras["storage"]]
    assert done.stdout.splitlines() == expected
    for word, rest in instructions():
        if word == "COPY" and "--from" not in rest:
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources)


def test_the_commands_have_these_flags() -> None:
    default = next(rest for word, rest in reversed(final()) if word == "CMD")
    cases = [yaml.safe_load(default), commands(load("compose.yaml")), commands(load("compose.cuda.yaml"))]
    for words in cases:
        assert words[0] == "serve"
        assert {word for word in words if word.startswith("--")} <= flags_of("serve")
        assert words[words.index("--data") + 1].startswith("/data/")
        assert "--keys" in words, "others reach it"


@pytest.mark.parametrize("service", ["supir", "prometheus"])
def test_services_can_do_no_more_than_they_need(service: str) -> None:
    about = load("compose.yaml")["services"][service]
    assert about["read_only"] is True
    assert about["cap_drop"] == ["ALL"]
    assert about["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in about["ports"]), "a reverse proxy stands before it"
    assert "privileged" not in about
    assert not any("docker.sock" in volume for volume in about["volumes"])


def test_volumes_secrets_and_files_are_declared() -> None:
    compose = load("compose.yaml")
    for about in compose["services"].values():
        assert set(about.get("secrets", [])) <= compose["secrets"].keys()
        for volume in about.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or source == "./models" or (DEPLOY / source).is_file()
    grace = int(compose["services"]["supir"]["stop_grace_period"].removesuffix("s"))
    from supir.cli.main import load_command

    [own] = [each.default for each in load_command("serve").params if "--grace" in each.opts]
    assert grace > own, "the service ends by itself before it is killed"


def test_prometheus_asks_for_figures_that_there_are() -> None:
    said = {rule["expr"] for group in load("alarms.yml")["groups"] for rule in group["rules"]}
    known = (ROOT / "docs" / "service.md").read_text()
    for name in set(re.findall(r"\bsupir_\w+", " ".join(said))):
        assert f"`{name}" in known
    [scrape] = load("prometheus.yml")["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["supir:8189"]}]


def test_the_cluster_file_names_its_parts() -> None:
    cluster = load("ray-cluster.yaml")
    assert cluster["head_node_type"] in cluster["available_node_types"]
    assert (
        sum(kind.get("max_workers", 0) for kind in cluster["available_node_types"].values()) == cluster["max_workers"]
    )
    assert cluster["docker"]["image"] == load("compose.cuda.yaml")["services"]["supir"]["image"]
    [ray] = PROJECT["optional-dependencies"]["ray"]
    version = ray.removeprefix("ray")
    assert any(version in command for command in cluster["setup_commands"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.mark.slow
def test_the_service_needs_no_root_that_can_be_written(tmp_path: Path) -> None:
    """As the container has it: everything read-only but /data and /tmp; the health check is the image's own."""
    if os.name != "posix" or shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs unshare, and root, to take the root away")
    data, port = tmp_path / "data", free_port()
    (data / "cache").mkdir(parents=True)
    [check] = [rest for word, rest in instructions() if word == "HEALTHCHECK"]
    code = yaml.safe_load(check[check.index("[") :])[2].replace("8189", str(port))
    serve = f"{sys.executable} -m supir.cli serve --data {data}/service --port {port} --device cpu"
    script = f"""
set -e
mount --bind {data} {data} && mount -t tmpfs none /dev/shm
mount -o remount,bind,ro / && mount -o remount,bind,rw {data}
if touch {ROOT}/x 2> /dev/null; then echo the root can be written; exit 1; fi
HOME={data} XDG_CACHE_HOME={data}/cache TMPDIR=/dev/shm {serve} & served=$!
for try in $(seq 240); do if {sys.executable} -c {shlex.quote(code)} 2> /dev/null; then break; fi; sleep 0.5; done
{sys.executable} -c {shlex.quote(code)}; kill -TERM $served; wait $served
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@pytest.mark.slow
def test_under_a_path_behind_nginx(tmp_path: Path) -> None:
    """The real one, with deploy/nginx.conf."""
    if shutil.which("nginx") is None:
        pytest.skip("needs nginx: apt-get install nginx-light")
    from service.serving import QUICK, Server, picture
    from supir.client import Client
    from tiny import save_tiny_model

    server = Server(tmp_path, save_tiny_model(tmp_path / "model"))
    port, upstream = free_port(), server.url.rpartition(":")[2]
    site = (DEPLOY / "nginx.conf").read_text().replace("8080", str(port)).replace("8189", upstream)
    conf = tmp_path / "nginx.conf"
    conf.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; {site} }}")
    running = subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", str(conf), "-g", "daemon off;"])
    try:
        (tmp_path / "photo.png").write_bytes(picture())
        with Client(f"http://127.0.0.1:{port}/supir", patience=30) as client:
            job = client.wait(client.submit(tmp_path / "photo.png", **QUICK))
            client.save(job, tmp_path / "result.png")
        assert (tmp_path / "result.png").stat().st_size > 100
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/supir/api") as page:
            assert b"<html" in page.read()
    finally:
        running.terminate()
        running.wait(20)
        server.stop()

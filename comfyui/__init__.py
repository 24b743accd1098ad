"""SUPIR for ComfyUI: nodes over the `supir` package, which does all of the work.

load, preview, caption, restore and restore_file are the nodes; old_nodes lets workflows of the retired ones run.
"""

from comfy_api.v0_0_2 import ComfyExtension

from .nodes import NODES
from .old_nodes import OLD_NODES, register_replacements

WEB_DIRECTORY = "./web"


class SupirExtension(ComfyExtension):
    """What ComfyUI loads."""

    async def on_load(self):
        await register_replacements()

    async def get_node_list(self):
        return [*NODES, *OLD_NODES]


async def comfy_entrypoint():
    """The extension, as ComfyUI asks for it."""
    return SupirExtension()

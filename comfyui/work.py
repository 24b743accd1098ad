"""Between a graph and the pipeline: tensors, loaded weights, progress, and ComfyUI's own interrupt."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import folder_paths
import torch
from comfy_api.v0_0_2 import ComfyAPISync, io

from supir.image import to_pil
from supir.pipeline import SupirPipeline

SupirModel = io.Custom("SUPIR_PIPELINE")
_lock = threading.RLock()
_opened = {}
"""The weights that are open, by all that was asked of them: one set at most."""


@dataclass(frozen=True)
class Loaded:
    """What goes along a wire from the node that loads: the pipeline, where it runs, and the LoRAs that are on."""

    pipeline: SupirPipeline
    device: str
    offload: str
    lora: str
    give_back: bool

    @contextmanager
    def at_work(self):
        """The pipeline where it runs; afterwards its memory goes back, where that is asked for.

        ComfyUI runs nodes in inference mode, whose tensors could not be used again outside of it.
        """
        with _lock, torch.inference_mode(False), torch.no_grad():
            if self.give_back and self.device != "cpu":
                self.pipeline.place(self.device, self.offload)
            try:
                yield self.pipeline
            finally:
                if self.give_back:
                    self.pipeline.rest()

    def overrides(self):
        """Options that follow from what is loaded."""
        return {"lora": self.lora} if self.lora else {}


def open_once(key, load):
    """What `load` gives; what was opened before under another key is let go first, so that both need not fit."""
    with _lock, torch.inference_mode(False):
        if key not in _opened:
            _opened.clear()
            _opened[key] = load()
        return _opened[key]


def stop_if_asked():
    """End as ComfyUI's own nodes do when a person presses stop. Its numbered API has no call for that."""
    from comfy.model_management import throw_exception_if_processing_interrupted

    throw_exception_if_processing_interrupted()


class Progress:
    """Steps on ComfyUI's bar, with small pictures of what comes; between steps a run may be stopped."""

    def __init__(self, num_pictures=1):
        self.api, self.num_pictures, self.done = ComfyAPISync(), num_pictures, 0

    def of(self, pipeline, source, options):
        """What `on_step` is to be for one picture."""
        shown = []
        glimpse = pipeline.glimpses(source, options, lambda picture: shown.append(to_pil(picture).convert("RGB")))
        before, self.done = self.done, self.done + 1

        def on_step(step):
            stop_if_asked()
            glimpse(step)
            value, total = before * step.num_steps + step.index + 1, self.num_pictures * step.num_steps
            self.api.execution.set_progress(value, total, preview_image=shown.pop() if shown else None)

        return on_step


def folders():
    """The model folders that ComfyUI finds under models/supir, by name."""
    if "supir" not in folder_paths.folder_names_and_paths:
        folder_paths.add_model_folder_path("supir", str(Path(folder_paths.models_dir) / "supir"))
    roots = [Path(each) for each in folder_paths.get_folder_paths("supir")]
    found = [path.parent for root in roots if root.is_dir() for path in sorted(root.glob("*/model_index.json"))]
    return {path.name: path for path in found}

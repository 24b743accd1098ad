"""`supir study serve` as a process of its own, and small pictures for it to show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from skimage.data import astronaut

import supir

FIRST, SECOND, THIRD = "amberjack", "zanzibar", "quetzal"
"""The methods: words that occur nowhere by chance."""
PICTURES = ("heliotrope", "marigold", "snapdragon", "wisteria")
NUM_QUESTIONS = len(PICTURES)
WIDTH, HEIGHT = 240, 160


def save_pictures(folder: Path) -> None:
    """Three methods' results of every picture, with their inputs, and metadata that would give all away."""
    for number, name in enumerate(PICTURES):
        whole = astronaut()[40 * number : 40 * number + HEIGHT, 60 : 60 + WIDTH]
        for method, pixels in {
            FIRST: whole,
            SECOND: whole // 8 * 8,
            THIRD: whole // 32 * 32,
            "lq": whole[::4, ::4],
        }.items():
            told = PngImagePlugin.PngInfo()
            told.add_text("Software", method)
            (folder / method).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / method / f"{name}.png", pnginfo=told)


class StudyServer:
    """One that can be killed and started again at the same address; of the first two methods and what flags add."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder, self.flags = folder, flags
        self.database = folder / "study.sqlite"
        self.port = "0"
        save_pictures(folder)
        self.start()

    def start(self) -> None:
        arguments = ["--method", f"{FIRST}={self.folder / FIRST}", "--method", f"{SECOND}={self.folder / SECOND}",
                     "--input", self.folder / "lq", "--database", self.database, "--port", self.port,
                     *self.flags]  # fmt: skip
        code = "from supir.cli.main import main; main()"
        with (self.folder / "errors.txt").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "study", "serve", *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": str(Path(supir.__file__).parents[1])},
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().split(" ")[0]
        assert self.url.startswith("http://127.0.0.1:"), (self.folder / "errors.txt").read_text()
        self.port = self.url.partition("//")[2].partition("/")[0].rsplit(":", 1)[1]

    def kill(self) -> None:
        """As a power cut would: nothing is tidied up."""
        self.process.kill()
        self.process.communicate()

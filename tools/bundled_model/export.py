"""The bundled model folder, in half precision, from the model folder that the last of its runs wrote.

python tools/bundled_model/export.py runs/generator/model --out src/supir/assets/model
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import nn

from supir.files import write_whole
from supir.pipeline import SupirPipeline

PRESETS = json.loads(Path(__file__).with_name("presets.json").read_text())
"""The bundled model's own numbers, found by looking at held-out pictures."""
DTYPES = "float32, bfloat16"
"""What its networks bear, preferred first: in float16 some features end (`bench/activations.py`)."""


def export(model: Path, out: Path) -> None:
    """Write a model folder's weights in half precision, under the bundled model's presets, beside its model card."""
    trained = SupirPipeline.from_pretrained(model, dtype="float32")
    for part in trained.components.values():
        if isinstance(part, nn.Module):
            part.to(torch.float16)
    own = {name: value for name, value in trained.config.items() if not name.startswith("_")}
    known = {name: own[name] for name in own if name not in trained.components}
    known |= {"presets": PRESETS, "dtypes": DTYPES}
    SupirPipeline(**trained.components, **known).save_pretrained(out, safe_serialization=True)
    for file in out.glob(
        "tokenizer*/tokenizer.json"
    ):  # three times as large as the vocabulary beside it that it repeats
        file.unlink()
    for file in out.glob("*/config.json"):  # where it lay on the machine that made it is nobody's concern
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)
        write_whole(file, json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    export(arguments.model, arguments.out)


if __name__ == "__main__":
    main()

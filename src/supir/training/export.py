"""The bundled model folder from the runs, in half precision.

    python -m supir.training.export --autoencoder RUN2/autoencoder --diffusion RUN3 --tokenizers FOLDER --out MODEL

``--diffusion`` takes a finished run, one still training (then the averaged weights of its last state), or a model
folder whose networks are kept. An autoencoder that learned with an opponent may be blended with what it began with:
``--blend RUN1/autoencoder 0.2`` (network interpolation, arXiv 1809.00219).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTokenizer

from supir.errors import OptionError
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.pipeline import SupirPipeline
from supir.training.checkpoint import load_averages
from supir.training.sizes import build

PRESETS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("bundled_presets.json").read_text())
"""The bundled model's own numbers, found by looking at held-out pictures."""


def averaged(run: Path, latent_channels: int) -> dict[str, Any]:
    """The components of a run with their averaged weights, or those of a model folder."""
    models = build(latent_channels)
    if (run / "model_index.json").exists():
        return {name: type(model).from_pretrained(run / name, dtype=torch.float32) for name, model in models.items()}
    state = load_averages(run)
    if state is None:
        raise OptionError(f"{run} holds neither a model nor the state of a run")
    known = {**state.weights, **state.ema}
    for name, model in models.items():
        model.load_state_dict({key: known.get(f"{name}.{key}", value) for key, value in model.state_dict().items()})
    return models


def blended(autoencoder: Path, other: Path, share: float) -> ThinAutoencoder:
    """The autoencoder whose every weight has this share of the other's."""
    mine, theirs = (ThinAutoencoder.from_pretrained(folder) for folder in (autoencoder, other))
    for name, weight in theirs.state_dict().items():
        mine.state_dict()[name].lerp_(weight, share)
    return mine


def export(coder: ThinAutoencoder, diffusion: Path, tokenizers: Path, out: Path) -> int:
    """Write the model folder; returns its size in bytes."""
    names = ("tokenizer", "tokenizer_2")
    pipeline = SupirPipeline(
        autoencoder=coder,
        **averaged(diffusion, coder.config.latent_channels),
        **{name: CLIPTokenizer.from_pretrained(tokenizers / name) for name in names},
        presets=PRESETS,
    )
    pipeline.to(torch.float16)
    pipeline.save_pretrained(out, safe_serialization=True)
    for path in out.glob("*/config.json"):
        values = {key: value for key, value in json.loads(path.read_text()).items() if key != "_name_or_path"}
        path.write_text(json.dumps(values, indent=2) + "\n")
    for name in names:
        # Two plain files: the library would write the same as one three times as large.
        shutil.rmtree(out / name)
        shutil.copytree(tokenizers / name, out / name)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def main() -> None:
    """Export; the model card is kept where it is."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name in ("autoencoder", "diffusion", "tokenizers", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--blend", nargs=2, metavar=("FOLDER", "SHARE"), help="another autoencoder and its share")
    options = parser.parse_args()
    other, share = options.blend or (options.autoencoder, 0.0)
    coder = blended(options.autoencoder, Path(other), float(share))
    size = export(coder, options.diffusion, options.tokenizers, options.out)
    print(f"{options.out}: {size / 1e6:.1f} MB")  # noqa: T201


if __name__ == "__main__":
    main()

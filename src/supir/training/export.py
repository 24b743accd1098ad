"""The bundled model folder from the runs, in half precision.

    python -m supir.training.export --autoencoder AUTOENCODER --diffusion MODEL RUN --tokenizers FOLDER --out OUT

``--diffusion`` takes model folders, finished runs, and ones still training (then the averaged weights of their last
state); of a component that several hold, the last one's is taken, or with ``--share 0.7`` so much of it and the rest of
those before (what a further training gained, and what it lost, in part: arXiv 2109.01903). An autoencoder that learned
with an opponent may be blended likewise: ``--blend RUN1/autoencoder 0.2`` (arXiv 1809.00219).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTokenizer

from supir.errors import OptionError
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.models.unet import CONNECTOR_KINDS
from supir.pipeline import SupirPipeline
from supir.training.checkpoint import load_averages
from supir.training.sizes import build

PRESETS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("bundled_presets.json").read_text())
"""The bundled model's own numbers, found by looking at held-out pictures."""


def weights(folder: Path, components: Iterable[str]) -> dict[str, Tensor]:
    """Weights by ``component.name`` of the components that a model folder or a run holds; averages where it trains."""
    found: dict[str, Tensor] = {}
    for name in components:
        for path in sorted((folder / name).glob("*.safetensors")):
            found |= {f"{name}.{key}": value.float() for key, value in load_file(path).items()}
    state = None if found else load_averages(folder)
    if state is not None:
        found = {**state.weights, **state.ema}
    if not found:
        raise OptionError(f"{folder} holds neither components of a model nor the state of a run")
    return found


def assembled(
    folders: Sequence[Path], latent_channels: int, connectors: str = "zero_sft", share: float = 1.0
) -> dict[str, Any]:
    """UNet, adaptor and text towers, each from the last folder that holds it.

    Args:
        folders: model folders and runs.
        latent_channels: of the autoencoder that they go with.
        connectors: kind of the UNet's.
        share: of the last folder's weights, where one before it holds them too; the rest is the earlier one's.

    Raises:
        OptionError: a folder holds nothing, or some weight is in none.
    """
    models = build(latent_channels, connectors)
    known: dict[str, Tensor] = {}
    *earlier, last = folders
    for folder in earlier:
        known |= weights(folder, models)
    for key, weight in weights(last, models).items():
        known[key] = weight if share == 1 or key not in known else known[key].lerp(weight, share)
    for name, model in models.items():
        part = {key: known.get(f"{name}.{key}") for key in model.state_dict()}
        missing = [key for key, value in part.items() if value is None]
        if missing:
            raise OptionError(f"{name}.{missing[0]} is in none of {', '.join(map(str, folders))}")
        model.load_state_dict(part)
    return models


def blended(autoencoder: Path, other: Path, share: float) -> ThinAutoencoder:
    """The autoencoder whose every weight has this share of the other's."""
    mine, theirs = (ThinAutoencoder.from_pretrained(folder) for folder in (autoencoder, other))
    for name, weight in theirs.state_dict().items():
        mine.state_dict()[name].lerp_(weight, share)
    return mine


def export(
    coder: ThinAutoencoder,
    diffusion: Sequence[Path],
    tokenizers: Path,
    out: Path,
    connectors: str = "zero_sft",
    share: float = 1.0,
) -> int:
    """Write the model folder; returns its size in bytes."""
    names = ("tokenizer", "tokenizer_2")
    pipeline = SupirPipeline(
        autoencoder=coder,
        **assembled(diffusion, coder.config.latent_channels, connectors, share),
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
    for name in ("autoencoder", "tokenizers", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--diffusion", type=Path, nargs="+", required=True, help="model folders, runs")
    parser.add_argument("--connectors", default="zero_sft", choices=CONNECTOR_KINDS, help="kind of the UNet's")
    parser.add_argument("--share", type=float, default=1.0, help="of the last one's weights (default 1)")
    parser.add_argument("--blend", nargs=2, metavar=("FOLDER", "SHARE"), help="another autoencoder and its share")
    options = parser.parse_args()
    other, part = options.blend or (options.autoencoder, 0.0)
    coder = blended(options.autoencoder, Path(other), float(part))
    size = export(coder, options.diffusion, options.tokenizers, options.out, options.connectors, options.share)
    print(f"{options.out}: {size / 1e6:.1f} MB")  # noqa: T201


if __name__ == "__main__":
    main()

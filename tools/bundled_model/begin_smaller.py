"""A UNet and adaptor of the small size that begin from what fits of a larger model's, and learn to keep the hint.

    python tools/bundled_model/begin_smaller.py MODEL --tiles photos/train.npy --out FOLDER --minutes 38

It made the UNet of the bundled model: from latents noised to any level they learn to give the latents back that
the adaptor sees, so that a step of sampling keeps what the restoring network painted. `small/generator` is to make a
painter of it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supir.pipeline import SupirPipeline
from supir.prompts import NEGATIVE_PROMPT, POSITIVE_PROMPT
from supir.sampling.sigmas import training_sigmas
from supir.training.denoising import Denoising
from supir.training.sizes import build_size

BATCH, CROP, RATE, DECAY = 12, 128, 6e-4, 0.995


@torch.no_grad()
def begin(large: torch.nn.Module, small: torch.nn.Module) -> None:
    """Copy each tensor, or as much of it as fits; a decoder's levels and their layers count from the fine end."""
    known, theirs = large.state_dict(), decoder_parts(large)
    places = {f"{mine}.": f"{part}." for place, mine in decoder_parts(small).items() if (part := theirs.get(place))}
    for name, own in small.state_dict().items():
        mine = next((part for part in places if name.startswith(part)), "")
        other = known.get(places.get(mine, "") + name.removeprefix(mine))
        if other is not None and other.dim() == own.dim():
            shared = tuple(slice(min(sizes)) for sizes in zip(own.shape, other.shape, strict=True))
            own[shared] = other[shared]


def decoder_parts(network: Any) -> dict[tuple[str | int, ...], str]:
    """A UNet's decoder, part by part: where it stands, counted from the fine end, and its name."""
    found: dict[tuple[str | int, ...], str] = {}
    blocks = list(getattr(network, "up_blocks", ()))
    number = len(getattr(network, "connectors", ()))
    if number:
        found["middle",] = f"connectors.{(number := number - 1)}"
    for level, block in enumerate(blocks, -len(blocks)):
        name = f"up_blocks.{level + len(blocks)}"
        for layer in range(-len(block.resnets), 0):
            place = layer + len(block.resnets)
            found[level, layer, "joined"] = f"connectors.{(number := number - 1)}"
            found |= {(level, layer, kind): f"{name}.{kind}.{place}" for kind in ("resnets", "attentions")}
        if block.upsamplers is not None:
            found[level, "crossed"] = f"connectors.{(number := number - 1)}"
            found[level, "upsamplers"] = f"{name}.upsamplers"
    return found


def learn(pipeline: SupirPipeline, tiles: Path, minutes: float) -> None:
    """Let UNet and adaptor learn on crops of tiles (N, S, S, 3); the averaged weights stay in them."""
    parts: dict[str, Any] = dict(pipeline.components)
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)
    networks = [parts[name].train().requires_grad_(True) for name in ("unet", "adaptor")]
    device, scaling = torch.device("cpu"), float(parts["autoencoder"].config.scaling_factor)
    context: Any = SimpleNamespace(networks=parts, scaling=scaling, device=device)
    denoising = Denoising(context, controlled=True)
    known = [denoising.known([words] * BATCH) for words in ("", POSITIVE_PROMPT, POSITIVE_PROMPT, NEGATIVE_PROMPT)]
    weights = [weight for network in networks for weight in network.parameters()]
    averages = [weight.detach().clone() for weight in weights]
    optimiser = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    pictures, chance, begun, step = np.load(tiles, mmap_mode="r"), np.random.default_rng(1), time.monotonic(), 0
    while (progress := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * (0.02 + 0.49 * (1 + np.cos(np.pi * progress)))
        latent = denoising.latent(crops(pictures, chance))
        timestep, noise = torch.from_numpy(levels(chance)), torch.randn_like(latent)
        with torch.autocast("cpu", torch.bfloat16):
            loss = denoising.error(latent, latent, timestep, noise, known[step % len(known)])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(averages, [each.detach() for each in weights], 1 - min(DECAY, step / (step + 9)))
    with torch.no_grad():
        for weight, average in zip(weights, averages, strict=True):
            weight.copy_(average)


def crops(pictures: Any, chance: np.random.Generator) -> Tensor:
    """(BATCH, 3, CROP, CROP) in [-1, 1] from anywhere."""
    found = []
    for index in chance.integers(0, len(pictures), BATCH):
        top, left = chance.integers(0, pictures.shape[1] - CROP + 1, 2)
        found.append(np.array(pictures[index][top : top + CROP, left : left + CROP]))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 127.5 - 1


def levels(chance: np.random.Generator) -> Any:
    """Indices of noise levels: most where the bundled model's presets begin, some anywhere."""
    sigmas = training_sigmas().numpy()
    wanted = np.exp(chance.uniform(np.log(0.1), np.log(1.3), BATCH))
    anywhere = chance.random(BATCH) < 0.15
    wanted[anywhere] = sigmas[chance.integers(0, len(sigmas), int(anywhere.sum()))]
    wanted[chance.random(BATCH) < 0.4] = 1.0
    return np.clip(np.searchsorted(sigmas, wanted), 0, len(sigmas) - 1)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the larger model")
    parser.add_argument("--tiles", type=Path, required=True, help="as tools/bundled_model/photographs.py makes them")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    options = parser.parse_args()
    torch.manual_seed(1)
    pipeline = SupirPipeline.from_pretrained(options.model, dtype="float32", device="cpu")
    small = build_size("small")
    for name in ("unet", "adaptor"):
        begin(getattr(pipeline, name), small[name])
    made = SupirPipeline(**{**pipeline.components, "unet": small["unet"], "adaptor": small["adaptor"]})
    learn(made, options.tiles, options.minutes)
    made.save_pretrained(options.out, safe_serialization=True)


if __name__ == "__main__":
    main()

"""Stage 3: E_dr's restoring network once more, against a discriminator.

    python -m supir.training.adversarial --tiles TILES --autoencoder RUN2/autoencoder --features WEIGHTS --out RUN3

Not in the paper, whose prior has seen a hundred million pictures and paints what the encoder cannot know. A small prior
cannot, so the bundled model's hint has to be crisp itself. Stage 2 ends at the mean of what a degraded picture may have
been, which is smooth; from there the pictures are judged too, as in Real-ESRGAN (arXiv 2107.10833). The discriminator
looks at the pixels and at features of an ImageNet network (as projected GANs do: arXiv 2111.01007), which needs few
samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from supir.models.thin_autoencoder import ThinAutoencoder
from supir.training.answers import Answers
from supir.training.by_hand import arguments, prepare, run
from supir.training.crops import Tiles, halved, psnr, to_tensor, write_sheet
from supir.training.degraded_encoder import heldout_pairs
from supir.training.features import FeatureDistance
from supir.training.loop import Stage
from supir.training.pairs import degrade

FEATURE_WEIGHT = 0.3
ADVERSARIAL_SHARE = 0.7
"""Of the discriminator's gradient at the pixels, beside the other losses' taken as 1."""
DISCRIMINATOR_PACE = 4.0
"""Its learning rate over the network's (two time scales: arXiv 1706.08500)."""


class Discriminator(nn.Module):
    """Scores of small neighbourhoods: one map for the pixels and one for each level of features."""

    def __init__(self, channels: tuple[int, ...] = (16, 24, 40), width: int = 64) -> None:
        super().__init__()

        def conv(before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            return spectral_norm(nn.Conv2d(before, after, kernel, stride, kernel // 2))

        def head(before: int, strides: tuple[int, ...]) -> nn.Module:
            layers = [conv(before, width), nn.LeakyReLU(0.2)]
            for stride in strides:
                layers += [conv(width, width, stride=stride), nn.LeakyReLU(0.2)]
            return nn.Sequential(*layers, conv(width, 1, 1))

        # The pixels' head sees 18 x 18 of them: enough for a grid or a false texture, too little for an object.
        self.heads = nn.ModuleList([head(12, (2, 2)), *(head(number, (1,)) for number in channels)])

    def forward(self, pictures: Tensor, features: list[Tensor]) -> list[Tensor]:
        """Scores (B, 1, h, w) of pictures (B, 3, H, W) in [-1, 1] and their features; higher is more real."""
        seen = [F.pixel_unshuffle(pictures, 2), *features]
        return [head(x) for head, x in zip(self.heads, seen, strict=True)]


def hinge(scores: list[Tensor], real: bool) -> Tensor:
    """The discriminator's loss on real or made pictures."""
    return torch.stack([F.relu(1 - score if real else 1 + score).mean() for score in scores]).mean()


def opposed(
    made: Tensor, wanted: Tensor, progress: float, distance: FeatureDistance, discriminator: Discriminator
) -> tuple[Tensor, dict[str, float]]:
    """The loss of network and discriminator together, and values to log.

    Args:
        made: pictures (B, 3, H, W) with the gradient of who made them.
        wanted: what they should be.
        progress: of the run, 0 to 1; the discriminator's share grows over the first twentieth.
        distance: in features, whose levels the discriminator sees too.
        discriminator: the opponent.
    """
    # Each loss is led back to the pixels only; what they ask for there goes through the network once.
    pixels = made.detach().requires_grad_()
    pixel = (pixels - wanted).abs().mean()
    seen = distance.features(pixels)
    with torch.no_grad():
        known = distance.features(wanted)
    apart = torch.stack([(a - b).abs().mean() for a, b in zip(seen, known, strict=True)]).mean()
    fooled = -torch.stack([score.mean() for score in discriminator(pixels, seen)]).mean()
    [asked] = torch.autograd.grad(pixel + FEATURE_WEIGHT * apart, pixels, retain_graph=True)
    [lured] = torch.autograd.grad(fooled, pixels)
    strength = ADVERSARIAL_SHARE * min(1.0, progress / 0.05) * asked.norm() / (lured.norm() + 1e-12)
    generator = (made * (asked + strength * lured)).sum()
    judged = discriminator(made.detach(), [level.detach() for level in seen])
    opponent = 0.5 * (hinge(discriminator(wanted, known), True) + hinge(judged, False))
    values = {"pixel": pixel.item(), "features": apart.item(), "opponent": opponent.item()}
    return generator + 0.1 * opponent, values | {"fooled": fooled.item(), "strength": float(strength)}


def compared(path: Path | None, shown: dict[str, Tensor], clean: Tensor, distance: FeatureDistance) -> dict[str, float]:
    """Write the sheet of some forms of the held-out pictures and the clean ones; their PSNR and feature distances."""
    write_sheet(path, halved([*shown.values(), clean]))
    far = {f"{name}_features": float(distance(p.clamp(-1, 1), clean)) for name, p in shown.items()}
    return {name: psnr(p, clean) for name, p in shown.items()} | far


def adversarial_stage(
    tiles: Path, model: ThinAutoencoder, features: Path, batch: int, crop: int, answers: Path | None = None
) -> Stage:
    """The stage; only the restoring network and its opponent learn.

    Args:
        tiles: of the training pictures; with ``answers`` only the held-out ones are used.
        model: with the network.
        features: weights of the network whose features are compared.
        batch: samples of a step.
        crop: side of a sample in pixels.
        answers: folder of ``Answers``, which then are wanted in place of the truth.
    """
    train, (clean, degraded) = Tiles(tiles), heldout_pairs(tiles, 192)
    known = None if answers is None else Answers(answers)
    distance, discriminator = FeatureDistance(features), Discriminator()

    def drawn(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        if known is not None:
            crops = [known.crop(rng, crop)[0] for _ in range(batch)]
            return to_tensor([three[2] for three in crops]), to_tensor([three[1] for three in crops])
        pictures = [train.crop(rng, crop)[0] for _ in range(batch)]
        return to_tensor(pictures), to_tensor([degrade(rng, picture) for picture in pictures])

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        x, lq = drawn(rng)
        return opposed(model.restorer(lq), x, progress, distance, discriminator)

    def sheet(path: Path | None) -> dict[str, float]:
        restored = model.restorer(degraded)
        preview = model.decode(model.encode_degraded(degraded).latent_dist.mode()).sample
        shown = {"degraded": degraded, "restored": restored, "preview": preview}
        return compared(path, shown, clean, distance)

    learning: dict[str, nn.Module] = {"autoencoder": model, "discriminator": discriminator}
    return Stage(
        "adversarial",
        learning,
        loss,
        sheet,
        frozen=lambda name: name.startswith("autoencoder.") and ".restorer." not in name,
        pace={"discriminator": DISCRIMINATOR_PACE},
    )


def main() -> None:
    """Train on from stage 2 or go on, and write the autoencoder with the averaged network to ``OUT/autoencoder``."""
    parser = arguments(main.__doc__, minutes=60)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True, help="EfficientNet-lite0 weights")
    parser.add_argument("--answers", type=Path, help="folder of supir.training.answers, learned in place of the truth")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    options = parser.parse_args()
    prepare(options.threads)
    torch.manual_seed(0)
    model = ThinAutoencoder.from_pretrained(options.autoencoder)
    stage = adversarial_stage(options.tiles, model, options.features, options.batch, options.crop, options.answers)
    run(stage, options, learning_rate=options.learning_rate)
    model.save_pretrained(options.out / "autoencoder")


if __name__ == "__main__":
    main()

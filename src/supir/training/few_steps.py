"""The few steps that sampling really takes, learned from answers of restoring networks and from the truth.

    python -m supir.training.few_steps --tiles TILES --answers ANSWERS --model MODEL --autoencoder PLAIN \
        --features WEIGHTS --out RUN

Not in the paper, whose prior has learned from so many pictures that fifty steps of it paint. A small prior trained on
the noise alone predicts the mean, which is smooth. So UNet and adaptor learn on from there as a generator: beginning
with the latent of a plain E_dr noised to ``START_SIGMA`` they take one, two or four steps as the sampler does, and the
answer of a step drawn by chance is held against what is wanted: the latent of the best answer that larger or crisper
networks know (see ``answers``), and the truth in features of its picture.

Under the negative words they learn to leave a picture as smooth as the preview is, so that guidance away from them
sharpens (paper section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from supir.models.unet import CONNECTOR_KINDS
from supir.training.adversarial import compared
from supir.training.answers import Answers
from supir.training.by_hand import arguments, prepare, run
from supir.training.crops import to_tensor
from supir.training.degraded_encoder import heldout_pairs
from supir.training.features import FeatureDistance
from supir.training.loop import Stage
from supir.training.restoring import LEARNING, NUM_STEPS, Restoring
from supir.training.words import NEGATIVE_PROMPT, draw_prompt

FEATURE_WEIGHT = 4.0
"""Of the distance in features beside the answers' latents. With 2 their gradients are about equally long, and nearly
at right angles."""
NEGATIVE_SHARE = 0.15
"""Of samples under the negative words, whose target is the preview."""


@dataclass(frozen=True)
class Samples:
    """Of one step: pictures (B, 3, S, S) in [-1, 1] and their prompts; the first ``num_poor`` are negative."""

    clean: Tensor
    degraded: Tensor
    answers: Tensor
    prompts: list[str]
    num_poor: int

    @staticmethod
    def draw(rng: np.random.Generator, train: Answers, batch: int, crop: int, negatives: bool = True) -> Samples:
        """Crops under their prompts; at least one is not negative.

        Without ``negatives`` the negative words say nothing: as often as before, they stand under good pictures.
        """
        crops = [train.crop(rng, crop) for _ in range(batch)]
        clean, degraded, answers = (to_tensor([three[k] for three, _ in crops]) for k in range(3))
        num_poor = min(int(rng.binomial(batch, NEGATIVE_SHARE)), batch - 1)
        good = [draw_prompt(rng, caption) for _, caption in crops[num_poor:]]
        prompts = [NEGATIVE_PROMPT] * num_poor + good
        return Samples(clean, degraded, answers, prompts, num_poor if negatives else 0)


def taught_stage(
    tiles: Path, answers: Sequence[Path], restoring: Restoring, features: Path, batch: int, crop: int,
    *, feature_weight: float = FEATURE_WEIGHT, negatives: bool = True,
) -> Stage:  # fmt: skip
    """UNet and adaptor learn the latents of the answers, and the truth's features.

    Args:
        tiles: whose held-out split is looked at.
        answers: folders of what is learned.
        restoring: the networks; those in ``LEARNING`` learn.
        features: weights of the network whose features are compared.
        batch: samples of a step.
        crop: side of a sample in pixels.
        feature_weight: of the distance in features beside the answers' latents.
        negatives: as in ``Samples.draw``.
    """
    train, (clean, degraded) = Answers(*answers), heldout_pairs(tiles, 192)
    distance = FeatureDistance(features)

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        samples = Samples.draw(rng, train, batch, crop, negatives)
        hint, wanted = restoring.hint(samples.degraded), restoring.latent(samples.answers)
        wanted[: samples.num_poor] = hint[: samples.num_poor]
        found = restoring.drawn_answer(rng, hint, samples.prompts)
        good = slice(samples.num_poor, None)
        left, before = ((x - wanted)[good].square().mean().item() for x in (found.detach(), hint))
        apart = distance(restoring.picture(found[good]).clamp(-1, 1), samples.clean[good])
        values = {"left": left, "before": before, "features": apart.item()}
        return (found - wanted).square().mean() + feature_weight * apart, values

    def sheet(path: Path | None) -> dict[str, float]:
        hint = restoring.hint(degraded)
        latents = {"preview": hint, "result": restoring.sample(hint, min(NUM_STEPS))}
        shown = {name: restoring.picture(latent) for name, latent in latents.items()}
        return compared(path, {"degraded": degraded, **shown}, clean, distance)

    return Stage("taught", {name: restoring.models[name] for name in LEARNING}, loss, sheet)


def main() -> None:
    """Train on from a model folder or go on, and write the averaged UNet and adaptor to ``OUT/<component>``."""
    parser = arguments(main.__doc__, minutes=60)
    parser.add_argument("--model", type=Path, required=True, help="model folder whose UNet, adaptor and text begin")
    parser.add_argument("--warm-start", type=Path, help="folder of a run whose UNet and adaptor begin instead")
    parser.add_argument("--autoencoder", type=Path, required=True, help="with the E_dr that makes the hint")
    answers = "folders made by supir.training.answers"
    parser.add_argument("--answers", type=Path, nargs="+", required=True, help=answers)
    parser.add_argument("--features", type=Path, required=True, help="EfficientNet-lite0 weights")
    parser.add_argument("--connectors", choices=CONNECTOR_KINDS, help="to compare: begin with fresh ones of a kind")
    parser.add_argument("--no-negatives", action="store_true", help="to compare: without negative samples")
    parser.add_argument("--feature-weight", type=float, default=FEATURE_WEIGHT, help="beside the answers' latents")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    options = parser.parse_args()
    prepare(options.threads)
    torch.manual_seed(0)
    restoring = Restoring.load(options.model, options.autoencoder, options.warm_start, options.connectors)
    stage = taught_stage(
        options.tiles, options.answers, restoring, options.features, options.batch, options.crop,
        feature_weight=options.feature_weight, negatives=not options.no_negatives,
    )  # fmt: skip
    run(stage, options, learning_rate=options.learning_rate)
    for name in LEARNING:
        restoring.models[name].save_pretrained(options.out / name)


if __name__ == "__main__":
    main()

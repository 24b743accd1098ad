"""What real photographs suffer, in the order in which it happens to them.

lens ─ air ─ sensor ─ print (or halftone) ─ scan, resize ─ file ─ video ─ messengers
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from supir.degradation.process import Degradation, Step, step
from supir.degradation.second_order import LIGHT, Recipe


@dataclass(frozen=True, kw_only=True)
class Damages:
    """One to three kinds of damage, then mostly a reduction and a file, and at times the second-order process."""

    number: tuple[float, float, float] = (0.45, 0.35, 0.2)
    """Probabilities of one, two and three kinds."""
    lens: float = 2.0
    """Weight of motion blur, defocus and colour fringes among the kinds."""
    air: float = 0.7
    """Weight of haze."""
    sensor: float = 2.0
    """Weight of sensor noise, of low light and of the smoothing a phone answers them with."""
    print: float = 1.5
    """Weight of fading, grain, scratches, creases and dust."""
    halftone: float = 0.5
    """Weight of printed dots; never together with ``print``."""
    video: float = 1.0
    """Weight of a video codec's artefacts."""
    messengers: float = 1.3
    """Weight of one to four messengers or social networks, each of which reduces and compresses again."""
    low_light_share: float = 0.35
    """Of ``sensor``, the share of dark scenes; a dark scene is not printed, for a printer would have brightened it."""
    reduced: float = 0.7
    """Probability of a reduction after print and sensor."""
    scale: tuple[float, float] = (1.2, 4.0)
    """Ratio of that reduction, drawn evenly in its logarithm."""
    compressed: float = 0.75
    """Probability of a file with losses after it: WebP in a fifth of the cases, else JPEG."""
    quality: tuple[int, int] = (35, 95)
    """Quality of that file."""
    second_order: float = 0.25
    """Probability that ``rounds`` of the second-order process come in place of this reduction and file."""
    rounds: Recipe = LIGHT
    """Which process that is."""

    def draw(self, rng: np.random.Generator) -> Degradation:
        """Draw every value of a degradation."""
        kinds = self._draw_kinds(rng)
        steps: list[Step] = []
        if "lens" in kinds:
            steps += _draw_lens(rng)
        if "air" in kinds:
            steps.append(_draw_haze(rng))
        if "sensor" in kinds:
            printed = kinds & {"print", "halftone"}
            steps += _draw_sensor(rng, dark=not printed and rng.random() < self.low_light_share)
        if "print" in kinds:
            steps += _draw_print(rng)
        if "halftone" in kinds:
            steps.append(_draw_halftone(rng))
        if rng.random() < self.second_order:
            steps += self.rounds.draw(rng).steps
        else:
            steps += self._draw_file(rng)
        if "video" in kinds:
            steps.append(_draw_video(rng))
        if "messengers" in kinds:
            sizes = [values["fraction"] for values in (dict(old.values) for old in steps) if "fraction" in values]
            steps += _draw_messengers(rng, sizes[-1] if sizes else 1.0)
        return Degradation(tuple(steps))

    def _draw_file(self, rng: np.random.Generator) -> list[Step]:
        steps = []
        if rng.random() < self.reduced:
            steps.append(_draw_reduction(rng, 1 / _even_ratio(rng, *self.scale)))
        if rng.random() < self.compressed:
            codec = "webp" if rng.random() < 0.2 else "jpeg"
            steps.append(step(codec, quality=_whole(rng, *self.quality)))
        return steps

    def _draw_kinds(self, rng: np.random.Generator) -> set[str]:
        names = ("lens", "air", "sensor", "print", "halftone", "video", "messengers")
        weights = np.array([getattr(self, name) for name in names], np.float64)
        number = 1 + int(rng.choice(3, p=self.number))
        kinds: set[str] = set()
        for _ in range(number):
            kind = str(rng.choice(names, p=weights / weights.sum()))
            kinds.add(kind)
            excluded = {"print": ("print", "halftone"), "halftone": ("print", "halftone")}.get(kind, (kind,))
            weights[[names.index(name) for name in excluded]] = 0
        return kinds


def _draw_lens(rng: np.random.Generator) -> list[Step]:
    way = rng.choice(3, p=(0.45, 0.4, 0.15))
    highlights = _even_ratio(rng, 1.0, 4.0)
    steps: list[Step] = []
    if way == 0:
        values = {"length": _even_ratio(rng, 2.0, 24.0), "angle": _between(rng, -np.pi, np.pi)}
        steps.append(step("motion_blur", **values, shake=_between(rng, 0, 1), highlights=highlights, seed=_seed(rng)))
    elif way == 1:
        blades = int(rng.choice((0, 5, 6, 7, 9)))
        values = {"radius": _even_ratio(rng, 0.8, 7.0), "blades": blades, "angle": _between(rng, 0, np.pi)}
        steps.append(step("defocus", **values, highlights=highlights))
    if way == 2 or rng.random() < 0.2:
        centre = {"centre_x": _between(rng, -0.5, 1.5), "centre_y": _between(rng, -0.5, 1.5)}
        steps.append(step("fringes", shift=float(rng.choice((-1, 1))) * _even_ratio(rng, 0.001, 0.006), **centre))
    return steps


def _draw_haze(rng: np.random.Generator) -> Step:
    look = {"airlight": _between(rng, 0.7, 0.98), "warmth": _between(rng, -0.06, 0.06), "slope": _between(rng, 0, 0.9)}
    thick = _even_ratio(rng, 0.25, 1.6)
    return step("haze", thickness=thick, **look, patchiness=_between(rng, 0, 0.6), seed=_seed(rng))


def _draw_sensor(rng: np.random.Generator, dark: bool) -> list[Step]:
    shared: dict[str, Any] = {
        "red_gain": _between(rng, 1.2, 2.6),
        "blue_gain": _between(rng, 1.2, 2.6),
        "crosstalk": _between(rng, 0.05, 0.3),
        "seed": _seed(rng),
    }
    if dark:
        exposure = 1 / _even_ratio(rng, 3.0, 20.0)
        scene = {"exposure": exposure, "push": max(1.0, _between(rng, 0.3, 0.9) / exposure)}
        noise = {"photons": _even_ratio(rng, 800, 10_000), "read_noise": _even_ratio(rng, 0.5, 6)}
        banding = _between(rng, 0, 0.6) * noise["read_noise"] * int(rng.random() < 0.5)
        steps = [step("low_light", **scene, **noise, banding=banding, **shared)]
    else:
        noise = {"photons": _even_ratio(rng, 60, 3000), "read_noise": _even_ratio(rng, 0.5, 8)}
        demosaic = "edge_aware" if rng.random() < 0.6 else "bilinear"
        steps = [step("sensor", **noise, **shared, demosaic=demosaic)]
    if rng.random() < 0.5:
        smooth = {"luma": _between(rng, 0.1, 1.0), "chroma": _between(rng, 0.3, 1.0)}
        steps.append(step("in_camera_denoise", **smooth, radius=_whole(rng, 1, 4)))
    return steps


def _draw_print(rng: np.random.Generator) -> list[Step]:
    chances = rng.random(5) < (0.6, 0.4, 0.4, 0.25, 0.5)
    if not chances.any():
        chances[0] = True
    steps: list[Step] = []
    if chances[0]:
        most, others = _between(rng, 0.2, 0.65), (_between(rng, 0.0, 0.4), _between(rng, 0.0, 0.4))
        # The dyes fade unequally; which goes first depends on the paper and on the light.
        losses = {0: (most, *others), 1: (others[0], most, others[1]), 2: (*others, most)}[
            int(rng.choice(3, p=(0.5, 0.2, 0.3)))
        ]
        named = dict(zip(("cyan_loss", "magenta_loss", "yellow_loss"), losses, strict=True))
        steps.append(step("fade", **named, stain=_between(rng, 0, 0.3)))
    if chances[1]:
        steps.append(step("grain", strength=_even_ratio(rng, 3, 18), size=_even_ratio(rng, 0.6, 2.5), seed=_seed(rng)))
    if chances[2]:
        values = {"count": int(_even_ratio(rng, 2, 40)), "length": _even_ratio(rng, 0.08, 1.0)}
        look = {
            "width": _even_ratio(rng, 0.5, 2.5),
            "opacity": _between(rng, 0.3, 0.95),
            "bright": _between(rng, 0.3, 1),
        }
        steps.append(step("scratches", **values, **look, seed=_seed(rng)))
    if chances[3]:
        steps.append(step("creases", count=_whole(rng, 1, 3), width=_even_ratio(rng, 1.0, 5.0), seed=_seed(rng)))
    if chances[4]:
        look = {"size": _even_ratio(rng, 0.8, 4.0), "hairs": _between(rng, 0, 0.15), "bright": _between(rng, 0, 1)}
        steps.append(step("dust", count=int(_even_ratio(rng, 5, 150)), **look, seed=_seed(rng)))
    return steps


def _draw_halftone(rng: np.random.Generator) -> Step:
    inks = "black" if rng.random() < 0.35 else "cmyk"
    look = {"gain": _between(rng, 0, 0.25), "softness": _even_ratio(rng, 0.4, 1.5)}
    return step("halftone", period=_even_ratio(rng, 2.5, 8.0), angle=_between(rng, -0.3, 0.3), inks=inks, **look)


def _draw_video(rng: np.random.Generator) -> Step:
    moves = rng.random() < 0.6
    speed, angle = _even_ratio(rng, 0.2, 4.0) * moves, _between(rng, -np.pi, np.pi)
    motion = {"motion_x": speed * math.cos(angle), "motion_y": speed * math.sin(angle)}
    deblock = bool(rng.random() < 0.75)
    return step("video", quantiser=_whole(rng, 24, 40), frames=_whole(rng, 1, 4), **motion, deblock=deblock)


def _draw_messengers(rng: np.random.Generator, fraction: float) -> list[Step]:
    steps: list[Step] = []
    for _ in range(_whole(rng, 1, 4)):
        if rng.random() < 0.6:
            fraction = max(fraction / _even_ratio(rng, 1.05, 1.8), 0.125)
            steps.append(_draw_reduction(rng, fraction))
        if rng.random() < 0.15:
            steps.append(step("webp", quality=_whole(rng, 50, 85)))
        else:
            times, shift = _whole(rng, 1, 3), _whole(rng, 0, 15)
            steps.append(step("recompress", quality=_whole(rng, 50, 85), times=times, shift=shift, drift=0))
    return steps


def _draw_reduction(rng: np.random.Generator, fraction: float) -> Step:
    way = rng.choice(4, p=(0.35, 0.3, 0.2, 0.15))
    if way < 2:
        return step(("reduce", "shrink")[way], fraction=fraction)
    return step("resize", fraction=fraction, interpolation=("area", "bilinear")[way - 2])


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _even_ratio(rng: np.random.Generator, low: float, high: float) -> float:
    """Drawn evenly in the logarithm: as often from 1 to 2 as from 2 to 4. By `math`, since numpy's last bit depends on
    the processor.
    """
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _whole(rng: np.random.Generator, low: int, high: int) -> int:
    """Both ends included."""
    return int(rng.integers(low, high + 1))


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))

"""Named runs: frozen options of one training stage, checked when made, stored with the run they steer.

    small/*   every stage at the size of the bundled model, for a laptop without a GPU
    mid/*     in between, to see one real step of an SDXL-like model
    paper/*   the paper's setting: SDXL, batch 256, 512 px crops, AdamW 1e-5, the trimmed trunk (section 4.1)
    smoke/*   every stage in seconds, to see that all of it runs

What the paper does not state is ours: number of steps, warm-up, AdamW's betas (0.9, 0.99), weight decay, EMA, the
share of empty captions.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supir.degradation.recipes import RECIPES
from supir.errors import OptionError
from supir.files import write_whole
from supir.options.fields import Options, choice, flag, number, text

STAGES = ("autoencoder", "prior", "encoder", "restorer", "adaptor", "generator", "lora")
USES: dict[str, tuple[str, ...]] = {
    "autoencoder": ("autoencoder",),
    "encoder": ("autoencoder",),
    "restorer": ("autoencoder",),
    "prior": ("autoencoder", "unet", "text_encoder", "text_encoder_2"),
    **dict.fromkeys(
        ("adaptor", "generator", "lora"), ("autoencoder", "unet", "adaptor", "text_encoder", "text_encoder_2")
    ),
}
"""The components that take part in a stage; the others stay where the model is stored."""
SIZES = ("smoke", "small", "mid", "paper")
_OF_ONE_STAGE = {"trunk": "adaptor", "frozen_prior": "generator", "start_sigma": "generator"}
CONFIGURATION = "configuration.json"
"""Its file in a run folder."""


@dataclass(frozen=True, kw_only=True)
class StageOptions(Options):
    """Everything that decides the weights a run ends with. A value outside its range raises ``OptionError``."""

    called = "an option of a training run"

    stage: str = choice("adaptor", STAGES, "what learns")
    size: str = choice("small", SIZES, "of the model that is made where no model is given to start from")
    connectors: str = choice(
        "given",
        ("given", "zero_sft", "zero_conv"),
        "given: those of the model to start from, or zero_sft; another kind than its own begins anew; zero_conv is to"
        " compare with",
    )
    fresh_connectors: bool = flag(False, "begin the connectors of the model given to start from anew in any case")
    trunk: str = choice(
        "given",
        ("given", "half"),
        "transformer blocks of the adaptor that learns: those of the model given to start from, or half of the UNet's"
        " in each block of the encoder, as the paper's",
    )
    steps: int = number(20_000, 1, 10**8, "optimiser steps in all; the schedule is a function of the step")
    batch: int = number(8, 1, 4096, "samples a process takes in one pass")
    accumulation: int = number(1, 1, 4096, "passes added up for one step")
    crop: int = number(128, 32, 4096, "side of a training crop in pixels, a multiple of 32")
    learning_rate: float = number(5e-4, 1e-9, 1, "at its highest")
    warmup_steps: int = number(100, 0, 10**6, "over which the rate rises from zero")
    schedule: str = choice("cosine", ("constant", "cosine"), "cosine falls to a hundredth by the last step")
    weight_decay: float = number(0.01, 0, 1, "of matrices and filters; vectors have none")
    clip: float = number(1.0, 1e-6, 1e6, "longest gradient that is taken as it is")
    ema_decay: float = number(0.999, 0, 1, "of the averaged weights, which are the product")
    optimiser: str = choice("adamw", ("adamw", "adamw8bit"), "adamw8bit keeps its moments in 8 bits (torchao)")
    mixed_precision: str = choice("no", ("no", "bf16", "fp16"), "of the networks' arithmetic")
    frozen_dtype: str = choice("float32", ("float32", "bfloat16", "float16"), "in which frozen networks are held")
    gradient_checkpointing: bool = flag(False, "compute activations again in the backward pass: less memory")
    workers: int = number(0, 0, 256, "processes that prepare samples; does not change the weights")
    seed: int = number(0, 0, 2**31 - 1, "of everything drawn")
    checkpoint_steps: int = number(500, 1, 10**7, "between two whole states")
    validation_steps: int = number(1000, 1, 10**7, "between two sample sheets with their metrics")
    keep_best: str = text(
        "result_psnr",
        "the metric whose best weights are kept, of several the first there is; a leading minus: the lowest",
    )
    degradation: str = text("default=1", "recipes and their shares, as in everyday=0.75,light=0.1,default=0.15")
    caption_dropout: float = number(0.1, 0, 1, "share of samples with no caption")
    negative_share: float = number(0.0, 0, 0.9, "share of negative-quality samples (paper section 3.2)")
    timesteps: str = choice("uniform", ("uniform", "detail"), "detail favours levels that decide texture")
    copy_start: bool = flag(False, "begin E_dr as a copy of E, the adaptor as one of the UNet's encoder")
    learn_words: bool = flag(False, "the prior's text towers learn too: for models made from nothing")
    printed_weight: float = number(1.0, 0, 1e6, "of the encoder's loss as the paper prints it")
    fixed_weight: float = number(1.0, 0, 1e6, "of the distance to the frozen encoder's latent of the clean picture")
    reconstruction_weight: float = number(1.0, 0, 1e6, "of the distance of the decoded latent to the clean picture")
    lora_rank: int = number(8, 1, 1024, "of the LoRA layers")
    lora_target: str = choice("adaptor", ("adaptor", "connectors", "both"), "what LoRA adapts")
    features: str = text("", "file of EfficientNet-lite0 weights for the autoencoder's perceptual term; empty: none")

    perceptual: str = text(
        "",
        "file of LPIPS's networks, as `supir evaluate --fetch` makes it: VGG16 steers and keeps the best",
    )
    perceptual_weight: float = number(
        1.0, 0, 1e6, "of the distance to the clean picture in VGG16's features; 0: pixels alone, without that file"
    )
    restorer_blocks: int = number(
        0, 0, 23, "of the teacher's, the least spared, to begin the restoring network from; 0: go on with it"
    )
    plain_end: bool = flag(False, "the restoring network's plain end learns, made as a copy of the vivid one; no other")
    teacher: str = text("", "file of Real-ESRGAN x4plus for ncnn: begins the restoring network and answers for it")
    teacher_weight: float = number(0.0, 0, 1, "of the teacher's answer as a second target; the rest is the truth's")
    frozen_prior: bool = flag(
        False, "in stage generator adaptor and connectors learn alone, beside UNet and decoder as they are given"
    )
    start_sigma: float = number(1.0, 0.01, 14.6, "noise that E_dr's latent begins with in stage generator")
    adversarial_share: float = number(0.0, 0, 10, "of a discriminator's gradient, the other losses' taken as 1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop % 32:
            raise OptionError(f"crop is {self.crop}; it must be a multiple of 32, four latent pixels")
        shares(self.degradation)
        if self.frozen_dtype != "float32" and self.mixed_precision == "no":
            raise OptionError(f"frozen_dtype is {self.frozen_dtype!r}; it needs mixed_precision bf16 or fp16")
        for name in ("trunk", "frozen_prior", "start_sigma"):
            value, usual = getattr(self, name), type(self).fields()[name].default
            if value != usual and self.stage != (only := _OF_ONE_STAGE[name]):
                raise OptionError(f"{name} is {value!r} in stage {self.stage!r}; it is for the stage {only}")
        if self.stage in ("autoencoder", "prior") and self.size in ("mid", "paper"):
            raise OptionError(
                f"stage is {self.stage!r} at size {self.size!r}; SDXL's own is taken there, not made anew"
            )

    @property
    def measures_of_best(self) -> list[str]:
        """Those of ``keep_best``, in their order."""
        return [name.strip() for name in self.keep_best.split(",")]

    @property
    def new_connectors(self) -> str:
        """The kind of connectors where they are made anew."""
        return "zero_sft" if self.connectors == "given" else self.connectors

    def replace(self, **changes: Any) -> StageOptions:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **self.known(changes))


def shares(text: str) -> dict[str, float]:
    """The recipes of a ``degradation`` field and their shares, which add up to 1.

    Raises:
        OptionError: the text is not of that form.
    """
    found: dict[str, float] = {}
    try:
        for item in text.split(","):
            name, share = item.split("=")
            found[name.strip()] = float(share)
    except ValueError:
        raise OptionError(f"degradation is {text!r}; write recipes and shares, as in default=0.5,light=0.5") from None
    for name in found:
        if name not in RECIPES:
            raise OptionError(f"degradation names {name!r}; there are: {', '.join(RECIPES)}")
    total = sum(found.values())
    if min(found.values()) < 0 or not 0 < total < math.inf:
        raise OptionError(f"degradation is {text!r}; shares must be positive")
    return {name: share / total for name, share in found.items()}


SMALL_MIXTURE = "everyday=0.65,light=0.1,default=0.25"
"""For small models, as which the bundled one learned. Much of the default recipe would drown the rest: it leaves next
to nothing that a small network can restore."""
RESTORER_MIXTURE = (
    "sr4=0.16,sr8=0.06,blur2_sr4=0.1,sr4_noise40=0.06,blur2_sr4_noise20_jpeg50=0.12,default=0.2,everyday=0.24,"
    "light=0.06"
)
"""The paper's six recipes (Table 1) and the damage of everyday photographs, of which there must be enough: x4plus's
blocks know enlargement by four alone, and what is enlarged less they would make as soft as that."""
_SMOKE: dict[str, Any] = {
    "size": "smoke",
    "steps": 4,
    "batch": 2,
    "crop": 64,
    "warmup_steps": 1,
    "learning_rate": 1e-3,
    "checkpoint_steps": 2,
    "validation_steps": 4,
    "ema_decay": 0.5,
    "degradation": "light=1",
    "negative_share": 0.25,
    "learn_words": True,
    "lora_rank": 2,
}
_MID: dict[str, Any] = {"size": "mid", "batch": 1, "crop": 256, "steps": 10_000, "learning_rate": 5e-5}
_PAPER: dict[str, Any] = {
    "size": "paper",
    "steps": 100_000,
    "batch": 4,  # on 64 processes: 256
    "crop": 512,
    "learning_rate": 1e-5,
    "warmup_steps": 1000,
    "schedule": "constant",
    "mixed_precision": "bf16",
    "frozen_dtype": "bfloat16",
    "gradient_checkpointing": True,
    "ema_decay": 0.9999,
    "workers": 4,
    "copy_start": True,
    "negative_share": 0.005,  # 100 K of 20 M
}
_SMALL_DIFFUSION: dict[str, Any] = {
    "degradation": SMALL_MIXTURE,
    "timesteps": "detail",
    "negative_share": 0.2,
    "batch": 16,
}

_BY_LOOKS: dict[str, Any] = {"keep_best": "-result_vgg,-loss"}
"""Of what paints: PSNR would keep the most blurred. ``result_vgg`` is there where ``perceptual`` names a file; LPIPS by
AlexNet, which judges, has no say."""

_FEW_STEPS: dict[str, Any] = {
    "frozen_prior": True,
    "copy_start": False,
    "start_sigma": 0.57,  # timestep 200 of SDXL's schedule, as HYPIR's one step (arXiv 2507.20590)
    "learning_rate": 5e-5,
    "steps": 20_000,
    "perceptual_weight": 2.0,  # OSEDiff's (arXiv 2406.08177)
    "adversarial_share": 0.5,
    "keep_best": "-result_vgg",
}
"""A trained SUPIR as one of one to four steps, its prior as it is."""

RUNS: dict[str, dict[str, Any]] = {
    "small/autoencoder": {"steps": 12_000, "learning_rate": 1.5e-3, "keep_best": "result_psnr"},
    "small/prior": {"steps": 30_000, **_SMALL_DIFFUSION, "learn_words": True, "keep_best": "-loss"},
    "small/encoder": {
        "steps": 30_000,
        "batch": 6,
        "learning_rate": 1e-3,
        "degradation": SMALL_MIXTURE,
        "weight_decay": 0.0,
    },
    "small/restorer": {
        "steps": 8000,
        "batch": 4,
        "crop": 192,  # 48 of the trunk's pixels: with fewer, all of them are near a border
        "learning_rate": 2e-4,
        "degradation": RESTORER_MIXTURE,
        "weight_decay": 0.0,
        "ema_decay": 0.998,
        "restorer_blocks": 12,
        "perceptual_weight": 1.5,
        "teacher_weight": 0.6,
        "keep_best": "-preview_vgg",
    },
    "small/adaptor": {"steps": 30_000, **_SMALL_DIFFUSION, **_BY_LOOKS},
    "small/generator": {
        "steps": 8000,
        "learning_rate": 2e-4,
        "degradation": RESTORER_MIXTURE,
        "negative_share": 0.12,
        "ema_decay": 0.998,
        "adversarial_share": 0.5,
        "keep_best": "-result_vgg",
    },
    "small/lora": {
        "steps": 1000,
        "batch": 4,
        "learning_rate": 1e-4,
        "degradation": SMALL_MIXTURE,
        "timesteps": "detail",
        **_BY_LOOKS,
    },
    "mid/adaptor": {**_MID, "copy_start": True, **_BY_LOOKS},
    "mid/generator": {**_MID, **_FEW_STEPS},
    "paper/encoder": {**_PAPER, "steps": 50_000, "negative_share": 0.0},
    "paper/adaptor": {**_PAPER, **_BY_LOOKS, "trunk": "half"},
    "paper/generator": {**_PAPER, **_FEW_STEPS, "batch": 1, "accumulation": 4},
    # One small GPU: batch 1, added up over 8 passes.
    "paper/lora": {
        **_PAPER,
        "steps": 2000,
        "batch": 1,
        "accumulation": 8,
        "learning_rate": 1e-4,
        "copy_start": False,
        "optimiser": "adamw8bit",
        "lora_rank": 16,
        "warmup_steps": 100,
        "ema_decay": 0.99,
        **_BY_LOOKS,
    },
    **{f"smoke/{stage}": _SMOKE for stage in STAGES},
}
"""What each named run sets apart from the defaults of ``StageOptions``; its stage is the name's second half."""


def named_run(name: str, **overrides: Any) -> StageOptions:
    """The options of a named run with the user's on top.

    Raises:
        OptionError: no such run, no such field, or a value out of range.
    """
    if name not in RUNS:
        raise OptionError(f"{name!r} is not a named run; there are: {', '.join(RUNS)}")
    return StageOptions(**StageOptions.known({"stage": name.split("/")[1], **RUNS[name], **overrides}))


FREE = frozenset({"workers", "keep_best", "validation_steps", "checkpoint_steps"})
"""Fields that may differ when a run is continued, as they do not decide its weights."""
SPREAD = ("batch", "accumulation", "processes")
"""Fields that may differ as long as their product, the samples of a step, is the same: so are then the samples."""


def stored_options(folder: Path) -> tuple[StageOptions, dict[str, Any]]:
    """The options of the run in a folder, and what else is stored of it (see ``freeze``).

    Raises:
        OptionError: there is no run.
    """
    try:
        stored: dict[str, Any] = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"{folder} holds no run ({error}); name the folder of one, as --out has it") from error
    names = StageOptions.fields().keys() & stored.keys()
    return StageOptions(**{name: stored.pop(name) for name in names}), stored


def _num_samples(values: Mapping[str, Any]) -> int:
    return math.prod(int(values.get(name) or 1) for name in SPREAD)


def freeze(folder: Path, options: StageOptions, where: Mapping[str, Any]) -> None:
    """Store what a run is made of in its folder, or hold it against what is stored there.

    ``where`` is what else decides its weights: the pictures, the model it starts from, the number of processes.

    Raises:
        OptionError: the folder holds a run of other options; the message names the fields.
    """
    now = {**dataclasses.asdict(options), **where}
    path = folder / CONFIGURATION
    if path.exists():
        then: dict[str, Any] = dataclasses.asdict(StageOptions()) | json.loads(path.read_text())  # some may be newer
        spread = SPREAD if _num_samples(now) == _num_samples(then) else ()
        names = [name for name in sorted(now.keys() | then.keys()) if name not in FREE and name not in spread]
        apart = [
            f"{name} (then {then.get(name)!r}, now {now.get(name)!r})"
            for name in names
            if then.get(name) != now.get(name)
        ]
        if apart:
            raise OptionError(f"{folder} holds a run with other options: {', '.join(apart)}; use another folder")
        return
    write_whole(path, json.dumps(now, indent=2) + "\n")

"""What a user may set: one frozen dataclass, checked when made, and the named presets over it.

Every front end reads names, defaults, ranges and documentation from here and has none of its own.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from supir.errors import OptionError
from supir.options.combinations import without_effect
from supir.options.dials import DIALS, dialled, layered
from supir.options.fields import Options, choice, flag, number, text
from supir.options.loras import DIVIDER, split_loras
from supir.options.regions import DIVIDER as REGIONS
from supir.options.regions import MOST, options_in, split_regions

MAX_SEED = 2**63 - 1
AS_ALL_ELSE = "as-all-else"
"""Of ``faces``: nothing is done to them that is not done elsewhere."""

_telling: ContextVar[bool] = ContextVar("telling", default=True)


class IdleOptionWarning(UserWarning):
    """An option was set that has no effect beside the others; the message names it and says why."""


@dataclass(frozen=True, kw_only=True)
class RestoreOptions(Options):
    """How a picture is restored.

    A number outside its range, and options that contradict one another, raise ``OptionError`` naming the fields; one
    that has no effect beside the others is told in an ``IdleOptionWarning``, once, when it is set.
    """

    scale: float = number(2.0, 0.05, 32, "output size over input size", unit="x")
    min_size: int = number(
        1024,
        16,
        65536,
        "work on at least this short side (strips: on four of its squares); the output keeps its asked size",
        unit="px",
    )
    prompt: str = text("", "what the picture shows; steers content and materials")
    tile_prompts: str = text("", "what each tile shows instead of the prompt, row by row, divided by |")
    positive_prompt: str | None = text(None, "quality words appended to the prompt; unset: the paper's")
    negative_prompt: str | None = text(None, "what the result must not look like; unset: the paper's words")
    long_prompt: str = choice("chunks", ("chunks", "truncate"), "beyond 77 tokens: carry in chunks, or cut and warn")
    prompt_weights: bool = flag(
        True, "read (word:1.2) and BREAK in prompts as A1111 and ComfyUI do; without it they are letters"
    )
    seed: int = number(0, 0, MAX_SEED, "the same seed gives the same picture")
    solver: str = choice(
        "edm_euler",
        ("edm_euler", "dpmpp_2m", "lcm", "reference_dpmpp_2m"),
        "edm_euler: the paper's; dpmpp_2m: fewer steps; lcm: for bases distilled as LCM, Hyper-SD and DMD2 are",
    )
    num_steps: int = number(50, 1, 1000, "network evaluations, each of both branches when guided", unit="steps")
    grid: str = choice(
        "karras",
        ("karras", "log_snr", "trailing"),
        "spacing of the noise levels; log_snr: for few steps of dpmpp_2m from noise; trailing: the timesteps that"
        " bases distilled to so many steps were taught at",
    )
    text_guidance: float = number(4.0, 0, 30, "guidance at the end of sampling; 1 is off and halves the cost")
    text_guidance_start: float | None = number(
        None, 0, 30, "guidance in the first step, linear in sigma to text_guidance at no noise; unset: constant"
    )
    text_guidance_low: float | None = number(
        None, 0, 14.6, "guide only above this noise level, elsewhere at half the cost; unset: down to none"
    )
    text_guidance_high: float | None = number(
        None, 0.03, 30, "guide only up to this noise level, elsewhere at half the cost; unset: from the highest on"
    )
    control_scale: float = number(1.0, 0, 2, "strength of the connectors at the end; lower gives more freedom")
    control_scale_start: float | None = number(
        None, 0, 2, "strength in the first step, linear in sigma to control_scale at no noise; unset: constant"
    )
    restoration_guidance: float | None = number(
        None, 0.01, 100, "tau_r: pull toward the input, stronger when smaller; unset: off"
    )
    lora: str = text(
        "",
        "a LoRA onto the networks, of SDXL or of this program's training: FILE, or FILE:STRENGTH where it is not to"
        f" act in full; several divided by {DIVIDER}",
        divider=DIVIDER,
    )
    first: str = text(
        "",
        "the file of another model, of ESRGAN's kind, that enlarges the photo before; unset: none",
    )
    detail: float | None = number(
        None, 0, 1, "from 0, plain and faithful, to 1, vivid (see docs/coming-from.md); unset: the preset's"
    )
    start_sigma: float | None = number(
        None, 0.03, 14.6, "begin with the preview's latent noised to this level; unset: with pure noise"
    )
    s_churn: float = number(5.0, 0, 1000, "noise added back over all steps (edm_euler)")
    s_noise: float = number(1.003, 0, 2, "standard deviation of that noise")
    eta: float | None = number(
        None, 0, 2, "share of fresh noise in each step (dpmpp_2m), 0 is none; unset: 0, and 1 for reference_dpmpp_2m"
    )
    adaptor_every: int = number(
        1, 1, 1000, "evaluate the adaptor in one step of so many, else take its last features", unit="steps"
    )
    deep_cache_every: int = number(
        1, 1, 1000, "evaluate the deep blocks in one step of so many, else the outermost alone", unit="steps"
    )
    color_fix: str = choice(
        "wavelet",
        ("wavelet", "adain", "lab", "mkl", "none"),
        "take the colours of the clean preview; lab: mean and spread in CIELAB, mkl: Monge-Kantorovitch",
    )
    color_strength: float = number(1.0, 0, 1, "how much of the way to those colours")
    blend: float = number(0.0, 0, 1, "share of the clean preview in the result; 0: none")
    blend_mask: str = text("", "a picture, white where that share is mixed in and black where not; unset: everywhere")
    region: str = text(
        "",
        "a place with its own rules, as 'face.png; protect' or '10%,20%,30%,40%; prompt=a cat; detail=0.3' (see"
        f" docs/regions.md); several divided by {REGIONS}",
        divider=REGIONS,
    )
    region_edge: int = number(
        16, 0, 1024, "over so many pixels of the result a region fades, outside of what is protected", unit="px"
    )
    faces: str = choice(
        AS_ALL_ELSE,
        (AS_ALL_ELSE, "gentle", "off"),
        "what is done to faces that are seen from the front; gentle: detail 0 there; off: they stay the photo's own",
    )
    see_larger: bool = flag(
        False,
        "show a photo that is enlarged less than four times to the encoder larger than it is: noise goes, and it takes"
        " five to twenty times as long; a network begun from one that enlarges four times sees best so",
    )
    keep_grain: float = number(
        0.0, 0, 1, "share of the photo's grain that the result has again, drawn anew from the seed; 0: none"
    )
    tile: int = number(1024, 64, 65536, "tile side for sampling; larger pictures are blended from tiles", unit="px")
    tile_overlap: int | None = number(
        None, 0, 32768, "overlap of neighbouring tiles, at most half a tile; unset: a quarter", unit="px"
    )
    tile_batch: int = number(1, 1, 1024, "tiles in one network call", unit="tiles")
    vae_tile: int = number(1024, 64, 65536, "tile side for encoding and decoding", unit="px")
    decoder_tile: int | None = number(None, 64, 65536, "tile side for decoding; unset: vae_tile", unit="px")
    memory: float | None = number(
        None, 0.1, 100000, "make tiles so small that all fits into this; unset: tiles as they are said", unit="GB"
    )
    salvage: bool = flag(False, "restore what is there of damaged and truncated files, which are refused otherwise")
    always: bool = flag(
        False, "restore also a photo that is good already, which at scale 1 is kept where no words or regions are given"
    )
    marking: bool = flag(
        True,
        "say in the result's metadata that and how it was made; without it neither mark nor record (docs/marking.md)",
    )
    reference_quirks: bool = flag(False, "compute as the public code does where it differs (see docs/reference.md)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile_overlap is not None and 2 * self.tile_overlap > self.tile:
            raise OptionError(
                f"tile_overlap is {self.tile_overlap} px for tiles of {self.tile} px; it may be at most half a tile"
            )
        low, high = self.text_guidance_low, self.text_guidance_high
        if low is not None and high is not None and low >= high:
            raise OptionError(
                f"text_guidance_low is {low} and text_guidance_high {high}; the lower bound must be below the upper"
            )
        split_loras(self.lora)
        regions = split_regions(self.region)
        for region in regions:
            options_in(self, region)
        if self.faces != AS_ALL_ELSE and len(regions) == MOST:
            raise OptionError(f"region holds {MOST} regions, and faces {self.faces} makes another; {MOST} are allowed")
        if _telling.get():
            specs = RestoreOptions.fields()
            self.tell([name for name, spec in specs.items() if getattr(self, name) != spec.default], None)

    @classmethod
    def silent(cls, **values: Any) -> RestoreOptions:
        """Options of which nothing is told: no person has set these values here."""
        before = _telling.set(False)
        try:
            return cls(**values)
        finally:
            _telling.reset(before)

    @property
    def fresh_share(self) -> float:
        """``eta``, or what stands for it where it is unset: the public solver's is 1."""
        if self.eta is not None:
            return self.eta
        return 1.0 if self.solver == "reference_dpmpp_2m" else 0.0

    def replace(self, **changes: Any) -> RestoreOptions:
        """A copy with some fields changed, checked again; what goes with them is unset (see ``layered``).

        Raises:
            OptionError: an unknown field, or a value out of range.
        """
        values = layered(vars(self), self.known(changes))
        changed = RestoreOptions.silent(**values)
        changed.tell(changes, self)
        return changed

    def tell(self, names: Collection[str], baseline: RestoreOptions | None) -> None:
        """Warn of those of the fields, which were set over ``baseline``, or the defaults, that have no effect."""
        for sentence in without_effect(self, names, baseline or RestoreOptions.silent()).values() if names else ():
            warn_of_idle(sentence)


@dataclass(frozen=True, kw_only=True)
class CaptionOptions(Options):
    """Who describes the pictures that have no prompt. What cannot be used together is found by ``supir.caption``."""

    captioner: str = text(
        "none",
        "who describes photos without a prompt: the folder of a model, the URL of an endpoint, beside (text files"
        " beside the photos), a .txt file for all, or none",
    )
    caption_model: str = text("", "the model's name at the endpoint")
    caption_bits: str = choice("off", ("off", "8", "4"), "bits a weight of a model folder")
    caption_question: str | None = text(
        None,
        "what is asked of each photo; unset: one or two sentences, with the preset reference what the paper asks",
    )
    caption_tokens: int = number(77, 1, 4096, "tokens of a caption at most; with the preset reference 512")
    caption_temperature: float = number(
        0.0, 0, 2, "0: the likeliest words; more: drawn, the same for the same photo; with the preset reference 0.2"
    )
    caption_cache: bool = flag(True, "keep captions in the user's cache folder, and take them from there")


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(Options):
    """How the networks are held and run, whatever the picture: told to whoever loads them."""

    dtype: str = choice(
        "auto",
        ("auto", "float32", "bfloat16", "float16"),
        "arithmetic of the networks; auto: float32 on a processor, on a GPU the first that the model says it bears,"
        " float16 where it says nothing",
    )
    vae_dtype: str = choice(
        "auto",
        ("auto", "float32", "bfloat16", "float16"),
        "arithmetic of the autoencoder; auto: the networks', but float32 beside float16, in which SDXL's overflows;"
        " bfloat16 halves the memory of that, the largest pass on a GPU",
    )
    quantize: str = choice("none", ("none", "int8", "float8"), "store UNet and adaptor in 8 bits a weight: less memory")
    offload: str = choice(
        "auto",
        ("auto", "none", "model", "sequential", "group"),
        "what waits in the processor's memory until the GPU needs it; model: whole networks, sequential and group:"
        " layers, which is slow; auto: as little as the GPU's free memory, or --memory, makes needed",
    )
    compile: bool = flag(False, "compile the repeated blocks: a minute or more at the first picture, then faster")

    @staticmethod
    def vae_dtype_beside(dtype: str) -> str:
        """The autoencoder's arithmetic where nobody says one, by that of the networks."""
        return "float32" if dtype == "float16" else dtype

    def identity(self, dtype: str, kind: str, vae_dtype: str) -> dict[str, str]:
        """What makes another result, for records; nothing where all is plain: float32 on a processor.

        Args:
            dtype: what the networks really calculate in.
            kind: of the device that they run on: ``cpu``, ``cuda`` ...
            vae_dtype: what the autoencoder really calculates in.
        """
        place = "" if kind == "cpu" else f" on {kind}"
        words = [f"{dtype}{place}"] if dtype != "float32" or place else []
        words += [f"autoencoder {vae_dtype}"] * (vae_dtype != self.vae_dtype_beside(dtype))
        words += [self.quantize] * (self.quantize != "none") + ["compiled"] * self.compile
        return {"networks": ", ".join(words)} if words else {}


@dataclass(frozen=True, kw_only=True)
class SigningOptions(Options):
    """Who signs results, by C2PA: both files or neither. They are the operator's, and no request may name others."""

    c2pa_cert: str = text(
        "", "sign results by C2PA with this certificate: a PEM file, with those it stands on behind it"
    )
    c2pa_key: str = text("", "the private key of that certificate: a PEM file in PKCS#8 without a password")

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.c2pa_cert) != bool(self.c2pa_key):
            there, missing = ("c2pa_cert", "c2pa_key") if self.c2pa_cert else ("c2pa_key", "c2pa_cert")
            raise OptionError(f"{there} is given without {missing}; signing needs both")

    def __bool__(self) -> bool:
        """Whether anything is signed."""
        return bool(self.c2pa_cert)


PRESETS: dict[str, dict[str, Any]] = {
    "reference": {
        "num_steps": 50,
        "text_guidance": 4.0,
        "text_guidance_start": 1.0,
        "s_churn": 5.0,
        "s_noise": 1.01,
        "long_prompt": "truncate",
        "prompt_weights": False,
        "tile": 65536,  # one: the public command tiles neither the sampling nor the autoencoder unless told
        "vae_tile": 65536,
        "reference_quirks": True,
    },
    "quality": {"num_steps": 50, "text_guidance": 7.5, "text_guidance_start": 4.0, "restoration_guidance": 4.0},
    "fidelity": {"num_steps": 50, "text_guidance": 4.0, "text_guidance_start": 1.0, "restoration_guidance": 2.0},
    "fast": {"solver": "dpmpp_2m", "num_steps": 16, "text_guidance": 4.0, "restoration_guidance": 4.0},
    "lightning": {
        "solver": "dpmpp_2m",
        "eta": 1.0,
        "grid": "trailing",
        "num_steps": 8,
        "text_guidance": 1.5,
        "text_guidance_start": 2.0,
        "control_scale": 0.9,
        "control_scale_start": 1.0,
    },
}
"""Named sets of options for SDXL-sized models. A model folder may bring its own numbers for each."""

TRADE_OFFS: dict[str, str] = {
    "quality": "most detail: strong text guidance, a pull toward the photo at high noise",
    "fidelity": "closest to the photo: weaker guidance, a stronger pull; for faces, text, documents",
    "fast": "fewest steps, at some loss of fine detail; for many photos, slow machines",
    "lightning": "for a base distilled to few steps (Lightning, Turbo, DMD2), with SUPIR-v0F: hardly any text guidance",
    "reference": "what the public code computes, quirks included; for comparison",
}
"""What each preset is for with a full-size model, and at what price; in the order to offer them in. What they come to
with others, ``supir.options.presets`` says."""

DEFAULT_PRESET = "quality"

NOTICE = "Detail that the photo did not hold is a guess; it is no evidence of what was there."
"""What everybody is to know who sees a result; it stands in the record of each."""


def restore_options(
    preset: str = DEFAULT_PRESET, *, model_presets: Mapping[str, Mapping[str, Any]] | None = None, **overrides: Any
) -> RestoreOptions:
    """The options of a preset, with the model's own numbers for it, with what the user set on top.

    Args:
        preset: a key of ``PRESETS``.
        model_presets: what a model folder says for ``all`` presets and for each by name, and what it leaves ``unused``.
        overrides: fields of ``RestoreOptions``; None means the preset's value, and ``"off"`` unsets a number that may
            be unset. The end of a ramp alone unsets the preset's start (see ``layered``).

    Raises:
        OptionError: an unknown preset or field, or a value out of range.
        IdleOptionWarning: warned of, for each override that has no effect here.
    """
    if preset not in PRESETS:
        raise OptionError(f"preset is {preset!r}; it must be one of {', '.join(PRESETS)}")
    own = model_presets or {}
    chosen = RestoreOptions.set_values(overrides)
    given = layered(PRESETS[preset], own.get("all", {}), own.get(preset, {}))
    detail = chosen.get("detail")
    dial: Mapping[str, Any] = {}
    if isinstance(detail, (int, float)) and given.get("detail") is None and preset in DIALS:
        RestoreOptions.fields()["detail"].check(detail)
        dial = dialled(preset, detail)
    options = RestoreOptions.silent(**RestoreOptions.known(layered(given, dial, chosen)))
    if chosen:
        before = RestoreOptions.silent(**RestoreOptions.known(given))
        options.tell(chosen, before)
        for sentence in unused_by_model(options, chosen, before, own).values():
            warn_of_idle(sentence)
    return options


def unused_options(
    baseline: RestoreOptions, model_presets: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, str]:
    """The options that a model makes next to nothing of, whoever sets them, each with why; see ``unused_by_model``."""
    unused = dict((model_presets or {}).get("unused", {}))
    if baseline.detail is None and baseline.reference_quirks:
        unused["detail"] = "its encoder has one end, and the public code's numbers stay"
    if "see_larger" not in (model_presets or {}).get("all", {}):
        unused["see_larger"] = "its encoder is shown every photo as it is"
    return unused


def unused_by_model(
    options: RestoreOptions,
    names: Collection[str],
    baseline: RestoreOptions,
    model_presets: Mapping[str, Mapping[str, Any]] | None,
) -> dict[str, str]:
    """Of the options that a person has set, those that this model makes next to nothing of, each with why.

    Args:
        options, names, baseline: as in ``without_effect``.
        model_presets: as in ``restore_options``; ``unused`` names such options, each with a reason.
    """
    unused = unused_options(baseline, model_presets)
    return {
        name: f"{name} changes next to nothing with this model: {unused[name]}"
        for name in names
        if name in unused and getattr(options, name) != getattr(baseline, name)
    }


def warn_of_idle(sentence: str) -> None:
    """An ``IdleOptionWarning`` that points at who called this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "supir":
        level, frame = level + 1, frame.f_back
    warnings.warn(sentence, IdleOptionWarning, stacklevel=level)

"""What each part of the method does: one preset with one thing changed at a time, beside what the paper found.

words        negative and positive quality words, with and without negative-quality samples (Table 2b)
connectors   ZeroSFT and ZeroConv (Table 2c)
guidance     restoration guidance tau_r (Figure 8)
encoder      the degradation-robust encoder and the plain one (Figure 14)
encoder-loss the loss that E_dr learns by: as the paper prints it, with each term added to it, and all
steps        solvers, and how many steps they take
control      strength of the connectors
text         strength of text guidance

Where a part has to be trained otherwise, both sides are models trained for the same number of steps from the same
weights (``TRAINED``). A claim of the paper is that a measure becomes better or worse; whether it does here is said by
the means, and by how many pictures go along.
"""

from __future__ import annotations

import copy
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supir.evaluation.methods import Preset
from supir.evaluation.metrics import METRICS
from supir.evaluation.summary import Score, means_and_wins, paired
from supir.files.report import markdown_table
from supir.pipeline import SupirPipeline

GIVEN = "given"
"""The model that is asked about."""
_ENCODER = "small/encoder --set copy_start=true"
TRAINED: Mapping[str, str] = {
    "taught": "small/generator for N steps",
    "untaught": "small/generator --set negative_share=0 for as many",
    "zero-sft": "small/generator --set fresh_connectors=true for N steps",
    "zero-conv": "small/generator --set fresh_connectors=true --set connectors=zero_conv for as many",
    "printed": f"{_ENCODER} --set fixed_weight=0 --set reconstruction_weight=0 for N steps",
    "printed+fixed": f"{_ENCODER} --set reconstruction_weight=0 for as many",
    "printed+reconstruction": f"{_ENCODER} --set fixed_weight=0 for as many",
    "all-terms": f"{_ENCODER} for as many",
}
"""Models that a study needs beside, and how ``supir train`` makes one of the bundled model."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row: a preset of a model with some options changed."""

    study: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    usual: Mapping[str, Any] = field(default_factory=dict)
    """Options that a benchmark's own ``--set`` may replace."""
    model: str = GIVEN
    """``GIVEN`` or a key of ``TRAINED``."""
    robust: bool = True
    """Whether the LQ latent is the degradation-robust encoder's."""

    @property
    def title(self) -> str:
        """Its name in tables and folders."""
        return f"{self.study} {self.name}"

    def method(self, pipeline: SupirPipeline, preset: str, **common: Any) -> Preset:
        """The variant as a benchmark takes it; ``common`` are options of every variant."""
        chosen = pipeline if self.robust else with_plain_encoder(pipeline)
        found = Preset(chosen, preset, self.title, **{**self.usual, **common, **self.options})
        found.identity = {**found.identity, "robust encoder": self.robust}
        return found


def _sweep(study: str, option: str, values: Sequence[Any], **also: Any) -> list[Variant]:
    return [Variant(study=study, name=f"{value}", options={option: value, **also}) for value in values]


_GUIDED = {"text_guidance": 2.0, "text_guidance_start": "off"}
"""Without guidance the negative words are not read at all."""


def _words(name: str, model: str = "taught") -> Variant:
    off = {"positive_prompt": "positive", "negative_prompt": "negative"}
    options = {option: "" for option, word in off.items() if word not in name and "both" not in name}
    return Variant(study="words", name=name, options=options, usual=_GUIDED, model=model)


STUDIES: Mapping[str, Sequence[Variant]] = {
    "words": [
        *(_words(name) for name in ("none", "positive", "negative", "both")),
        _words("untaught+both", model="untaught"),
    ],
    "connectors": [Variant(study="connectors", name=name, model=name) for name in ("zero-conv", "zero-sft")],
    "guidance": _sweep("guidance", "restoration_guidance", ["off", 6, 4, 2, 1, 0.5, 0.25, 0.1]),
    "encoder": [Variant(study="encoder", name=name, robust=name == "robust") for name in ("plain", "robust")],
    "encoder-loss": [
        Variant(study="encoder-loss", name=name, model=name)
        for name in ("printed", "printed+fixed", "printed+reconstruction", "all-terms")
    ],
    "steps": [
        Variant(study="steps", name=f"{solver} {number}", options={"solver": solver, "num_steps": number})
        for solver in ("edm_euler", "dpmpp_2m")
        for number in (1, 2, 4, 8, 16)
    ],
    "control": _sweep("control", "control_scale", [0, 0.25, 0.5, 0.75, 1]),
    "text": _sweep("text", "text_guidance", [0, 0.5, 1, 1.5, 2, 3, 4], text_guidance_start="off"),
}
SWEEPS = ("guidance", "control", "text", "steps")
"""Studies that are curves in the plane of perception and distortion."""


def variants(studies: Sequence[str], models: Mapping[str, Any]) -> tuple[list[Variant], list[str]]:
    """The variants that can run with these models, and for each that cannot a sentence."""
    ready, left_out = [], []
    for variant in (each for study in studies for each in STUDIES[study]):
        if variant.model in models or variant.model == GIVEN:
            ready.append(variant)
        else:
            made = TRAINED[variant.model]
            left_out.append(f"{variant.title}: needs --trained {variant.model}=FOLDER, a model made by {made}")
    return ready, left_out


def with_plain_encoder(pipeline: SupirPipeline) -> SupirPipeline:
    """The same networks, whose LQ latent comes from the encoder that never saw a degraded picture."""
    autoencoder = copy.copy(pipeline.autoencoder)
    autoencoder.encode_degraded = lambda x, **_: autoencoder.encode(x)
    found = SupirPipeline(**{**pipeline.components, "autoencoder": autoencoder}, presets=pipeline.config.presets)
    found.set_progress_bar_config(disable=True)
    found.source = pipeline.source
    return found


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A finding of the paper: from ``before`` to ``after`` of a study, a measure becomes better or worse."""

    study: str
    before: str
    after: str
    what: str
    measure: str
    paper: str
    """The paper's measure and its two values, or that it shows pictures only."""
    better: bool


def claims() -> list[Claim]:
    """Those of ``paper_ablations.csv``, in its order."""
    with Path(__file__).with_name("paper_ablations.csv").open(newline="") as file:
        return [_claim(row) for row in csv.DictReader(file)]


def _claim(row: Mapping[str, str]) -> Claim:
    """From a line of the file; the paper's measures are better when higher, but for LPIPS."""
    before, after = row["paper before"], row["paper after"]
    risen = bool(before) and float(after) > float(before)
    better = risen != (row["paper measure"] == "LPIPS") if before else row["expected"] == "better"
    values = f" {before} → {after}" if before else ""
    names = {name: row[name] for name in ("study", "before", "after", "what", "measure")}
    return Claim(**names, paper=row["paper measure"] + values, better=better)


def claims_table(scores: Sequence[Score], recipes: Sequence[str]) -> str:
    """Each claim beside what came here, recipe by recipe, as markdown; those that were not run are left out."""
    head = ["what", "paper", "better there", "recipe", "here", "better here", "pictures", "agrees"]
    rows = [row for claim in claims() for recipe in recipes if (row := _compared(claim, scores, recipe))]
    return markdown_table([head, *rows]) if rows else ""


def _compared(claim: Claim, scores: Sequence[Score], recipe: str) -> list[str]:
    titles = (f"{claim.study} {name}" for name in (claim.before, claim.after))
    pairs = paired(scores, recipe, claim.measure, *titles)
    if not pairs:
        return []
    metric = METRICS[claim.measure]
    after, before, along = means_and_wins(claim.measure, [(second, first) for first, second in pairs])
    better = metric.better(after, before)
    shown = f"{metric.title} {before:.{metric.decimals}f} → {after:.{metric.decimals}f}"
    same = f"{before:.{metric.decimals}f}" == f"{after:.{metric.decimals}f}"
    agrees = "no change" if same else _word(better == claim.better)
    here = [recipe, shown, _word(better), f"{along} of {len(pairs)}", agrees]
    return [claim.what, claim.paper, _word(claim.better), *here]


def _word(yes: bool) -> str:
    return "yes" if yes else "no"

"""What did not fit when weights met a model: each missing, unexpected and mis-shaped key, in both worlds' names.

Of the keys that no place needs some may be left out without a word (``HARMLESS``), some change what a model is and are
refused (``TELLING``). Any other is a warning: where every place is filled, it cannot make a wrong model.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from supir.errors import KeyMismatchError

_TOWER = r"(?:conditioner\.embedders\.\d+\.(?:transformer|model)|text_encoder(?:_2)?)"
_TABLE = (
    r"(?:log_)?betas|(?:sqrt_|log_)?(?:one_minus_)?(?:alphas_cumprod(?:_prev)?)|sqrt_recipm?1?_?alphas_cumprod"
    r"|posterior_(?:variance|log_variance_clipped|mean_coef[12])|lvlb_weights|logvar|(?:log_)?sigmas"
)
HARMLESS: Mapping[str, str] = {
    r"(?:.*\.)?model_ema\..*": "the mean over a training; the weights themselves are taken",
    rf"(?:model\.|denoiser\.)?(?:{_TABLE})": "the schedule is computed (reference section 5)",
    rf"{_TOWER}\.(?:text_model\.)?embeddings\.position_ids": "0, 1, 2, ...: computed by transformers",
    rf"{_TOWER}\.logit_scale": "only the contrastive loss uses it",
    rf"{_TOWER}\.attn_mask": "the causal mask, which is computed",
    r"conditioner\.embedders\.0\.transformer\.text_projection\.weight": "SDXL reads the first tower's tokens alone",
    r"text_encoder\.text_projection\.weight": "SDXL reads the first tower's tokens alone",
    rf"{_TOWER}\.(?:visual|vision_model|visual_projection)\..*": "the tower for pictures",
    r"(?:first_stage_model\.|vae\.)?loss\..*": "networks of the autoencoder's training",
    r"(?:.*\.)?num_batches_tracked": "counted in training",
    r"v_pred|ztsnr": "markers, which are read",
    r"global_step|epoch|iteration|step|scale_factor|current_epoch|num_updates": "numbers of a training",
}
"""Patterns of whole keys that our classes do not have, and why each may be left out."""

TELLING: Mapping[str, str] = {
    r"edm_(?:mean|std)": "latents of another scale, as in Playground v2.5",
    r"edm_vpred\..*": "another noise schedule, as in CosXL",
    r".*time_embed(?:ding)?\.cond_proj\..*": "guidance as an input, as in SDXL-LCM's whole UNet; its LoRA can be used",
    r".*(?:scale_weight|weight_scale(?:_\w+)?|\.comfy_quant|scaled_fp8)": "8-bit weights whose scales fit none of them",
    r".*\.(?:absmax|nested_absmax|quant_map|nested_quant_map|SCB|weight_format)": "weights quantised by bitsandbytes",
    r".*\.quant_state\..*": "weights quantised by bitsandbytes",
    r".*\.(?:qweight|qzeros|g_idx|_packed|_data|_scale|_zero_point|qscale)": "quantised weights",
    r".*\.(?:lora_(?:A|B|up|down)\b.*|base_layer\..*)": "a LoRA that is not merged into the weights",
}
"""Patterns of whole keys without which a model is another one, and what they mean: such a file is refused."""

_HARMLESS = re.compile("|".join(f"(?:{pattern})" for pattern in HARMLESS))
_TELLING = [(re.compile(pattern), meaning) for pattern, meaning in TELLING.items()]
_MOST_GROUPS = 6


def is_harmless(key: str) -> bool:
    """Whether a key may be left out without a word."""
    return _HARMLESS.fullmatch(key) is not None


def telling(keys: Iterable[str]) -> tuple[str, str] | None:
    """The first key without which the model would be another one, and what it means; None where there is none."""
    for key in keys:
        for pattern, meaning in _TELLING:
            if pattern.fullmatch(key):
                return key, meaning
    return None


def grouped(keys: Iterable[str]) -> str:
    """Keys in words: their beginnings, and how many there are of each, the largest group first."""
    counts = Counter(".".join(key.split(".")[:2]) + (".*" if key.count(".") > 1 else "") for key in keys)
    shown = [f"{name} ({count})" if count > 1 else name for name, count in counts.most_common(_MOST_GROUPS)]
    more = sum(counts.values()) - sum(count for _, count in counts.most_common(_MOST_GROUPS))
    return ", ".join(shown) + (f", and {more} more" if more else "")


MAX_LISTED = 10
"""Keys of each kind that an error message lists; a report has all of them."""


@dataclass(frozen=True, kw_only=True)
class KeyReport:
    """The keys of each kind; `ok` when no place is left without its weight.

    `unexpected` keys are those that no place needs: with every place filled they cannot make a wrong model, and are
    warned of. `dropped` are keys left out on purpose, `begun` the parts that no file had and that begin as training
    begins them; neither is a fault.
    """

    num_tensors: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mis_shaped: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every place found its key."""
        return not (self.missing or self.mis_shaped)

    def summary(self) -> str:
        """A line of counts, then the first keys of each kind at fault."""
        lines = [
            f"{self.num_tensors} tensors fit, {len(self.missing)} missing, {len(self.unexpected)} unexpected,"
            f" {len(self.mis_shaped)} mis-shaped, {len(self.dropped)} left out on purpose"
        ]
        lines += _listed("missing", self.missing)
        lines += _listed("mis-shaped", self.mis_shaped)
        lines += [f"  unexpected: {grouped(self.unexpected)}"] * bool(self.unexpected)
        lines += [f"  begun anew, to be trained: {', '.join(self.begun)}"] * bool(self.begun)
        return "\n".join(lines)

    def require(self, *, what: str) -> None:
        """Warn of what no place needs, and raise unless `ok`.

        Raises:
            KeyMismatchError: lists what does not fit and says what to do.
        """
        if not self.ok:
            raise KeyMismatchError(
                f"{what}: {self.summary()}\n"
                "Give the SDXL file and the SUPIR file that belong together; a weight that is missing is never made up."
            )
        if self.unexpected:
            warnings.warn(
                f"{what}: {len(self.unexpected)} keys are left out, as no place in the model needs them:"
                f" {grouped(self.unexpected)}",
                stacklevel=2,
            )


def _listed(kind: str, keys: Sequence[str]) -> list[str]:
    lines = [f"  {kind}: {key}" for key in keys[:MAX_LISTED]]
    if len(keys) > MAX_LISTED:
        lines.append(f"  {kind}: and {len(keys) - MAX_LISTED} more")
    return lines

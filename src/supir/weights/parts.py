"""The parts of a model that come from different files: which of them are there, and where the others are had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from supir.errors import KeyMismatchError
from supir.weights.kinds import is_autoencoder_alone
from supir.weights.layout import DEGRADED_ENCODER, HUB_DEGRADED_ENCODER, ModelLayout, Shapes

_BASE = "give an SDXL single file or folder"
_VAE = "name a file or folder that has one with --vae (vae=)"
_TEXT = "name a folder or an SDXL file that has them with --text (text=)"
_SUPIR = "give the published SUPIR file beside the SDXL one"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a component: whether it is there, and where people get it.

    `prefix` is that of its names in the component; `begins`, that training may begin without it.
    """

    name: str
    component: str
    present: Callable[[ModelLayout, Shapes], bool]
    advice: str
    prefix: str = ""
    begins: bool = False

    def holds(self, component: str, name: str) -> bool:
        """Whether a parameter belongs to this part."""
        return component == self.component and name.startswith(self.prefix)


def _has_degraded_encoder(layout: ModelLayout, shapes: Shapes) -> bool:
    return any(key.startswith((DEGRADED_ENCODER, HUB_DEGRADED_ENCODER)) for key in shapes)


PARTS = (
    Part(name="UNet", component="unet", present=lambda layout, _: layout.unet is not None, advice=_BASE),
    Part(
        name="autoencoder",
        component="autoencoder",
        present=lambda layout, _: layout.autoencoder is not None,
        advice=_VAE,
    ),
    Part(
        name="text tower CLIP-L",
        component="text_encoder",
        present=lambda layout, _: layout.text_encoder is not None,
        advice=_TEXT,
    ),
    Part(
        name="text tower CLIP-G",
        component="text_encoder_2",
        present=lambda layout, _: layout.text_encoder_2 is not None,
        advice=_TEXT,
    ),
    Part(
        name="adaptor",
        component="adaptor",
        present=lambda layout, _: layout.adaptor is not None,
        advice=_SUPIR,
        begins=True,
    ),
    Part(
        name="connectors",
        component="unet",
        prefix="connectors.",
        present=lambda layout, _: layout.connectors is not None,
        advice=_SUPIR,
        begins=True,
    ),
    Part(
        name="degraded encoder",
        component="autoencoder",
        prefix="degraded_encoder.",
        present=_has_degraded_encoder,
        advice=_SUPIR,
        begins=True,
    ),
)


def absent_parts(
    layout: ModelLayout, shapes: Shapes, components: Sequence[str], *, strict: bool, what: str
) -> tuple[Part, ...]:
    """The parts of these components that no key is of and that training may begin without.

    Raises:
        KeyMismatchError: another part is absent, or one of them and `strict` is set.
    """
    absent = [part for part in PARTS if part.component in components and not part.present(layout, shapes)]
    fatal = [part for part in absent if strict or not part.begins]
    if not fatal:
        return tuple(absent)
    advice = list(dict.fromkeys(part.advice for part in fatal))
    if is_autoencoder_alone(shapes) and "UNet" in (part.name for part in fatal):
        advice = [f"they are an autoencoder alone: {_BASE} first, and this one with --vae (vae=)"]
    if all(part.begins for part in fatal):
        advice.append("or let these parts begin as training begins them with --lenient (strict=False)")
    names = [part.name for part in fatal]
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    raise KeyMismatchError(f"{what}: the files given hold no {listed}; {'; '.join(advice)}")

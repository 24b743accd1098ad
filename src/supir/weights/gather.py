"""What a user names, files and folders, as one source of tensors: which of them gives which part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from supir.errors import OptionError, WeightsError
from supir.weights.checkpoint import Merged, Mixed, Renamed, SafetensorsFile, TensorSource, with_scales
from supir.weights.hub import SDXL_SCALING, Opened, open_file, open_folder, same_latents
from supir.weights.kinds import has_unet, is_supir, refuse_other_kinds
from supir.weights.layout import (
    AUTOENCODER,
    CLIP_G,
    CLIP_L,
    DEGRADED_ENCODER,
    HUB_AUTOENCODER,
    HUB_CLIP_G,
    HUB_CLIP_L,
    HUB_DEGRADED_ENCODER,
    HUB_UNET,
    UNET,
    HeadDims,
    Traits,
)

PREDICTIONS = ("epsilon", "v_prediction")
WRAPPER = re.compile(
    r"^(?:(?:_forward_module|module|state_dict|_orig_mod)\.)+|(?<=\.)(?:_orig_mod|_fsdp_wrapped_module)\."
)
"""What trainers put into every name: DeepSpeed and DDP, Lightning's strategies, torch.compile, FSDP."""

TITLES = ("modelspec.title", "modelspec.tags", "modelspec.merged_from", "ss_output_name", "title", "name")
"""Where metadata says what a model is called."""

ALONE = (
    ("model.model.diffusion_model.", "model.", ""),
    ("diffusion_model.input_blocks.0.", "", "model."),
    ("input_blocks.0.0.weight", "", UNET),
    ("encoder.down.0.block.0.", "", AUTOENCODER),
    ("encoder.down_blocks.0.resnets.0.", "", HUB_AUTOENCODER),
    ("down_blocks.0.resnets.0.", "", HUB_UNET),
)
"""How names begin in a file of one component, or of a module around the model; what to take off, what to put before."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """All that was given, as one source; later ones count where two have a key."""

    source: Merged
    given: tuple[Opened, ...]
    head_dims: HeadDims
    traits: Traits

    @property
    def what(self) -> str:
        """Their names, for messages and records."""
        return " + ".join(each.path.name for each in self.given)

    @property
    def files(self) -> dict[str, Path]:
        """Every file that was read, by its name; behind that of its folder, where a folder was given."""
        return {
            name if path == each.path else f"{each.folder.name}/{name}": path
            for each in self.given
            for name, path in each.named.items()
        }

    @property
    def distilled(self) -> str | None:
        """How the base is distilled to few steps, by names and titles."""
        return self.given[0].distilled

    @property
    def tokenizers(self) -> Path | None:
        """A folder that holds both tokenizers, where one was given."""
        return next((each.tokenizers for each in self.given if each.tokenizers), None)


@dataclass(frozen=True, kw_only=True)
class Stead:
    """A part that may be taken from elsewhere: its keys, and the option that names where."""

    name: str
    option: str
    prefixes: tuple[str, ...]
    but: tuple[str, ...] = ()

    def has(self, key: str) -> bool:
        """Whether a key is of this part."""
        return key.startswith(self.prefixes) and not key.startswith(self.but)


VAE = Stead(
    name="autoencoder",
    option="--vae",
    prefixes=(AUTOENCODER, HUB_AUTOENCODER),
    but=(DEGRADED_ENCODER, HUB_DEGRADED_ENCODER),
)
TEXT = Stead(name="text tower", option="--text", prefixes=(CLIP_L, CLIP_G, HUB_CLIP_L, HUB_CLIP_G))


def gather(
    sdxl: Path | str,
    supir: Path | str | None = None,
    *,
    vae: Path | str | None = None,
    text: Path | str | None = None,
    mix: tuple[Path | str, float] | None = None,
    prediction_type: str | None = None,
) -> Gathered:
    """Open what was named.

    Args:
        sdxl: an SDXL single file or diffusers folder, or a model folder of ours.
        supir: a published SUPIR file, whose keys override; None where `sdxl` has its parts.
        vae: a file or folder whose autoencoder is taken instead of the base's.
        text: a folder or an SDXL file whose text towers are taken instead of the base's.
        mix: another SUPIR file, and its share from 0 to 1 of the weights that SUPIR adds.
        prediction_type: ``epsilon`` or ``v_prediction``; None takes what the files say.

    Raises:
        OptionError: `prediction_type` is none of those, the share is out of range, or there is nothing to mix with.
        UnsafeCheckpointError: a file could run code when read.
        WeightsError: a file cannot be read, or is of another kind than its place needs.
    """
    if prediction_type not in (None, *PREDICTIONS):
        raise OptionError(f"prediction_type is {prediction_type!r}; it must be one of {', '.join(PREDICTIONS)}")
    base = open_given(sdxl)
    refuse_other_kinds(base.source.shapes, str(sdxl))
    instead = [
        (stead, _part(open_given(path), stead)) for stead, path in ((VAE, vae), (TEXT, text)) if path is not None
    ]
    scaling = base.traits.scaling_factor
    for stead, part in instead:
        if stead is VAE and not same_latents(scaling, part.traits.scaling_factor):
            raise WeightsError(
                f"{part.path}: the autoencoder of another model: it multiplies latents by {part.traits.scaling_factor},"
                f" the base by {scaling or SDXL_SCALING}"
            )
    whole = [base] if supir is None else [base, _mixed(_supir(open_given(supir)), mix)]
    if mix is not None and supir is None:
        raise OptionError(f"mix is {mix[0]}, and there is no SUPIR file to mix it with; give both")
    steads = [stead for stead, _ in instead]
    sources = [_without(each.source, steads) for each in whole]
    given = (whole[0], *(part for _, part in instead), *whole[1:])
    others = () if mix is None else (replace(open_given(mix[0]), share=mix[1]),)
    coder = next((part for stead, part in instead if stead is VAE), base)
    replaced = coder is base and supir is not None and any(map(VAE.has, whole[-1].source.shapes))
    dims = {name: dim for each in given for name, dim in each.head_dims.items()}
    return Gathered(
        source=Merged([sources[0], *(part.source for _, part in instead), *sources[1:]]),
        given=(*given, *others),
        head_dims=HeadDims(**dims),
        traits=replace(
            base.traits,
            prediction_type=prediction_type or base.traits.prediction_type,
            force_upcast=None if replaced else coder.traits.force_upcast,
        ),
    )


def open_given(path: Path | str) -> Opened:
    """Open a file or folder: names as `supir.weights.layout` knows them, the scales of 8-bit weights multiplied in."""
    path = Path(path)
    if path.is_dir():
        opened = open_folder(path)
    else:
        file, files = open_file(path)
        opened = Opened(path=path, source=file, files=files)
    source = with_scales(_under_known_names(opened.source))
    traits = opened.traits
    titles: tuple[str, ...] = ()
    if isinstance(opened.source, SafetensorsFile):
        said = opened.source.metadata
        titles = tuple(said[key] for key in TITLES if key in said)
        if said.get("modelspec.prediction_type") == "v":
            traits = Traits(prediction_type="v_prediction")
    return replace(opened, source=source, traits=traits, titles=titles)


def _under_known_names(source: TensorSource) -> TensorSource:
    """The same tensors, without what trainers put around their names, and behind the component of a file of one."""
    names = {WRAPPER.sub("", key): key for key in source.shapes}
    for beginning, off, before in ALONE:
        if any(key.startswith(beginning) for key in names):
            names = {before + key.removeprefix(off): old for key, old in names.items()}
            break
    unchanged = all(new == old for new, old in names.items()) or len(names) < len(source.shapes)
    return source if unchanged else Renamed(source, names)


def _part(given: Opened, stead: Stead) -> Opened:
    """The tensors of one part alone, and what is said of it."""
    keys = [key for key in given.source.shapes if stead.has(key)]
    if not keys:
        refuse_other_kinds(given.source.shapes, str(given.path))
        raise WeightsError(f"{given.path}: holds no {stead.name} of SDXL, which {stead.option} needs")
    dims = {name: dim for name, dim in given.head_dims.items() if stead is TEXT and name.startswith("text")}
    return replace(
        given,
        source=Renamed(given.source, {key: key for key in keys}),
        head_dims=dims,
        tokenizers=given.tokenizers if stead is TEXT else None,
    )


def _supir(given: Opened) -> Opened:
    """A file that has a part which SUPIR adds, or the SDXL file where the two were named the other way round."""
    refuse_other_kinds(given.source.shapes, str(given.path))
    if not is_supir(given.source.shapes) and not has_unet(given.source.shapes):
        raise WeightsError(
            f"{given.path}: holds none of the parts that SUPIR adds (adaptor, connectors, degraded encoder); give the"
            " published SUPIR file"
        )
    return given


def _mixed(given: Opened, mix: tuple[Path | str, float] | None) -> Opened:
    """With so much of another SUPIR file."""
    if mix is None:
        return given
    path, share = mix
    if not 0 <= share <= 1:
        raise OptionError(f"mix has a share of {share:g}; it must be from 0, nothing of {path}, to 1, nothing else")
    other = _supir(open_given(path))
    both = f"{given.path.name} and {other.path.name}"
    return replace(given, source=Mixed(given.source, other.source, share, both))


def _without(source: TensorSource, steads: Sequence[Stead]) -> TensorSource:
    """A source without the parts that are taken from elsewhere."""
    if not steads:
        return source
    return Renamed(source, {key: key for key in source.shapes if not any(stead.has(key) for stead in steads)})

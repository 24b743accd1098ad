"""Model folders: where the bundled one is, and what makes a folder fit to load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supir.errors import KeyMismatchError, WeightsError
from supir.files import strangers
from supir.options import NetworkOptions
from supir.weights.catalog import PARTS, REPORT_NAME

if TYPE_CHECKING:
    import torch

STORED = ("unet", "adaptor")
"""The components that every step runs, nearly all of the weights; the others stay as they are."""
BUNDLED_MODEL = Path(__file__).parents[1] / "assets" / "model"
INDEX = "model_index.json"
TRUSTED_LIBRARIES = frozenset(
    (
        "diffusers",
        "transformers",
        *(f"supir.models.{name}" for name in ("unet", "adaptor", "autoencoder", "thin_autoencoder")),
    )
)
"""Where the classes of a model folder may come from."""

OPENER = "pipeline.py"
OPENER_TEXT = '''"""Lets diffusers open this folder where supir is installed; supir itself does not run it.

DiffusionPipeline.from_pretrained(FOLDER, custom_pipeline=FOLDER, trust_remote_code=True)
"""

from supir.pipeline import SupirPipeline

__all__ = ["SupirPipeline"]
'''
"""A file that `DiffusionPipeline` looks for where a folder is its own custom pipeline."""

_MODEL_FILES = (
    INDEX, OPENER, REPORT_NAME, PARTS, "MODEL_CARD.md", "*/config.json", "*/*.safetensors",
    "*/*.safetensors.index.json", "tokenizer*/*",
)  # fmt: skip
"""What we write into a model folder."""


def check_replaceable(folder: Path, pipeline: str) -> None:
    """Refuse to take away a folder in which lies something that we did not write.

    Raises:
        WeightsError: it is a file, no model folder of that pipeline, or holds other files, which are named.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir():
        raise WeightsError(f"{folder} is a file; give a folder")
    try:
        read_model_index(folder, pipeline)
    except WeightsError as error:
        raise WeightsError(
            f"{folder} is not a model folder of ours, so it is not replaced; give another folder"
        ) from error
    others = strangers(folder, _MODEL_FILES)
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise WeightsError(
            f"{folder} also holds {others[0]}{more}, which is not part of a model, so it is not replaced; move that"
            " away, or give another folder"
        )


def check_model_index(folder: Path, pipeline: str) -> dict[str, Any]:
    """Refuse a folder that is none of ours, or whose index names other libraries; import those it needs; the index."""
    index = read_model_index(folder, pipeline)
    for name, entry in index.items():
        library = entry[0] if isinstance(entry, list) and entry else None
        if isinstance(library, str) and library not in TRUSTED_LIBRARIES:
            raise WeightsError(
                f"{folder / INDEX} wants {name} from {library!r}, which is not one of"
                f" {', '.join(sorted(TRUSTED_LIBRARIES))}"
            )
        if isinstance(library, str):
            import_module(library)  # diffusers loads from modules of its own and from those that are imported already
    return index


def read_model_index(folder: Path, pipeline: str) -> dict[str, Any]:
    """What a model folder says of itself: its components, and its presets; no weights are read.

    Raises:
        WeightsError: it is no folder of that pipeline.
    """
    index = folder / INDEX
    if not index.is_file():
        raise WeightsError(
            f"{folder} is not a model folder: it has no model_index.json. Make one with 'supir convert'."
        )
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{index} is not valid JSON: {error}") from error
    if not isinstance(entries, dict) or entries.get("_class_name") != pipeline:
        raise WeightsError(f"{index} does not describe a {pipeline}. Make a model folder with 'supir convert'.")
    return entries


def borne_dtypes(folder: Path, index: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The arithmetic that a model's networks bear, as its folder's ``dtypes`` say, preferred ones first; None is any.

    Raises:
        WeightsError: it names something else.
    """
    from supir.weights.device import DTYPES

    said = index.get("dtypes")
    if said is None:
        return None
    # Words rather than a list: that would look like a component, of which an index names library and class.
    names = tuple(map(str.strip, said.split(","))) if isinstance(said, str) else ()
    if not names or not set(names) <= DTYPES.keys():
        raise WeightsError(f"{folder / INDEX}: dtypes is {said!r}; it must be some of {', '.join(DTYPES)}, with commas")
    return names


def dtypes_of(
    folder: Path, index: Mapping[str, Any], networks: NetworkOptions, kind: str
) -> tuple[torch.dtype, torch.dtype]:
    """What a model's networks, and what its autoencoder, calculate in on a kind of device, which need not be here.

    Raises:
        OptionError: the device or the model does not bear what is asked for.
        WeightsError: the folder says nonsense.
    """
    from supir.weights.device import choose_dtype, choose_vae_dtype

    borne = borne_dtypes(folder, index)
    dtype = choose_dtype(networks.dtype, kind, borne)
    overflows = _config(folder / "autoencoder").get("force_upcast", True)
    return dtype, choose_vae_dtype(networks.vae_dtype, dtype, kind, borne, overflows=overflows)


def _config(component: Path) -> dict[str, Any]:
    try:
        found = json.loads((component / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # whoever loads the component says what is wrong
    return found if isinstance(found, dict) else {}


def check_complete(folder: Path, components: Mapping[str, Any]) -> None:
    """Diffusers leaves weights that a file lacks on the meta device, where they fail later and unclearly."""
    import torch

    for name, component in components.items():
        if isinstance(component, torch.nn.Module):
            missing = [key for key, weight in component.named_parameters() if weight.is_meta]
            if missing:
                raise KeyMismatchError(
                    f"{folder / name} lacks {len(missing)} weights, such as {', '.join(missing[:3])}. Its files belong "
                    "to another configuration or version; make the folder again with 'supir convert'."
                )

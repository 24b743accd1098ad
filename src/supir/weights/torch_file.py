"""Files of torch.save, read by torch's reader of tensors alone: what could run code is refused, and nothing is run."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supir.errors import UnsafeCheckpointError, WeightsError

NESTS = ("state_dict", "module", "model_state_dict", "model", "params_ema", "params", "weights", "ema")
"""Where trainers put the weights in what they save: Lightning, DeepSpeed, plain loops, BasicSR."""
_MAX_DEPTH = 3


def load_torch_file(path: Path, *, zipped: bool) -> dict[str, Tensor]:
    """The tensors of a torch file, on the CPU; memory-mapped where the file is of the zip kind.

    Raises:
        UnsafeCheckpointError: it holds pickled objects other than tensors and numbers.
        WeightsError: it is damaged, truncated, another kind of archive, or holds no tensors.
    """
    if zipped:
        _check_archive(path)
    try:
        with torch.serialization.safe_globals(_numbers()):
            content = torch.load(path, mmap=zipped, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeCheckpointError(
            f"{path}: holds pickled objects besides tensors{_which(error)}, which could run code when read. It was not"
            " read. Use a .safetensors file, or one that holds the state_dict alone."
        ) from error
    except Exception as error:  # damage reaches torch's reader as any kind of error
        raise WeightsError(f"{path}: a damaged or truncated torch file ({_short(error)}); fetch it again") from error
    tensors = _tensors(content)
    if not isinstance(content, dict) or tensors is None:
        raise WeightsError(f"{path}: holds {type(content).__name__}, not a dictionary of named tensors")
    if not tensors:
        raise WeightsError(
            f"{path}: holds no tensors, but {', '.join(map(repr, list(content)[:5])) or 'nothing'}; give the file with"
            " the model's state_dict"
        )
    return tensors


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"{path}: a damaged or truncated torch file ({_short(error)}); fetch it again") from error
    if any(name.endswith("constants.pkl") for name in names):
        raise UnsafeCheckpointError(
            f"{path}: a TorchScript program, which is code. It was not read; give its state_dict."
        )
    if not any(name.endswith("data.pkl") for name in names):
        shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        raise WeightsError(
            f"{path}: a zip archive, no weights file: it holds {shown}. Unpack it and give what is in it."
        )


def _tensors(content: Any) -> dict[str, Tensor] | None:
    """The named tensors of what was saved, at most three names deep; None where it is no dictionary of names."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
            return None
        nest = next((name for name in NESTS if isinstance(content.get(name), Mapping) and content[name]), None)
        if nest is None or any(isinstance(value, Tensor) and "." in key for key, value in content.items()):
            break
        content = content[nest]
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _numbers() -> list[Any]:
    """NumPy's numbers, which trainers leave beside the weights: plain data, made by these few functions alone."""
    import numpy as np

    core = import_module("numpy._core.multiarray")
    kinds = {type(np.dtype(kind)) for kind in "?bhilqBHILQefd"}
    return [np.dtype, *kinds, core.scalar, (core.scalar, "numpy.core.multiarray.scalar")]


def _which(error: Exception) -> str:
    """The name of what was refused, as torch's message has it."""
    text = str(error)
    for mark in ("GLOBAL ", "Unsupported global: ", "Unsupported class "):
        if mark in text:
            return f" ({text.split(mark, 1)[1].split()[0].strip('.,:')})"
    return ""


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

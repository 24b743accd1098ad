"""Weights files, opened without executing anything and read one tensor at a time.

`open_checkpoint` decides by content, not by suffix (`supir.weights.formats`): safetensors by its header, torch files by
`torch.load` with `weights_only=True`, memory-mapped. A file that could run code when read is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from supir.errors import UnsafeCheckpointError, WeightsError
from supir.weights.formats import format_of
from supir.weights.safetensors_file import SafetensorsFile
from supir.weights.torch_file import load_torch_file

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Types as safetensors calls them; torch's own word for the others."""


class TensorSource(Protocol):
    """Named tensors, of which shapes and types are known without reading and each is read when asked for.

    Types are called as in safetensors: ``F16``, ``I64``.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]

    def tensor(self, key: str) -> Tensor:
        """The tensor `key`, on the CPU; it may share memory with the source and is not to be written to."""
        ...


class StateDict:
    """A dictionary of tensors as a source."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.shapes: Mapping[str, tuple[int, ...]] = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        self.dtypes: Mapping[str, str] = {
            key: _NAMES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch.")) for key, tensor in tensors.items()
        }

    def tensor(self, key: str) -> Tensor:
        """The tensor `key`."""
        return self._tensors[key]


class Merged:
    """Several sources as one; where two have a key, the later one counts."""

    def __init__(self, sources: Sequence[TensorSource]) -> None:
        self._owner = {key: source for source in sources for key in source.shapes}
        self.shapes: Mapping[str, tuple[int, ...]] = {key: owner.shapes[key] for key, owner in self._owner.items()}
        self.dtypes: Mapping[str, str] = {key: owner.dtypes[key] for key, owner in self._owner.items()}
        self.num_overridden = sum(len(source.shapes) for source in sources) - len(self.shapes)

    def tensor(self, key: str) -> Tensor:
        """The tensor `key` of the last source that has it."""
        return self._owner[key].tensor(key)


class Renamed:
    """A source under other names; what is not named is not there."""

    def __init__(self, source: TensorSource, names: Mapping[str, str]) -> None:
        """``names``: the new name of each tensor, and its name in the source."""
        self._source, self._names = source, names
        self.shapes: Mapping[str, tuple[int, ...]] = {new: source.shapes[old] for new, old in names.items()}
        self.dtypes: Mapping[str, str] = {new: source.dtypes[old] for new, old in names.items()}

    def tensor(self, key: str) -> Tensor:
        """The tensor of the new name `key`."""
        return self._source.tensor(self._names[key])


def open_checkpoint(path: Path | str) -> TensorSource:
    """Open a weights file: safetensors, a torch file of tensors alone as trainers nest them, or the index of shards.

    Raises:
        UnsafeCheckpointError: the file holds pickled objects other than tensors, or is a pickle named .safetensors.
        WeightsError: the file is missing, damaged, truncated or of another kind.
    """
    path = Path(path)
    if path.name.endswith(".json") and path.is_file():
        return open_shards(path)
    kind = format_of(path)
    if kind == "safetensors":
        return SafetensorsFile(path)
    if path.suffix == ".safetensors":
        raise UnsafeCheckpointError(
            f"{path}: named .safetensors, but it is a pickle, which could run code when read. It was not read."
            " Get the file from its publisher again; rename it to .ckpt only if you know why it is so."
        )
    return StateDict(load_torch_file(path, zipped=kind == "zip"))


def open_shards(index: Path) -> TensorSource:
    """The files of a sharded model, by its index: each key from the file that the index names for it.

    Raises:
        WeightsError: the index is none, a file of it is missing or outside of its folder, or lacks a key.
    """
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{index}: not the index of a sharded model: it has no weight_map") from error
    strangers = [name for name in files if not isinstance(name, str) or Path(name).name != name or "\\" in name]
    if strangers:
        raise WeightsError(f"{index}: names files outside of its folder, such as {strangers[0]!r}; they are not read")
    absent = [name for name in files if not (index.parent / name).is_file()]
    if absent:
        raise WeightsError(
            f"{index.parent}: lacks {len(absent)} of its {len(files)} files, such as {absent[0]}; fetch them all"
        )
    opened = {name: open_checkpoint(index.parent / name) for name in files}
    lacking = [key for key, name in places.items() if key not in opened[name].shapes]
    if lacking:
        raise WeightsError(
            f"{index.parent / places[lacking[0]]}: lacks {lacking[0]}, which {index.name} puts in it; fetch both again"
        )
    parts = [
        Renamed(file, {key: key for key in file.shapes if places.get(key) == name}) for name, file in opened.items()
    ]
    return Merged(parts)

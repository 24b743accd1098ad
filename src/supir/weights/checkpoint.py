"""Weights files, opened without executing anything and read one tensor at a time.

`open_checkpoint` decides by content, not by suffix (`supir.weights.formats`): safetensors by its header, torch files by
`torch.load` with `weights_only=True`, memory-mapped. A file that could run code when read is refused.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from supir.errors import UnsafeCheckpointError, WeightsError
from supir.weights.formats import format_of
from supir.weights.gguf_files import GgufFile

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


class SafetensorsFile:
    """A .safetensors file as a source; ``metadata`` are the texts that its writer put in.

    The library holds every number of the header against the file before anything in it is believed.

    Raises:
        WeightsError: the header is none, or its tensors overlap, leave gaps, or do not end with the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Read, not mapped: pages of a mapped file count as memory of this process beside what is made of them.
            self._file = cast(Any, safe_open(path, framework="pt", backend="pread"))
        except (SafetensorError, OSError) as error:
            reason, advice = str(error)[:200], "Fetch it again, or give another file."
            if unknown := re.search("unknown variant `(.*?)`", reason):
                reason = f"a type {unknown[1]!r} that the format does not have"
                advice = "Quantised files of other programs cannot be read; give one with 16 or 32 bits a weight."
            raise WeightsError(f"{path}: a damaged or truncated safetensors file: {reason}. {advice}") from error
        self.metadata: Mapping[str, str] = self._file.metadata() or {}
        slices = {key: self._file.get_slice(key) for key in self._file.keys()}  # noqa: SIM118  (no mapping)
        self.shapes: Mapping[str, tuple[int, ...]] = {key: tuple(part.get_shape()) for key, part in slices.items()}
        self.dtypes: Mapping[str, str] = {key: part.get_dtype() for key, part in slices.items()}

    def tensor(self, key: str) -> Tensor:
        """The tensor `key`.

        Raises:
            WeightsError: the file cannot be read any more, or torch has no such type.
        """
        try:
            tensor: Tensor = self._file.get_tensor(key)
        except (SafetensorError, OSError, AttributeError) as error:
            raise WeightsError(f"{self._path}: {key} cannot be read ({error}); fetch the file again") from error
        return tensor


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


class Mixed:
    """Two sources of the same tensors, of each so much of the second: floating numbers as weights, others the first's.

    Raises:
        WeightsError: one has tensors that the other has not, or of other shapes.
    """

    def __init__(self, first: TensorSource, second: TensorSource, share: float, what: str) -> None:
        keys = first.shapes.keys() ^ second.shapes.keys()
        keys |= {key for key in first.shapes.keys() & second.shapes.keys() if first.shapes[key] != second.shapes[key]}
        if keys:
            raise WeightsError(f"{what}: cannot be mixed: {len(keys)} weights differ by name or shape, as {min(keys)}")
        self._first, self._second, self._share = first, second, share
        self.shapes, self.dtypes = first.shapes, first.dtypes

    def tensor(self, key: str) -> Tensor:
        """The tensor `key`, mixed in float32."""
        first = self._first.tensor(key)
        if not first.is_floating_point():
            return first
        return torch.lerp(first.float(), self._second.tensor(key).float(), self._share)


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
    """Open a weights file: safetensors, a torch file of tensors alone as trainers nest them, GGUF, an index of shards.

    Raises:
        UnsafeCheckpointError: the file holds pickled objects other than tensors, or is a pickle named .safetensors.
        WeightsError: the file is missing, damaged, truncated or of another kind.
        MissingExtraError: it is a GGUF file, and gguf is not installed.
    """
    path = Path(path)
    if path.name.endswith(".json") and path.is_file():
        return open_shards(path)
    kind = format_of(path)
    if kind == "safetensors":
        return SafetensorsFile(path)
    if kind == "gguf":
        return GgufFile(path)
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


_SCALE = re.compile(r"(.*\.)(?:scale_weight|weight_scale)")
_BESIDE = re.compile(r"(.*\.)?(?:scale_input|input_scale|scaled_fp8|comfy_quant)")
_FLOATS = ("F8_E4M3", "F8_E5M2", "F16", "BF16", "F32")


class Scaled:
    """8-bit weights that have scales beside them, as ComfyUI writes them, multiplied by these in float32.

    ``X.weight`` in float8 with ``X.scale_weight`` or ``X.weight_scale``, one number or one for each output channel,
    stands for their product. Scales of inputs belong to a way of multiplying, not to the weights, and are left out.
    """

    def __init__(self, source: TensorSource, scales: Mapping[str, str]) -> None:
        """``scales``: the key of each weight that has one, and that of its scale."""
        self._source, self._scales = source, scales
        used = set(scales.values())
        kept = [key for key in source.shapes if key not in used and not _BESIDE.fullmatch(key)]
        self.shapes: Mapping[str, tuple[int, ...]] = {key: source.shapes[key] for key in kept}
        self.dtypes: Mapping[str, str] = {key: "F32" if key in scales else source.dtypes[key] for key in kept}

    def tensor(self, key: str) -> Tensor:
        """The tensor `key`, times its scale."""
        tensor = self._source.tensor(key)
        if key not in self._scales:
            return tensor
        scale = self._source.tensor(self._scales[key]).float()
        return tensor.float() * scale.reshape(-1, *[1] * (tensor.ndim - 1))


def with_scales(source: TensorSource) -> TensorSource:
    """The source with the scales multiplied in that can be; others stay beside their weights, and are refused later."""
    scales = {}
    for key in source.shapes:
        match = _SCALE.fullmatch(key)
        weight = f"{match[1]}weight" if match else ""
        if weight in source.shapes and _fits(source, weight, key):
            scales[weight] = key
    if not scales and not any(_BESIDE.fullmatch(key) for key in source.shapes):
        return source
    all_scaled = sum(_SCALE.fullmatch(key) is not None for key in source.shapes) == len(scales)
    return Scaled(source, scales) if all_scaled else source


def _fits(source: TensorSource, weight: str, scale: str) -> bool:
    """Whether there is one scale, or one for each output channel, of a weight that it can be multiplied into."""
    shape, channels = source.shapes[scale], source.shapes[weight][:1]
    single = all(size == 1 for size in shape)
    by_channel = shape[:1] == channels and all(size == 1 for size in shape[1:])
    return source.dtypes[weight] in _FLOATS and bool(channels) and (single or by_channel)

"""Weights files, opened without executing anything and read one tensor at a time.

`open_checkpoint` decides by content, not by suffix: safetensors by its header, torch files by `torch.load` with
`weights_only=True`, memory-mapped. A file that could run code when read is refused.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from supir.errors import UnsafeCheckpointError, WeightsError

MAX_HEADER_BYTES = 100_000_000
"""What the safetensors format allows its header; a larger claim is damage or an attack."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


class TensorSource(Protocol):
    """Named tensors, of which shapes are known without reading and each is read when asked for."""

    shapes: Mapping[str, tuple[int, ...]]

    def tensor(self, key: str) -> Tensor:
        """The tensor `key`, on the CPU; it may share memory with the source and is not to be written to."""
        ...


class StateDict:
    """A dictionary of tensors as a source."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.shapes: Mapping[str, tuple[int, ...]] = {key: tuple(tensor.shape) for key, tensor in tensors.items()}

    def tensor(self, key: str) -> Tensor:
        """The tensor `key`."""
        return self._tensors[key]


class SafetensorsFile:
    """A .safetensors file as a source."""

    def __init__(self, path: Path) -> None:
        _check_header(path)
        try:
            # Read, not mapped: pages of a mapped file count as memory of this process beside what is made of them.
            self._file = cast(Any, safe_open(path, framework="pt", backend="pread"))
            self.shapes: Mapping[str, tuple[int, ...]] = {
                key: tuple(self._file.get_slice(key).get_shape())
                for key in self._file.keys()  # noqa: SIM118
            }
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path}: a damaged or truncated safetensors file ({error}); fetch it again") from error

    def tensor(self, key: str) -> Tensor:
        """The tensor `key`."""
        tensor: Tensor = self._file.get_tensor(key)
        return tensor


class Merged:
    """Several sources as one; where two have a key, the later one counts."""

    def __init__(self, sources: Sequence[TensorSource]) -> None:
        self._owner = {key: source for source in sources for key in source.shapes}
        self.shapes: Mapping[str, tuple[int, ...]] = {key: owner.shapes[key] for key, owner in self._owner.items()}
        self.num_overridden = sum(len(source.shapes) for source in sources) - len(self.shapes)

    def tensor(self, key: str) -> Tensor:
        """The tensor `key` of the last source that has it."""
        return self._owner[key].tensor(key)


def open_checkpoint(path: Path | str) -> TensorSource:
    """Open a weights file: safetensors, or a torch file of tensors alone, plain or under a key `state_dict`.

    Raises:
        UnsafeCheckpointError: the file holds pickled objects other than tensors, or is a pickle named .safetensors.
        WeightsError: the file is missing, damaged, truncated or of no known kind.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            beginning = file.read(16)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); give a .safetensors or .ckpt file") from error
    is_torch_file = beginning.startswith((b"PK\x03\x04", b"\x80"))
    if path.suffix == ".safetensors" and is_torch_file:
        # A header length beginning with these bytes would be larger than any allowed header, so nothing valid is lost.
        raise UnsafeCheckpointError(
            f"{path}: named .safetensors, but it is a pickle, which could run code when read. It was not read."
            " Get the file from its publisher again; rename it to .ckpt only if you know why it is so."
        )
    if is_torch_file:
        return StateDict(_load_torch_file(path))
    return SafetensorsFile(path)


def _check_header(path: Path) -> None:
    """Refuse what cannot be safetensors, with the reason, before the library maps anything."""
    size = path.stat().st_size
    with path.open("rb") as file:
        claimed = int.from_bytes(file.read(8), "little")
        if size < 8 or claimed > min(size - 8, MAX_HEADER_BYTES):
            raise WeightsError(
                f"{path}: not a whole safetensors file: it is {size} bytes long and its first 8 bytes claim a header of"
                f" {claimed} bytes ({MAX_HEADER_BYTES} are allowed). Fetch it again, or give another file."
            )
        try:
            header = json.loads(file.read(claimed))
        except ValueError as error:
            raise WeightsError(f"{path}: not a safetensors file: its header is no JSON. Give another file.") from error
        known = isinstance(header, dict) and all(
            isinstance(entry, dict) and (key == "__metadata__" or entry.get("dtype") in DTYPES)
            for key, entry in header.items()
        )
        if not known:
            raise WeightsError(
                f"{path}: its safetensors header does not describe tensors of the types that are read:"
                f" {', '.join(DTYPES)}. Quantised files cannot be converted; give the original one."
            )


def _load_torch_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch file; memory-mapped where the file is of the zip kind."""
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        try:
            content = torch.load(path, mmap=True, **options)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            content = torch.load(path, **options)  # files of torch before 1.6 cannot be mapped
    except pickle.UnpicklingError as error:
        raise UnsafeCheckpointError(
            f"{path}: holds pickled objects besides tensors, which could run code when read. It was not read. Use a"
            " .safetensors file, or one that holds the state_dict alone."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        raise WeightsError(f"{path}: a damaged or truncated torch file ({error}); fetch it again") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise WeightsError(f"{path}: holds {type(content).__name__}, not a dictionary of named tensors")
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors; give the file with the model's state_dict")
    return tensors

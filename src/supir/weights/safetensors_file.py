"""A safetensors file as a source: its header is held against the file before anything in it is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from torch import Tensor

from supir.errors import WeightsError

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
"""The types that the format knows, and the bits of one value."""


@dataclass(frozen=True)
class Entry:
    """What a header says of one tensor; ``begin`` and ``end`` count bytes from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """A .safetensors file as a source; ``metadata`` are the texts that its writer put in."""

    def __init__(self, path: Path) -> None:
        entries, self.metadata = read_header(path)
        self.shapes: Mapping[str, tuple[int, ...]] = {key: entry.shape for key, entry in entries.items()}
        self.dtypes: Mapping[str, str] = {key: entry.dtype for key, entry in entries.items()}
        try:
            # Read, not mapped: pages of a mapped file count as memory of this process beside what is made of them.
            self._file = cast(Any, safe_open(path, framework="pt", backend="pread"))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path}: a damaged or truncated safetensors file ({error}); fetch it again") from error
        self._path = path

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


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors and the metadata of a safetensors file; every number in them was held against the file's size.

    Raises:
        WeightsError: the header is no JSON of that kind, its tensors overlap, leave gaps, or do not end with the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length), object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise WeightsError(
                f"{path}: not a safetensors file, or a damaged one: its header is no JSON ({error}). Fetch it again,"
                " or give another file."
            ) from error
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise WeightsError(f"{path}: a damaged safetensors file: its metadata are no texts by name. Fetch it again.")
    entries = {key: _entry(path, key, described) for key, described in header.items()}
    _check_places(path, entries, size - 8 - length)
    return entries, {key: value for key, value in metadata.items() if isinstance(value, str)}


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _entry(path: Path, key: str, described: Any) -> Entry:
    """One tensor's entry, of which the parts agree with one another."""
    try:
        dtype, shape, (begin, end) = described["dtype"], tuple(described["shape"]), described["data_offsets"]
        sound = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise WeightsError(
            f"{path}: a damaged safetensors file: its header does not describe tensors, but {key!r} as"
            f" {str(described)[:80]}. Fetch it again, or give another file."
        )
    if dtype not in BITS:
        raise WeightsError(
            f"{path}: {key} is of type {dtype!r}, which the safetensors format does not have. Quantised files of other"
            " programs cannot be read; give the original with 16 or 32 bits a weight."
        )
    if prod(shape) * BITS[dtype] != (end - begin) * 8:
        raise WeightsError(
            f"{path}: a damaged safetensors file: {key} of shape {shape} and type {dtype} claims {end - begin} bytes."
            " Fetch it again."
        )
    return Entry(dtype, shape, begin, end)


def _check_places(path: Path, entries: Mapping[str, Entry], available: int) -> None:
    """One tensor after another, without gap or overlap, to the very end of the file."""
    reached = 0
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != reached:
            fault = "lies over another tensor" if entry.begin < reached else "lies behind a gap"
            raise WeightsError(f"{path}: a damaged safetensors file: {key} {fault}. Fetch it again.")
        reached = entry.end
    if reached != available:
        kind = "a damaged or truncated" if reached > available else "a damaged"
        raise WeightsError(
            f"{path}: {kind} safetensors file: its tensors take {reached:,} bytes, and {available:,} are there. Fetch"
            " it again."
        )

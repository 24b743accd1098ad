"""Whole states of a run on disk: complete or not at all, checked when read, the last two and the best kept.

    RUN/checkpoints/step_00000400/   weights.safetensors  ema.safetensors  optimiser.pt  state.json
    RUN/best/step_00000200/          ema.safetensors  state.json

A state is written to a folder of another name, flushed to the disk and renamed. ``state.json`` holds the checksums of
the files beside it, so a damaged state is found out and the one before it taken.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

logger = logging.getLogger(__name__)

KEPT = 2
_UNFINISHED = ".unfinished-"
_BLOCK = 1 << 20


@dataclass(kw_only=True)
class State:
    """Everything a run needs to go on: what learns, its average, the optimiser's moments, and counters."""

    weights: Mapping[str, Tensor]
    """What learns, and buffers, by ``component.name``."""
    ema: Mapping[str, Tensor]
    """Averages of what learns."""
    optimiser: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    """Step, seconds trained, skipped steps, and the like; JSON."""


class DamagedStateError(Exception):
    """A stored state is incomplete or was changed; never leaves this room."""


def save(run: Path, state: State) -> Path:
    """Store the state of its step and remove all but the last ``KEPT``; returns its folder."""
    folder = _write(run / "checkpoints", state, whole=True)
    for old in stored(run / "checkpoints")[:-KEPT]:
        shutil.rmtree(old)
    return folder


def save_best(run: Path, state: State) -> Path:
    """Store the averaged weights as the best so far, in place of those before; returns their folder."""
    folder = _write(run / "best", state, whole=False)
    for old in stored(run / "best"):
        if old != folder:
            shutil.rmtree(old)
    return folder


def load_latest(run: Path) -> State | None:
    """The newest state that is whole, or None where there is none; a damaged one is passed over with a warning."""
    for folder in reversed(stored(run / "checkpoints")):
        try:
            return _read(folder, whole=True)
        except DamagedStateError as error:
            warnings.warn(f"{folder} is damaged ({error}); the state before it is taken", stacklevel=2)
    return None


def load_averages(run: Path, *, best: bool = False) -> State | None:
    """Averaged weights and buffers of the newest state, or of the best one; None where there is none."""
    if not best:
        return load_latest(run)
    found = stored(run / "best")
    return _read(found[-1], whole=False) if found else None


def stored(folder: Path) -> list[Path]:
    """The states below a folder, oldest first; half-written ones are removed."""
    if not folder.is_dir():
        return []
    for unfinished in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    return sorted(folder.glob("step_*"))


def _write(parent: Path, state: State, *, whole: bool) -> Path:
    name = f"step_{state.numbers['step']:08d}"
    final, new = parent / name, parent / f"{_UNFINISHED}{name}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_file(_plain(state.ema), new / "ema.safetensors")
    if whole:
        save_file(_plain(state.weights), new / "weights.safetensors")
        torch.save(state.optimiser, new / "optimiser.pt")
    sums = {path.name: checksum(path) for path in sorted(new.iterdir())}
    (new / "state.json").write_text(json.dumps({"numbers": state.numbers, "checksums": sums}, indent=2) + "\n")
    for path in new.iterdir():
        _flush(path)
    _flush(new)
    if final.exists():  # a run that fell back to an earlier state comes by again
        shutil.rmtree(final)
    new.replace(final)
    _flush(parent)
    return final


def _read(folder: Path, *, whole: bool) -> State:
    try:
        record = json.loads((folder / "state.json").read_text())
        for name, known in record["checksums"].items():
            if checksum(folder / name) != known:
                raise DamagedStateError(f"{name} is not what was written")
        return State(
            weights=load_file(folder / "weights.safetensors") if whole else {},
            ema=load_file(folder / "ema.safetensors"),
            optimiser=torch.load(folder / "optimiser.pt", weights_only=True) if whole else {},
            numbers=record["numbers"],
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise DamagedStateError(str(error)) from error


def checksum(path: Path) -> str:
    """CRC-32 of a file: finds accidents, not forgeries."""
    total = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total = zlib.crc32(block, total)
    return f"{total:08x}"


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that own their memory, on the processor; safetensors refuses views and shared ones."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

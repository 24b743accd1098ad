"""Whole states of a run on disk: complete or not at all, checked when read, the last two and the best kept.

    RUN/checkpoints/step_00000400/   weights.safetensors  ema.safetensors  optimiser.pt  state.json
    RUN/best/step_00000200/          ema.safetensors  state.json

A state is written to a folder of another name, flushed to the disk and renamed. ``state.json`` holds the checksums of
the files beside it, so a damaged state is found out and the one before it taken. All tensors are stored, and read, on
the processor: a state of one machine is read on any other.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from supir.errors import StateError
from supir.files import disk_error, folder_whole, remove, sentence, sweep

logger = logging.getLogger(__name__)

KEPT = 2
ASIDE = "aside_"
"""Before the name of a state that the run has gone back behind; nothing reads or removes it."""
_OLD_UNFINISHED = ".unfinished-*"
"""Folders that a killed run of version 0.1.0 left."""
_NAME = re.compile(r"step_(\d+)")
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
    """Store the state of its step and remove all but the last ``KEPT``; returns its folder.

    States of later steps are those that could not be read when the run went on from an earlier one: they are set
    aside, so that neither are they taken for newer than this, nor is this removed in their favour.

    Raises:
        StateError: it cannot be written; those before it are as they were.
    """
    parent = run / "checkpoints"
    folder = _write(parent, state, whole=True)
    found = stored(parent)
    for later in found[found.index(folder) + 1 :]:
        aside = later.with_name(ASIDE + later.name)
        shutil.rmtree(aside, ignore_errors=True)
        later.replace(aside)
        logger.warning("%s is of a later step than the run; it is now %s and is not read", later, aside.name)
    for old in stored(parent)[:-KEPT]:
        shutil.rmtree(old)
    return folder


def save_best(run: Path, state: State) -> Path:
    """Store the averaged weights as the best so far, in place of those before; returns their folder.

    Raises:
        StateError: they cannot be written; those before are as they were.
    """
    folder = _write(run / "best", state, whole=False)
    for old in stored(run / "best"):
        if old != folder:
            shutil.rmtree(old)
    return folder


def load_latest(run: Path, *, optimiser: bool = True) -> State | None:
    """The newest state that is whole, or None where there is none; a damaged one is passed over with a warning.

    A run may be under way in its folder. ``optimiser``: read its moments too.

    Raises:
        StateError: there are states, and none can be read: going on would be to begin anew.
    """
    names = ("weights", "ema", *(("optimiser",) if optimiser else ()))
    found = stored(run / "checkpoints")
    damaged = dict[Path, DamagedStateError]()
    for folder in reversed(found):
        try:
            return _read(folder, names)
        except DamagedStateError as error:
            if folder.exists():  # else a run under way has put a newer one in its place
                damaged[folder] = error
                warnings.warn(f"{folder} is damaged ({error}); the state before it is taken", stacklevel=2)
    if stored(run / "checkpoints") != found:
        return load_latest(run, optimiser=optimiser)
    if not damaged:
        return None
    newest = next(iter(damaged))
    raise StateError(
        f"{newest} is damaged ({damaged[newest]}), and so is every state there; put one back from a copy, or move the"
        " run's folder away to begin anew"
    )


def load_averages(run: Path, *, best: bool = False) -> State | None:
    """Averaged weights and buffers of the newest state, or of the best one; None where there is none.

    Raises:
        StateError: there is one, and it cannot be read.
    """
    if not best:
        return load_latest(run, optimiser=False)
    found = stored(run / "best")
    try:
        return _read(found[-1], ("ema",)) if found else None
    except DamagedStateError as error:
        raise StateError(f"{found[-1]} is damaged ({error}); the newest state may be whole") from error


def stored(folder: Path) -> list[Path]:
    """The states below a folder, oldest first."""
    found = {path: _NAME.fullmatch(path.name) for path in (folder.iterdir() if folder.is_dir() else ())}
    return sorted((path for path, match in found.items() if match), key=lambda path: int(path.name[len("step_") :]))


def _write(parent: Path, state: State, *, whole: bool) -> Path:
    final = parent / f"step_{state.numbers['step']:08d}"
    sweep(parent)  # what a killed run left
    for old in parent.glob(_OLD_UNFINISHED):
        remove(old)
    tensors = [value for value in tree_leaves((state.ema, state.weights, state.optimiser)) if isinstance(value, Tensor)]
    with said(final, sum(tensor.nbytes for tensor in tensors)), folder_whole(final) as new:
        save_file(_plain(state.ema), new / "ema.safetensors")
        if whole:
            save_file(_plain(state.weights), new / "weights.safetensors")
            with (new / "optimiser.pt").open("wb") as stream:
                torch.save(tree_map_only(Tensor, lambda tensor: tensor.detach().cpu(), state.optimiser), stream)
        sums = {path.name: checksum(path) for path in sorted(new.iterdir())}
        record = json.dumps({"numbers": state.numbers, "checksums": sums}, indent=2) + "\n"
        (new / "state.json").write_text(record, encoding="utf-8")
    return final


@contextmanager
def said(path: Path, needed: int) -> Iterator[None]:
    """Say in words why something of ``needed`` bytes cannot be written; torch and safetensors wrap what a disk says.

    Raises:
        StateError: it cannot.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        disk = disk_error(error)
        if disk is None:
            raise StateError(f"{path}: cannot be written: {error}") from error
        raise StateError(sentence(disk, path, failed="cannot be written", needed=needed)) from error


def _read(folder: Path, names: tuple[str, ...]) -> State:
    """What is named of a state.

    Raises:
        DamagedStateError: it is not what was written.
        StateError: it is, and yet cannot be read here.
    """
    try:
        record = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        numbers = dict(record["numbers"])
        for name, known in record["checksums"].items():
            if checksum(folder / name) != known:
                raise DamagedStateError(f"{name} is not what was written")
    except PermissionError as error:
        raise StateError(f"{folder} may not be read: {error.strerror}; change its permissions") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedStateError(str(error)) from error
    try:
        parts: dict[str, Any] = {
            name: torch.load(folder / "optimiser.pt", weights_only=True, map_location="cpu")
            if name == "optimiser"
            else load_file(folder / f"{name}.safetensors", device="cpu")
            for name in names
        }
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        raise StateError(f"{folder} is whole, but cannot be read on this machine: {error}") from error
    return State(weights=parts.pop("weights", {}), numbers=numbers, **parts)


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

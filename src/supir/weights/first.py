"""Enlargers of others (ESRGAN and its like, by spandrel), which act before SUPIR does. Nothing heavy at import.

Files are read by our own readers: safetensors, or torch's reader of tensors alone; nothing in them is executed.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from supir.errors import MissingExtraError, WeightsError
from supir.weights.catalog import known_hash

if TYPE_CHECKING:
    from torch import Tensor

    from supir.tensors.tiling import Layout

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
TILE, OVERLAP = 256, 64
"""Pixels of the photo in one call, and those that neighbouring ones share: half of them is dropped on each side."""


def offered_first(folder: Path) -> dict[str, Path]:
    """The enlargers of a folder by the names under which clients may ask for them: their files', without suffix."""
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES and file.is_file()}


def first_file(name: str, folder: Path | None = None) -> Path:
    """The file that is meant: a path, or, where there is a folder, a name in it and nothing else.

    Raises:
        MissingExtraError: spandrel is not installed.
        WeightsError: there is none.
    """
    if find_spec("spandrel") is None:
        raise MissingExtraError("spandrel", "first", "another model before")
    if folder is not None:
        files = offered_first(folder)
        if name not in files:
            raise WeightsError(f"first: there is no model {name!r} here; there are: {', '.join(files) or 'none'}")
        return files[name]
    path = Path(name)
    if not path.is_file():
        what = "is a folder; name a file in it" if path.is_dir() else "there is no such file"
        raise WeightsError(f"first: {path}: {what}; it is a model of ESRGAN's kind: {', '.join(SUFFIXES)}")
    return path


def identity_of_first(name: str, folder: Path | None = None) -> Mapping[str, str]:
    """For records: the file's name and hash; nothing where none is asked for.

    Raises:
        MissingExtraError, WeightsError: as ``first_file``.
    """
    if not name:
        return {}
    path = first_file(name, folder)
    return {"first": f"{path.stem} sha256:{known_hash(path)}"}


@dataclass(frozen=True)
class First:
    """One that is open: called with (3, H, W) in [-1, 1] it gives the same ``scale`` times as large."""

    network: Any
    """spandrel's descriptor."""
    device: Any

    @property
    def scale(self) -> int:
        """Side of the result over side of what is given."""
        return int(self.network.scale)

    @property
    def weights(self) -> int:
        """Bytes of them."""
        return sum(each.nbytes for each in self.network.model.state_dict().values())

    def costly(self, height: int, width: int) -> Callable[[], Any]:
        """One call of a tile of so many pixels without any work: on the meta device, for who counts what it takes."""
        import torch

        network = copy.deepcopy(self.network.model).to("meta")
        pixels = torch.zeros(1, 3, height, width, device="meta", dtype=self.network.dtype)
        return lambda: network(pixels)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Enlarged in tiles; on the processor, whatever it was made on."""
        import torch

        from supir.tensors.tiling import tiled

        def enlarged(part: Tensor) -> Tensor:
            found: Tensor = self.network(part.to(self.device) * 0.5 + 0.5)
            return found.float().cpu()

        with torch.no_grad():
            made: Tensor = tiled(enlarged, layout(), scale=self.scale)(pixels[None])
        return made[0].clamp(0, 1) * 2 - 1


def layout() -> Layout:
    """The tiles of a photo, in its pixels."""
    from supir.tensors.tiling import blended

    return blended(TILE, OVERLAP, fade=OVERLAP // 4)


def open_first(path: Path, device: Any = "cpu") -> First:
    """Open the file of an enlarger; the last one stays open.

    Raises:
        UnsafeCheckpointError: the file holds more than tensors.
        WeightsError: it is damaged, or no enlarger of colour pictures that spandrel knows.
    """
    stat = path.stat()
    return _opened(path, stat.st_mtime_ns, str(device))


@lru_cache(maxsize=1)
def _opened(path: Path, changed: int, device: str) -> First:
    from supir.weights.checkpoint import open_checkpoint

    source = open_checkpoint(path)
    tensors = {key: source.tensor(key) for key in source.shapes}
    with _without_torchvision():
        import spandrel
    try:
        found = spandrel.ModelLoader().load_from_state_dict(spandrel.canonicalize_state_dict(tensors))
    except (spandrel.UnsupportedModelError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"first: {path}: no enlarger that spandrel knows (ESRGAN, SPAN, DAT, SwinIR, HAT ...): {reason[0][:200]}"
        ) from error
    if not isinstance(found, spandrel.ImageModelDescriptor) or (found.input_channels, found.output_channels) != (3, 3):
        raise WeightsError(f"first: {path}: {found.architecture.name}, which makes no colour picture of one")
    return First(found.eval().to(device), device)


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """spandrel's import names torchvision for two models that enlarge nothing; where it is missing, stand in for it."""
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    if "spandrel" in sys.modules or _can_be_imported(names[-1]):
        yield
        return
    before = {name: sys.modules.get(name) for name in names}
    for name in names:
        sys.modules[name] = ModuleType(name)
    stand_in: Any = sys.modules[names[-1]]
    stand_in.InterpolationMode = stand_in.rotate = stand_in.normalize = None
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def _can_be_imported(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, AttributeError, ValueError):  # a stand-in of somebody else, which has no parts or no spec
        return False

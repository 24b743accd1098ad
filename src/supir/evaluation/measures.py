"""Every measure of ``METRICS`` ready to be called, or what is missing for it: a package, or weights in a folder.

Nothing is downloaded unasked. A folder of weights, where one is given, holds what its user has put there:

    WEIGHTS/perceptual.safetensors                     lpips, lpips_vgg, dists; `supir evaluate --fetch` makes it
    WEIGHTS/openai/clip-vit-base-patch16/              clip_iqa: the model's folder on the Hugging Face hub
    WEIGHTS/maniqa.pth, WEIGHTS/musiq.pth              as pyiqa names and loads them

pyiqa is not for commercial use and is never installed by supir. Where it is there with the weights, it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supir.errors import OptionError, WeightsError
from supir.evaluation.detail import detail_balance
from supir.evaluation.distance import EfficientNetLite0Distance
from supir.evaluation.metrics import METRICS, check_pair, check_picture, haar_psi, luma, psnr, psnr_y, ssim, ssim_rgb
from supir.evaluation.niqe import niqe
from supir.image import resize
from supir.weights.perceptual import FILE, HOW, load_dists, load_lpips

__all__ = ["Measure", "open_measures"]

Measure = Callable[[Tensor, Tensor | None], float]
"""(picture, reference), each (3, H, W) in [-1, 1]; those without reference ignore the second."""


def open_measures(
    names: Iterable[str] = METRICS, weights: Path | None = None
) -> tuple[dict[str, Measure], dict[str, str]]:
    """The measures that can run here, and for each of the others why it cannot and how to get it.

    Args:
        names: of ``METRICS``.
        weights: the folder described above.

    Raises:
        OptionError: there is no such measure.
    """
    ready: dict[str, Measure] = {}
    absent: dict[str, str] = {}
    for name in names:
        if name not in METRICS:
            raise OptionError(f"unknown measure {name!r}; there are {', '.join(METRICS)}")
        side = METRICS[name].side
        plain = name if side is None else name.removesuffix(f"_{side}")
        try:
            measure = _OPENERS[plain](weights)
        except WeightsError as error:
            absent[name] = str(error)
            continue
        ready[name] = measure if side is None else _at(side, measure)
    return ready, absent


def reduced(picture: Tensor, side: int) -> Tensor:
    """(3, H, W) with its shorter side at most so long: antialiased bicubic, aspect kept to the nearest pixel."""
    height, width = picture.shape[1:]
    ratio = side / min(height, width)
    return picture if ratio >= 1 else resize(picture, round(height * ratio), round(width * ratio))


def _at(side: int, measure: Measure) -> Measure:
    return lambda picture, _: measure(reduced(picture, side), None)


def _against(function: Callable[[Tensor, Tensor], float]) -> Callable[[Path | None], Measure]:
    def measure(picture: Tensor, reference: Tensor | None) -> float:
        if reference is None:
            raise OptionError("this measure compares with an original, and none is given")
        return function(picture, reference)

    return lambda _: measure


def _torchmetrics() -> None:
    if find_spec("torchmetrics") is None:
        raise WeightsError("torchmetrics is not installed: pip install 'supir[evaluate]'")


def _planes(picture: Tensor, reference: Tensor, smallest: int) -> tuple[Tensor, Tensor]:
    check_pair(picture, reference, smallest)
    return luma(picture)[None, None], luma(reference)[None, None]


def _ms_ssim(weights: Path | None) -> Measure:
    _torchmetrics()
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as function

    def measure(picture: Tensor, reference: Tensor) -> float:
        pair = _planes(picture, reference, smallest=176)  # 11 pixels at the fifth scale
        return float(function(*pair, data_range=255.0, gaussian_kernel=True, sigma=1.5, kernel_size=11))

    return _against(measure)(weights)


def _vif(weights: Path | None) -> Measure:
    _torchmetrics()
    from torchmetrics.functional.image import visual_information_fidelity as function

    def measure(picture: Tensor, reference: Tensor) -> float:
        return float(function(*_planes(picture, reference, smallest=41), sigma_n_sq=2.0))

    return _against(measure)(weights)


def _perceptual(load: Callable[[Path], Any]) -> Callable[[Path | None], Measure]:
    def opened(weights: Path | None) -> Measure:
        if weights is None:
            raise WeightsError(f"needs {FILE} in the folder of weights (--weights); {HOW}")
        network = load(weights / FILE)
        return _against(lambda picture, reference: _score(network, picture, reference))(weights)

    return opened


def _score(network: Any, picture: Tensor, reference: Tensor) -> float:
    check_pair(picture, reference, smallest=32)
    with torch.no_grad():
        return float(network(picture[None].clamp(-1, 1), reference[None].clamp(-1, 1)))


def _clip_iqa(weights: Path | None) -> Measure:
    """How much nearer the picture is to "Good photo." than to "Bad photo." for CLIP, which prepares it as ever."""
    folder = _need(weights, "openai/clip-vit-base-patch16", "https://huggingface.co/openai/clip-vit-base-patch16")
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    words = processor(text=["Good photo.", "Bad photo."], return_tensors="pt", padding=True)

    def measure(picture: Tensor, reference: Tensor | None) -> float:
        check_picture(picture)
        pixels = picture.clamp(-1, 1).add(1).mul(127.5).round().byte()
        with torch.no_grad():
            found = model(**words, **processor(images=[pixels], return_tensors="pt"))
        return float((100 * found.image_embeds @ found.text_embeds.T).softmax(-1)[0, 0])

    return measure


def _pyiqa(name: str) -> Callable[[Path | None], Measure]:
    def opened(weights: Path | None) -> Measure:
        if find_spec("pyiqa") is None:
            raise WeightsError("pyiqa is not installed; its licence forbids commercial use: pip install pyiqa")
        file = _need(weights, f"{name}.pth", "https://huggingface.co/chaofengc/IQA-PyTorch-Weights")
        network = import_module("pyiqa").create_metric(name, pretrained_model_path=str(file), device="cpu")

        def measure(picture: Tensor, reference: Tensor | None) -> float:
            with torch.no_grad():
                return float(network(picture[None].clamp(-1, 1) / 2 + 0.5))

        return measure

    return opened


def _need(weights: Path | None, name: str, origin: str) -> Path:
    """A file or folder of the weights.

    Raises:
        WeightsError: it is not there.
    """
    if weights is None or not (weights / name).exists():
        raise WeightsError(f"needs {name} in the folder of weights (--weights); get it from {origin}")
    return weights / name


_OPENERS: Mapping[str, Callable[[Path | None], Measure]] = {
    "psnr": _against(psnr),
    "psnr_y": _against(psnr_y),
    "ssim": _against(ssim),
    "ssim_rgb": _against(ssim_rgb),
    "ms_ssim": _ms_ssim,
    "vif": _vif,
    "haar_psi": _against(haar_psi),
    "detail_balance": _against(detail_balance),
    "efficientnet_lite0_distance": lambda weights: _against(EfficientNetLite0Distance())(weights),
    "lpips": _perceptual(lambda path: load_lpips(path, "alexnet")),
    "lpips_vgg": _perceptual(lambda path: load_lpips(path, "vgg16")),
    "dists": _perceptual(load_dists),
    "niqe": lambda _: lambda picture, reference: niqe(picture),
    "clip_iqa": _clip_iqa,
    "maniqa": _pyiqa("maniqa"),
    "musiq": _pyiqa("musiq"),
}
"""By name without protocol. Each is given the folder of weights, or None."""

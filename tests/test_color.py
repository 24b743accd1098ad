from __future__ import annotations

import pytest
import skimage.color
import torch

from supir.errors import OptionError
from supir.restoration.color import WAVELET_HALO, adain_fix, fix, fixed_bands, wavelet_fix


def pictures(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(shape, generator=generator, dtype=dtype), torch.rand(
        shape, generator=generator, dtype=dtype
    ) * 0.5


def plain_low_pass(image: torch.Tensor) -> torch.Tensor:
    """Section 11 word by word: a 3x3 depthwise convolution on a replicated border."""
    row = torch.tensor([1.0, 2.0, 1.0], dtype=image.dtype)
    kernel = (row[:, None] * row / 16).expand(image.shape[1], 1, 3, 3)
    for level in range(5):
        padded = torch.nn.functional.pad(image, [2**level] * 4, mode="replicate")
        image = torch.nn.functional.conv2d(padded, kernel, dilation=2**level, groups=image.shape[1])
    return image


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2), (17, 16), (40, 65)])
def test_wavelet_is_the_plain_formula_at_any_size(size: tuple[int, int]) -> None:
    sample, style = pictures(2, 3, *size)
    expected = sample - plain_low_pass(sample) + plain_low_pass(style)
    torch.testing.assert_close(wavelet_fix(sample, style), expected, rtol=0, atol=1e-12)


def test_wavelet_in_tiles_with_the_halo_equals_the_whole() -> None:
    sample, style = pictures(1, 3, 150, 130)
    whole = wavelet_fix(sample, style)

    def tile(halo: int) -> torch.Tensor:
        window = slice(50 - halo, 90 + halo)
        part = wavelet_fix(sample[..., window, window], style[..., window, window])
        return part[..., halo : halo + 40, halo : halo + 40]

    expected = whole[..., 50:90, 50:90]
    torch.testing.assert_close(tile(WAVELET_HALO), expected, rtol=0, atol=1e-13)
    assert (tile(WAVELET_HALO - 1) - expected).abs().max() > 1e-8


def test_adain_gives_the_styles_statistics() -> None:
    sample, style = pictures(2, 3, 32, 48)
    found = adain_fix(sample, style)
    torch.testing.assert_close(found.mean((2, 3)), style.mean((2, 3)))
    expected = (sample - sample.mean((2, 3), True)) / (sample.var((2, 3), keepdim=True) + 1e-5).sqrt()
    expected = expected * (style.var((2, 3), keepdim=True) + 1e-5).sqrt() + style.mean((2, 3), True)
    torch.testing.assert_close(found, expected)


def test_adain_of_one_pixel_and_of_a_flat_picture_is_finite() -> None:
    assert adain_fix(torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25)).allclose(torch.tensor(0.25))
    assert adain_fix(torch.full((3, 8, 8), 0.5), torch.full((3, 8, 8), 0.25)).allclose(torch.tensor(0.25))


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_half_precision_is_computed_in_float32_and_samples_are_independent(method: str) -> None:
    sample, style = pictures(2, 3, 40, 40, dtype=torch.float32)
    found = fix(sample.bfloat16(), style.bfloat16(), method)  # type: ignore[arg-type]
    assert found.dtype == torch.bfloat16
    exact = fix(sample.bfloat16().float(), style.bfloat16().float(), method)  # type: ignore[arg-type]
    assert torch.equal(found, exact.bfloat16())
    assert torch.equal(fix(sample[1], style[1], method), fix(sample, style, method)[1])  # type: ignore[arg-type]


def test_none_gives_the_sample_and_inputs_are_left_alone() -> None:
    sample, style = pictures(3, 20, 20)
    before = sample.clone(), style.clone()
    assert fix(sample, style, "none") is sample
    fix(sample, style, "wavelet")
    fix(sample, style, "adain")
    assert torch.equal(sample, before[0])
    assert torch.equal(style, before[1])


def test_errors_say_what_is_allowed() -> None:
    sample, style = pictures(3, 20, 20)
    with pytest.raises(OptionError, match="'wavelet', 'adain', 'lab', 'mkl' and 'none'"):
        fix(sample, style, "Wavelet")  # type: ignore[arg-type]
    for method in (wavelet_fix, adain_fix):
        with pytest.raises(OptionError, match=r"\(3, 20, 20\).*\(3, 20, 19\).*resize the style"):
            method(sample, style[..., :19])


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_overwriting_gives_the_same_where_the_sample_lay(method: str) -> None:
    sample, style = torch.randn(2, 3, 20, 31), torch.randn(2, 3, 20, 31)
    expected = fix(sample, style, method)
    found = fix(sample, style, method, overwrite=True)
    assert torch.equal(found, expected)
    assert found.data_ptr() == sample.data_ptr()


def mild() -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures (2, 3, 40, 30) in [-1, 1] of correlated channels, far enough from what sRGB does not hold."""
    generator = torch.Generator().manual_seed(5)
    first = torch.tensor([[0.9, 0.3, 0.1], [0.2, 0.8, 0.4], [0.1, 0.2, 0.7]])
    second = torch.tensor([[0.6, 0.5, 0.1], [0.5, 0.6, 0.2], [0.3, 0.1, 0.9]])
    noise = torch.randn(2, 2, 3, 40, 30, generator=generator, dtype=torch.float64) * 0.09
    found = torch.einsum("kij,kbjhw->kbihw", torch.stack([first, second]).double(), noise)
    found = found + torch.tensor([0.1, -0.15]).view(2, 1, 1, 1, 1)
    return found[0], found[1]


def test_lab_gives_the_styles_statistics_in_lab() -> None:
    """As scikit-image reckons CIELAB."""
    sample, style = mild()
    found = fix(sample, style, "lab")

    def lab(pictures: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(skimage.color.rgb2lab((pictures.permute(0, 2, 3, 1).numpy() + 1) / 2))

    for statistic in (lambda x: x.mean((1, 2)), lambda x: x.std((1, 2), unbiased=False)):
        torch.testing.assert_close(statistic(lab(found)), statistic(lab(style)), atol=0.02, rtol=1e-3)
        assert (statistic(lab(sample)) - statistic(lab(style))).abs().max() > 1


def test_mkl_gives_the_styles_covariance_by_the_smallest_change() -> None:
    sample, style = mild()
    found = fix(sample, style, "mkl")
    for one, other in zip(found, style, strict=True):
        flat, wanted = one.flatten(1), other.flatten(1)
        torch.testing.assert_close(flat.mean(1), wanted.mean(1))
        torch.testing.assert_close(torch.cov(flat), torch.cov(wanted), atol=2e-4, rtol=0.02)
    # The map of least change is symmetric and positive; one that is not turns colours on its way.
    flat = sample[0].flatten(1) - sample[0].flatten(1).mean(1, keepdim=True)
    linear = (torch.linalg.pinv(flat.T) @ (found[0].flatten(1) - found[0].flatten(1).mean(1, keepdim=True)).T).T
    torch.testing.assert_close(linear, linear.T, atol=1e-9, rtol=0)
    assert torch.linalg.eigvalsh(linear).min() > 0


@pytest.mark.parametrize("method", ["wavelet", "adain", "lab", "mkl"])
def test_half_the_strength_is_half_the_way_also_in_bands(method: str) -> None:
    sample, style = mild()
    before = sample.clone()
    half = fix(sample, style, method, strength=0.5, overwrite=True)
    assert torch.equal(sample, before)
    torch.testing.assert_close(half, (sample + fix(sample, style, method)) / 2)
    torch.testing.assert_close(torch.cat([*fixed_bands(sample, style, method, 7, strength=0.5)], -2), half)
    assert fix(sample, style, method, strength=0) is sample


def test_flat_and_grey_pictures_stay_finite() -> None:
    for method in ("lab", "mkl"):
        grey = torch.linspace(-0.5, 0.5, 64).reshape(1, 8, 8).expand(3, 8, 8)
        for sample, style in ((torch.full((3, 8, 8), 0.5), torch.full((3, 8, 8), 0.25)), (grey, grey * 0.5)):
            assert fix(sample, style, method).sub(style).abs().max() < 0.01, method

from __future__ import annotations

import pytest
import torch

from supir.errors import OptionError
from supir.restoration.color import WAVELET_HALO, adain_fix, fix, wavelet_fix


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
    with pytest.raises(OptionError, match="'wavelet', 'adain' and 'none'"):
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

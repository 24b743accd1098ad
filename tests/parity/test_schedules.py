"""Noise levels, quantisation, time embeddings, tile windows and autoencoder boxes (reference sections 2, 5, 7, 10)."""

from __future__ import annotations

import re
from fractions import Fraction

import torch
from diffusers.models.embeddings import get_timestep_embedding
from reference_fixtures import ReferenceFixtures
from torch import Tensor

from supir.models.autoencoder import DECODER_PAD, ENCODER_PAD, Extent, lock_step_extents
from supir.sampling.denoiser import discrete_denoiser
from supir.sampling.sigmas import (
    alphas_cumprod,
    ddpm_sigmas,
    ddpm_timesteps,
    reference_karras_sigmas,
    training_sigmas,
)
from supir.tensors.tiling import reference_gaussian

RELATIVE = 1e-6


def close(found: Tensor, expected: Tensor, rtol: float = RELATIVE) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=0)


def numbered(arrays: dict[str, Tensor], pattern: str) -> list[tuple[int, Tensor]]:
    """The recorded arrays whose name is `pattern` with a number in it; at least one."""
    found = [(int(match[1]), value) for key, value in arrays.items() if (match := re.fullmatch(pattern, key))]
    assert found, f"no {pattern} recorded"
    return found


def test_training_levels(fixtures: ReferenceFixtures) -> None:
    arrays = fixtures.tensors("schedules")
    close(alphas_cumprod(), arrays["alphas_cumprod.f64"], rtol=1e-12)
    close(training_sigmas(), arrays["denoiser_sigmas"])


def test_falling_levels(fixtures: ReferenceFixtures) -> None:
    arrays, recorded = fixtures.tensors("schedules"), fixtures.json("schedules")
    for num_steps, expected in numbered(arrays, r"sigmas_(\d+)(?:_append_zero)?"):
        close(ddpm_sigmas(num_steps), expected)
    for num_steps, expected in numbered(arrays, r"karras_(\d+)"):
        close(reference_karras_sigmas(num_steps), expected)
    lists = {int(key): value for key, value in recorded["timesteps"].items() if isinstance(value, list)}
    assert lists
    for num_steps, expected in lists.items():
        assert ddpm_timesteps(num_steps) == expected


def test_quantisation_and_scaling(fixtures: ReferenceFixtures) -> None:
    arrays = fixtures.tensors("schedules")
    sigma, seen = arrays["quant.sigma_in"], {}

    def network(x_scaled: Tensor, timestep: Tensor, solver_sigma: Tensor) -> Tensor:
        seen["c_in"], seen["timestep"], seen["sigma"] = x_scaled, timestep, solver_sigma
        return torch.zeros_like(x_scaled)

    ones = torch.ones(len(sigma), 1, 1, 1)
    denoise = discrete_denoiser(network)
    close(denoise(ones, sigma).flatten(), arrays["quant.c_skip"])
    close(seen["c_in"].flatten(), arrays["quant.c_in"])
    assert torch.equal(seen["timestep"], arrays["quant.t"])
    assert torch.equal(seen["timestep"], arrays["quant.idx"])
    assert torch.equal(seen["sigma"], sigma)
    close(discrete_denoiser(lambda *_: ones)(0 * ones, sigma).flatten(), arrays["quant.c_out"])
    close(training_sigmas()[seen["timestep"]], arrays["quant.sigma"])


def test_time_embeddings(fixtures: ReferenceFixtures) -> None:
    arrays = fixtures.tensors("schedules")
    for width, expected in numbered(arrays, r"temb\.(\d+)"):
        found = get_timestep_embedding(arrays["temb.t"], width, flip_sin_to_cos=True, downscale_freq_shift=0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_tile_windows(fixtures: ReferenceFixtures) -> None:
    windows = fixtures.json("schedules")["sliding_windows"]
    assert windows
    for name, expected in windows.items():
        height, width, size, stride = map(int, re.findall(r"\d+", name))
        rows, columns = reference_gaussian(size, stride)(height, width, Fraction(1))
        found = [[row.start, row.stop, column.start, column.stop] for row in rows for column in columns]
        assert found == expected, name


def test_tile_weights(fixtures: ReferenceFixtures) -> None:
    arrays = fixtures.tensors("schedules")
    for size, expected in numbered(arrays, r"gaussian_(\d+)"):
        rows, columns = reference_gaussian(size, size // 2)(2 * size, 2 * size, Fraction(1))
        close(torch.outer(rows[0].weight, columns[0].weight), expected, rtol=1e-9)
    for size, expected in numbered(arrays, r"gaussian_(\d+)_rowcol"):
        rows, columns = reference_gaussian(size, size // 2)(2 * size, 2 * size, Fraction(1))
        weight = torch.outer(rows[0].weight, columns[0].weight)
        close(weight[:, size // 2], expected[0], rtol=1e-9)
        close(weight[size // 2], expected[1], rtol=1e-9)


def test_autoencoder_boxes(fixtures: ReferenceFixtures) -> None:
    recorded = fixtures.json("schedules")["vae_tiles"]
    assert recorded
    for name, (inputs, outputs) in recorded.items():
        height, width, tile = map(int, re.findall(r"\d+", name))
        pad, scale = (ENCODER_PAD, Fraction(1, 8)) if name.startswith("enc") else (DECODER_PAD, Fraction(8))
        rows, columns = lock_step_extents(height, tile, pad), lock_step_extents(width, tile, pad)
        assert [seen(column) + seen(row) for row in rows for column in columns] == inputs, name
        assert [given(column, scale) + given(row, scale) for row in rows for column in columns] == outputs, name


def seen(extent: Extent) -> list[int]:
    return [extent.start, extent.stop]


def given(extent: Extent, scale: Fraction) -> list[int]:
    return [int(extent.first * scale), int(extent.last * scale)]

"""Each damage does to a picture what the real one does."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from operation_examples import degraded, texture
from PIL import Image

from supir.degradation import lens, ops, prints, sensor, video
from supir.degradation.ops import Picture
from supir.degradation.process import step

GAINS = {"red_gain": 2.0, "blue_gain": 1.6, "crosstalk": 0.2}


def sharpness(picture: Picture, axis: int) -> float:
    return float(np.abs(np.diff(picture, axis=axis)).mean())


def saturation(picture: Picture) -> float:
    return float(np.ptp(picture, axis=2).mean())


def neighbours(noise: Picture) -> float:
    """Correlation of noise with its right neighbour."""
    return float(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1])


def flat(level: float, size: int = 96) -> Picture:
    return np.full((size, size, 3), level, np.float32)


@pytest.mark.parametrize(("angle", "along"), [(0.0, 1), (np.pi / 2, 0)])
def test_motion_blurs_along_its_direction_more_than_across(angle: float, along: int) -> None:
    clean = texture()
    moved = lens.motion_blur(clean, 9.0, angle, 0.0, 1.0, 1)
    kept = [sharpness(moved, axis) / sharpness(clean, axis) for axis in (0, 1)]
    assert kept[along] < 0.5 * kept[1 - along]


def test_kernels_of_the_lens_have_unit_sum_and_do_not_shift_the_picture() -> None:
    kernels = [lens.motion_kernel(length, 0.7, 1.0, seed) for length in (0.5, 5, 40) for seed in range(5)]
    kernels += [lens.aperture_kernel(radius, blades, 0.3) for radius in (0.5, 2.5, 9) for blades in (0, 5, 6)]
    for kernel in kernels:
        axis = np.arange(len(kernel)) - len(kernel) // 2
        assert kernel.sum() == pytest.approx(1, abs=1e-4)
        assert kernel.min() >= 0
        assert abs((kernel.sum(0) * axis).sum()) < 0.05
        assert abs((kernel.sum(1) * axis).sum()) < 0.05


def test_defocus_turns_a_point_into_a_disc_of_its_radius() -> None:
    point = flat(0.0)
    point[48, 48] = 1
    lit = ops.to_light(lens.defocus(point, 6.0, 0, 0.0, 1.0)[..., 0])
    assert (lit > lit.max() / 2).sum() == pytest.approx(np.pi * 36, rel=0.1)
    brighter = lens.defocus(point, 6.0, 0, 0.0, 8.0)
    assert brighter.max() > 2 * lens.defocus(point, 6.0, 0, 0.0, 1.0).max()


def test_fringes_part_red_from_blue_at_the_edge_and_not_in_the_centre() -> None:
    wheel = np.zeros((101, 101, 3), np.float32)
    wheel[:, ::10] = 1
    fringed = lens.fringes(wheel, 0.02, 0.5, 0.5)
    np.testing.assert_array_equal(fringed[..., 1], wheel[..., 1])
    apart = np.abs(fringed[..., 0] - fringed[..., 2]).mean(0)
    assert apart[85:96].max() > 5 * max(apart[45:56].max(), 0.01)


def test_haze_raises_black_lowers_contrast_and_is_thicker_far_away() -> None:
    clean = texture()
    hazy = lens.haze(clean, 1.0, 0.9, 0.0, 0.8, 0.0, 1)
    assert hazy.min() > clean.min() + 0.2
    assert hazy.std() < 0.8 * clean.std()
    assert hazy[:20].std() < hazy[-20:].std()
    assert lens.haze(clean, 4.0, 0.9, 0.0, 0.0, 0.0, 1).mean() == pytest.approx(0.9, abs=0.03)


def test_counted_photons_have_poissons_moments() -> None:
    for expected in (1.0, 5.0, 200.0):
        counts = ops.photons_counted(np.random.default_rng(1), np.full((500, 500), expected, np.float32))
        assert counts.mean() == pytest.approx(expected, rel=0.01)
        assert counts.var() == pytest.approx(expected, rel=0.07)
        skewness = ((counts - counts.mean()) ** 3).mean() / counts.std() ** 3
        assert skewness == pytest.approx(expected**-0.5, rel=0.15)
    assert (ops.photons_counted(np.random.default_rng(1), np.zeros((9, 9), np.float32)) == 0).all()


@pytest.mark.parametrize("demosaic", ["bilinear", "edge_aware"])
def test_a_sensor_without_noise_keeps_colours(demosaic: sensor.Demosaic) -> None:
    colours = cv2.resize(
        np.random.default_rng(0).random((4, 4, 3), np.float32), (97, 95), interpolation=cv2.INTER_CUBIC
    )
    colours = np.clip(colours, 0.1, 0.9).astype(np.float32)
    taken = sensor.sensor(colours, 1e5, 0.0, 2.0, 1.6, 0.2, demosaic, 1)
    assert np.abs(taken - colours).mean() < 0.015


def test_sensor_noise_is_shared_by_neighbours_and_stronger_in_red_and_with_fewer_photons() -> None:
    def noise(photons: float) -> Picture:
        return sensor.sensor(flat(0.5), photons, 2.0, 2.5, 1.2, 0.2, "bilinear", 1) - 0.5

    grainy = noise(300)
    assert neighbours(grainy[..., 0]) > 0.3
    assert neighbours(ops.gaussian_noise(flat(0.5), 20, False, 1)[..., 0]) < 0.05
    assert grainy[..., 0].std() > 1.2 * grainy[..., 1].std()
    assert grainy.std() > 2 * noise(3000).std()


def test_low_light_is_darker_noisier_in_its_shadows_and_banded() -> None:
    dark = sensor.low_light(flat(0.7), 0.1, 4.0, 3000.0, 3.0, 0.0, **GAINS, seed=1)
    assert dark.mean() == pytest.approx(0.7 * 0.4 ** (1 / 2.2), abs=0.03)
    assert dark.std() > 2 * sensor.sensor(flat(0.7), 3000.0, 3.0, **GAINS, demosaic="bilinear", seed=1).std()
    banded = sensor.low_light(flat(0.7), 0.1, 4.0, 3000.0, 3.0, 20.0, **GAINS, seed=1)
    assert banded.mean((1, 2)).std() > 3 * dark.mean((1, 2)).std()


def test_a_phone_smooths_texture_and_keeps_edges() -> None:
    edge = np.where(np.arange(64) < 32, 0.2, 0.8).astype(np.float32)[None, :, None].repeat(64, 0).repeat(3, 2)
    noisy = ops.gaussian_noise(edge, 8, False, 1)
    smooth = sensor.in_camera_denoise(noisy, 1.0, 1.0, 3)
    assert smooth[:, 5:25].std() < 0.4 * noisy[:, 5:25].std()
    assert smooth[:, 34].mean() - smooth[:, 29].mean() > 0.5


def test_fading_takes_contrast_and_the_named_dye() -> None:
    clean = texture()
    faded = prints.fade(clean, 0.5, 0.5, 0.5, 0.0)
    assert saturation(faded) < 0.8 * saturation(clean)
    assert faded.std() < 0.8 * clean.std()
    assert faded.min() > clean.min() + 0.1
    for channel, losses in enumerate(((0.6, 0, 0), (0, 0.6, 0), (0, 0, 0.6))):
        gained = (prints.fade(clean, *losses, 0.0) - clean).mean((0, 1))
        assert gained.argmax() == channel
    white = prints.fade(flat(1.0), 0.0, 0.0, 0.0, 0.3)[0, 0]
    assert white[2] < white[1] < white[0]


def test_grain_is_grey_clumped_and_weak_in_white() -> None:
    grainy = prints.grain(flat(0.5), 15, 2.0, 1) - 0.5
    assert np.ptp(grainy, axis=2).max() < 1e-6
    assert grainy.std() * 255 == pytest.approx(15, rel=0.1)
    assert neighbours(grainy[..., 0]) > 0.5
    assert prints.grain(flat(0.98), 15, 2.0, 1).std() < 0.5 * grainy.std()


@pytest.mark.parametrize("size", [96, 400])
def test_scratches_creases_and_dust_leave_most_of_the_picture_alone(size: int) -> None:
    clean = flat(0.5, size)
    for damaged in (
        prints.scratches(clean, 6, 0.6, 1.2, 0.9, 1.0, 1),
        prints.dust(clean, 10, 2.0, 0.0, 1.0, 1),
        prints.creases(clean, 1, 2.0, 1),
    ):
        change = np.abs(damaged - clean).max(2) > 0.1
        assert 0 < change.mean() < 0.15
        assert damaged.max() > 0.7
    assert prints.scratches(clean, 6, 0.6, 1.2, 0.9, 0.0, 1).max() <= 0.5


@pytest.mark.parametrize("inks", ["black", "cmyk"])
def test_halftone_has_a_peak_at_its_period_and_keeps_the_tone(inks: str) -> None:
    clean = flat(0.6, 120)
    printed = degraded(step("halftone", period=5.0, angle=-np.pi / 4, inks=inks, gain=0.0, softness=0.0), clean)
    grey = printed.mean(2)
    spectrum = np.abs(np.fft.rfft2(grey - grey.mean()))
    assert spectrum[0, 24] > 20 * np.median(spectrum)
    tone = (printed**2.2).mean() / (0.6**2.2)
    assert 0.6 < tone < 1.25


def test_halftone_dots_cover_what_the_tone_asks() -> None:
    for cover in (0.1, 0.5, 0.8):
        plane = np.full((200, 200), cover, np.float32)
        assert prints._dots(plane, 6.0, 0.3, 0.0, 3.0).mean() == pytest.approx(cover, abs=0.03)


def test_recompression_adds_up() -> None:
    clean = texture()
    errors = [np.abs(ops.recompress(clean, 60, times, 3, 0) - clean).mean() for times in (1, 3, 8)]
    assert errors == sorted(errors)
    assert errors[2] > 1.1 * errors[0]
    assert np.array_equal(ops.recompress(clean, 60, 1, 3, 0), ops.jpeg(clean, 60))


@pytest.mark.parametrize("codec", [ops.webp, ops.jpeg])
def test_lower_quality_is_farther_from_the_picture(codec: object) -> None:
    clean = texture()
    errors = [np.abs(codec(clean, quality) - clean).mean() for quality in (90, 50, 10)]  # type: ignore[operator]
    assert errors == sorted(errors)


def blockiness(picture: Picture) -> float:
    """Jumps across the edges of 8-pixel blocks over jumps elsewhere."""
    jumps = np.abs(np.diff(picture.mean(2), axis=1)).mean(0)
    return float(jumps[7::8].mean() / np.delete(jumps, slice(7, None, 8)).mean())


def test_video_makes_blocks_that_deblocking_smooths_and_loses_more_at_a_higher_quantiser() -> None:
    clean = ops.gaussian_noise(np.asarray(cv2.resize(texture(24, 32), (256, 192)), np.float32), 4, False, 1)
    raw = video.video(clean, 38, 1, 0.0, 0.0, False)
    filtered = video.video(clean, 38, 1, 0.0, 0.0, True)
    assert blockiness(raw) > 1.5 * blockiness(clean)
    assert blockiness(filtered) < 0.7 * blockiness(raw)
    errors = [np.abs(video.video(clean, quantiser, 2, 0.7, 0.3, True) - clean).mean() for quantiser in (12, 28, 34, 46)]
    assert errors == sorted(errors)
    assert errors[0] < 0.02


def test_motion_in_a_video_is_brought_back_to_the_picture() -> None:
    """Against a colour that moves with the picture: no shift of the last frame, only loss."""
    clean = np.asarray(cv2.GaussianBlur(texture(), (0, 0), 2), np.float32)
    moving = video.video(clean, 20, 4, 3.0, -2.0, True)
    shifted = np.roll(clean, (1, 1), (0, 1))
    assert np.abs(moving - clean).mean() < 0.5 * np.abs(moving - shifted).mean()


def test_reduce_is_pillows_bicubic() -> None:
    clean = texture(97, 130)
    for height, width in ((24, 33), (97, 65), (12, 16)):
        planes = [Image.fromarray(clean[..., channel]) for channel in range(3)]
        wanted = np.stack([np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC)) for plane in planes], 2)
        np.testing.assert_allclose(ops.reduce(clean, height, width), np.clip(wanted, 0, 1), atol=1e-5)

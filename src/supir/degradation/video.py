"""A model of what a hybrid video codec leaves in a frame: blocks, smoothed block edges, lost texture, smear of motion.

It is a model and no codec: 8x8 cosine transform of luma and halved chroma, quantised with the step sizes and the dead
zones of H.264, predicted from moved earlier frames, with a deblocking filter in the loop. What H.264 does to spend
fewer bits (intra prediction, block splitting, entropy coding) is left out, for it hardly shows in the picture.
"""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np

from supir.degradation.ops import Picture, clip
from supir.options.fields import Range

BLOCK = 8
_CHROMA_QUANTISER = (29, 30, 31, 32, 32, 33, 34, 34, 35, 35, 36, 36, 37, 37, 37, 38, 38, 38, 39, 39, 39, 39)
"""Quantiser of chroma where luma has 30 to 51; below they are the same (H.264, table 8-15)."""
Motion = Annotated[float, Range(-16.0, 16.0)]


def video(
    picture: Picture,
    quantiser: Annotated[int, Range(0, 51)],
    frames: Annotated[int, Range(1, 12)],
    motion_x: Motion,
    motion_y: Motion,
    deblock: bool,
) -> Picture:
    """The last of some video ``frames`` of a still scene, coded each from the one before.

    ``quantiser`` is H.264's QP: 18 can hardly be seen, 28 is common, 40 is poor, 51 the worst; the picture moves by
    ``motion`` pixels a frame, compensated to a quarter pixel. With ``deblock`` off it looks like MPEG-2 or MJPEG.
    """
    height, width = picture.shape[:2]
    bottom, right = -height % (2 * BLOCK), -width % (2 * BLOCK)
    padded = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    coded = np.asarray(cv2.cvtColor(padded, cv2.COLOR_RGB2YCrCb), np.float32)
    half = (coded.shape[1] // 2, coded.shape[0] // 2)
    planes = [np.ascontiguousarray(coded[..., 0]) * 255]
    planes += [np.asarray(cv2.resize(coded[..., part], half, interpolation=cv2.INTER_AREA)) * 255 for part in (1, 2)]
    coarse = quantiser if quantiser < 30 else _CHROMA_QUANTISER[quantiser - 30]
    finished = [_last_frame(planes[0], quantiser, frames, (motion_x, motion_y), deblock)]
    finished += [_last_frame(plane, coarse, frames, (motion_x / 2, motion_y / 2), deblock) for plane in planes[1:]]
    size = (coded.shape[1], coded.shape[0])
    coded[..., 0] = finished[0] / 255
    for part in (1, 2):
        coded[..., part] = cv2.resize(finished[part], size, interpolation=cv2.INTER_LINEAR) / 255
    return np.ascontiguousarray(clip(cv2.cvtColor(coded, cv2.COLOR_YCrCb2RGB))[:height, :width])


def _last_frame(plane: Picture, quantiser: int, frames: int, motion: tuple[float, float], deblock: bool) -> Picture:
    """The frames move towards ``plane``, so that the last one lies on the clean picture."""
    step = 0.625 * 2 ** (quantiser / 6)
    decoded = np.zeros_like(plane)
    # Motion vectors are multiples of a quarter pixel; the rest of the motion is left to the residual.
    vector = (round(motion[0] * 4) / 4, round(motion[1] * 4) / 4)
    for number in range(frames):
        left = frames - 1 - number
        truth = _moved(plane, (-left * motion[0], -left * motion[1])) if left else plane
        predicted = _moved(decoded, vector) if number else np.full_like(plane, 128)
        # The reference encoder rounds 1/3 up in intra blocks and 1/6 in predicted ones, whose step is a little wider.
        rounding, wider = (1 / 6, 1.25) if number else (1 / 3, 1.0)
        decoded = predicted + _quantised(truth - predicted, step * wider, rounding)
        if deblock:
            decoded = _deblocked(decoded, quantiser)
    return decoded


def _moved(plane: Picture, by: tuple[float, float]) -> Picture:
    if by == (0.0, 0.0):
        return plane
    matrix = np.array([[1, 0, by[0]], [0, 1, by[1]]], np.float64)
    size = (plane.shape[1], plane.shape[0])
    return np.asarray(
        cv2.warpAffine(plane, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101), np.float32
    )


def _cosines() -> Picture:
    """Orthonormal DCT-II matrix (BLOCK, BLOCK)."""
    index = np.arange(BLOCK)
    matrix = np.sqrt(2 / BLOCK) * np.cos(np.pi * (2 * index + 1) * index[:, None] / (2 * BLOCK))
    matrix[0] = np.sqrt(1 / BLOCK)
    return np.asarray(matrix, np.float32)


def _quantised(plane: Picture, step: float, rounding: float) -> Picture:
    """Through the block transform, a dead-zone quantiser and back; ``step`` in levels of 255."""
    height, width = plane.shape
    forward = _cosines() * np.float32(step**-0.5)
    backward = np.ascontiguousarray(_cosines().T) * np.float32(step**0.5)
    # Columns of all blocks at once, then rows of all blocks at once: two large products instead of many small ones.
    levels = np.matmul(forward, plane.reshape(-1, BLOCK, width)).reshape(-1, BLOCK) @ forward.T
    kept = np.floor(np.abs(levels) + np.float32(rounding))
    np.copysign(kept, levels, out=kept)
    rows = (kept @ backward.T).reshape(-1, BLOCK, width)
    return np.matmul(backward, rows).reshape(height, width)


def _deblocked(plane: Picture, quantiser: int) -> Picture:
    """H.264's idea: smooth across block edges, but not where the jump is larger than quantisation makes it.

    The two thresholds approximate the standard's tables (List et al., IEEE Trans. CSVT 2003).
    """
    jump = 0.8 * (2 ** (quantiser / 6) - 1)
    slope = 0.5 * quantiser - 7
    if slope <= 0:
        return plane
    plane = plane.copy()
    _smooth_columns(plane, jump, slope)
    _smooth_columns(plane.T, jump, slope)
    return plane


def _smooth_columns(plane: Picture, jump: float, slope: float) -> None:
    """Filter the vertical block edges in place: three pixels on either side, with the strong filter of intra edges."""
    if plane.shape[1] <= BLOCK:
        return
    p2, p1, p0, q0, q1, q2 = (
        plane[:, BLOCK + offset :: BLOCK][:, : plane.shape[1] // BLOCK - 1] for offset in range(-3, 3)
    )
    edge = (np.abs(p0 - q0) < jump) & (np.abs(p1 - p0) < slope) & (np.abs(q1 - q0) < slope)
    middle = p1 + p0 + q0
    across = p0 + q0 + q1
    new = (
        (p2, (3 * p2 + middle) / 6),
        (p1, (p2 + middle) / 4),
        (p0, (p2 + 2 * middle + q1) / 8),
        (q0, (p1 + 2 * across + q2) / 8),
        (q1, (across + q2) / 4),
        (q2, (3 * q2 + across) / 6),
    )
    for old, smoothed in new:
        np.copyto(old, smoothed, where=edge)

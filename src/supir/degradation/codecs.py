"""What files do to photographs on their way: WebP, and JPEG again and again. Plain JPEG is in ``ops``."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np

from supir.degradation.ops import Picture, Quality, coded, jpeg
from supir.options.fields import Range


def webp(picture: Picture, quality: Quality) -> Picture:
    """Lossy WebP and back: a VP8 key frame, with smoothed blocks and coarse colour; ``quality`` 1 to 100."""
    return coded(picture, ".webp", [cv2.IMWRITE_WEBP_QUALITY, int(quality)])


def recompress(
    picture: Picture,
    quality: Quality,
    times: Annotated[int, Range(1, 20)],
    shift: Annotated[int, Range(0, 15)],
    drift: Annotated[int, Range(-10, 10)],
) -> Picture:
    """JPEG ``times`` over, as a picture that is saved, cropped and sent on.

    Each time the grid of blocks lies ``shift`` pixels further down and right, so that new block edges join the old
    ones, and the quality changes by ``drift``.
    """
    height, width = picture.shape[:2]
    degraded = picture
    for number in range(times):
        offset = (number * shift) % 16
        padded = np.asarray(cv2.copyMakeBorder(degraded, offset, 0, offset, 0, cv2.BORDER_REFLECT_101), np.float32)
        again = jpeg(padded, min(max(quality + number * drift, 1), 100))
        degraded = again[offset : offset + height, offset : offset + width]
    return np.ascontiguousarray(degraded)

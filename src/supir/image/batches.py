"""Pictures of one size in one tensor, as ComfyUI passes them from node to node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from supir.errors import OptionError
from supir.image.picture import Picture
from supir.image.writing import write


def from_batch(batch: Tensor) -> Iterator[Picture]:
    """Pictures of (B, H, W, C) in [0, 1]; C is 3, or 4 with an alpha behind the colours. Values beyond are cut.

    The pixels are copies, whatever kind of tensor they come in.

    Raises:
        OptionError: it has another shape.
    """
    if batch.ndim != 4 or batch.shape[-1] not in (3, 4) or 0 in batch.shape:
        raise OptionError(f"a batch of pictures is {tuple(batch.shape)}; it must be (B, H, W, 3), or 4 with an alpha")
    for one in batch.detach().to("cpu", torch.float32, copy=True).clamp(0, 1).movedim(-1, 1):
        alpha = one[3:4].contiguous() if len(one) == 4 else None
        yield Picture(pixels=(one[:3] * 2 - 1).contiguous(), alpha=alpha, bits=16)


def to_batch(pictures: Iterable[Picture]) -> Tensor:
    """(B, H, W, C) in [0, 1] of pictures of one size, of which all have an alpha or none."""
    planes = [
        torch.cat([picture.rgb * 0.5 + 0.5, *([] if picture.alpha is None else [picture.alpha])])
        for picture in pictures
    ]
    return torch.stack(planes).movedim(1, -1).clamp(0, 1).contiguous()


def write_masks(masks: Tensor | None, folder: str | Path, count: int) -> list[str]:
    """Files in a folder of masks (B, H, W) from 0 to 1, for ``count`` pictures, the last one for all that are left;
    empty names where there is none, or all is black, as of pictures without transparency."""
    if masks is None or not masks.any():
        return [""] * count
    paths = []
    for index, one in enumerate(masks.detach().to("cpu", torch.float32, copy=True).clamp(0, 1)):
        paths.append(str(Path(folder) / f"mask{index}.png"))
        write(Picture(pixels=one[None] * 2 - 1, bits=16), paths[-1])
    return [paths[min(index, len(paths) - 1)] for index in range(count)]

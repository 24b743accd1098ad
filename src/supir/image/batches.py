"""Pictures of one size in one tensor, as ComfyUI passes them from node to node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from supir.errors import OptionError
from supir.image.picture import Picture


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

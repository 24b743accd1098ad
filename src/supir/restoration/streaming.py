"""From picture file to picture file, whatever the size: pixels stay on disk, only tiles and latents are in memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supir.errors import ImageWriteError
from supir.image import (
    LARGE,
    PREVIEWED,
    Kept,
    LargePicture,
    Picture,
    Placed,
    Signature,
    WorkingSize,
    check_file,
    mask_of,
    notes_of,
    open_large,
    shares_of,
    with_grain,
    working_size,
    write_in_bands,
)
from supir.options import RestoreOptions
from supir.restoration.color import fixed_bands
from supir.restoration.denoiser_network import Conditions
from supir.restoration.restorer import Restorer, size_multiple
from supir.restoration.work import WRITING
from supir.sampling.noise import NoiseSource
from supir.sampling.solvers import StepCallback
from supir.tensors.arrays import ArrayLike, MemmapArray

_GATHERED = 0.6
"""Of the writing: the colours and the integers; the rest is the format's packing."""
_BYTES_A_PIXEL = 24
"""Of the preview and of the result, kept in float32 in the target's folder."""


def is_large(size: WorkingSize, options: RestoreOptions) -> bool:
    """Whether to stream. Not with the public code's quirks, with another model first, nor where the result is smaller
    than the working size.
    """
    same = (size.height, size.width) == (size.output_height, size.output_width)
    whole = options.reference_quirks or options.first
    return same and not whole and size.padded_height * size.padded_width > LARGE


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """A restoration from file to file: how, and where the preview goes if it is wanted."""

    restorer: Restorer
    device: torch.device
    conditions: Callable[[], Conditions]
    noise: NoiseSource
    preview: Path | None
    on_step: StepCallback
    on_preview: Callable[[], None]
    preview_record: Mapping[str, str] | None
    """What is stored with the preview."""
    signature: Signature | None = None
    faces: Callable[[LargePicture, tuple[int, int]], Sequence[Placed]] = lambda photo, size: ()
    """Makes those that are restored by themselves, for a result of (height, width)."""

    def restore(
        self, source: Path, target: Path, record: Callable[[RestoreOptions, int], dict[str, str]]
    ) -> dict[str, str]:
        """Write the result whole or not at all.

        ``record`` makes what is stored with the result, by the options really used and the number of faces that were
        restored by themselves, unless they want no marking; it is returned.

        Raises:
            ImageError: as ``read`` and ``write``; the target's folder has no room for the pixels in between, 24 bytes
                for each of the result's and those of the photo, which is said before any work.
            OSError: another took the room meanwhile.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        self._check_room(source, target)
        store = partial(MemmapArray, folder=target.parent, device=self.device)
        with open_large(source, target.parent, salvage=self.restorer.options.salvage) as picture:
            size = size_of(picture.width, picture.height, self.restorer)

            previews = list[ArrayLike]()

            def show(preview: ArrayLike) -> None:
                previews.append(preview)
                if self.preview is not None:
                    bands = fixed_bands(preview, preview, "none")
                    marks = {"source_type": PREVIEWED, "signature": self.signature}
                    _write(picture, size, bands, self.preview, self.preview_record, marks)
                self.on_preview()

            covered, padded = (size.height, size.width), (size.padded_height, size.padded_width)
            frame = self.restorer.options, picture.width, picture.height, covered, padded
            shares = shares_of(*frame, self.restorer.latent_factor)
            result = replace(self.restorer, mask=mask_of(*frame), shares=shares).restore_large(
                picture.at_working_size(size, self.device), self.conditions, self.noise, store, self.on_step, show
            )
            options = self.restorer.backoff.options
            grain = picture.grain if options.keep_grain else None
            portraits = self.faces(picture, covered)
            about = record(options, len(portraits)) | notes_of(picture.toning, grain, options)

            kept = Kept.of(options, (picture.height, picture.width), (size.output_height, size.output_width))

            def previewed(rows: slice) -> Tensor:
                band = previews[0][..., rows, slice(0, size.output_width)]
                return picture.band(size, band[0].float().cpu().clamp(-1, 1), rows.start).pixels

            def grained(band: Picture, top: int) -> Picture:
                made = with_grain(band, grain, options, size.output_height, top)
                for portrait in portraits:
                    made = portrait.put_on(made, top)
                if kept is None:
                    return made
                return kept.put_on(made, lambda rows: picture.own_band(size, rows), previewed, top)

            work = self.restorer.work
            written = about if options.marking else None
            marks = {"signature": self.signature}

            def told(share: float) -> None:
                work.at(WRITING, _GATHERED * share)

            _write(picture, size, result, target, written, marks, grained, told)
            work.at(WRITING, 1.0)
        return about

    def _check_room(self, source: Path, target: Path) -> None:
        _, width, height = check_file(source)  # what is too large to be read is said first
        size = size_of(width, height, self.restorer)
        needed = _BYTES_A_PIXEL * size.padded_width * size.padded_height + width * height * 3
        free = shutil.disk_usage(target.parent).free
        if free < needed:
            raise ImageWriteError(
                f"{target}: {needed / 1e9:.1f} GB are needed in its folder while it is made, and {free / 1e9:.1f} GB"
                " are free; make room, or choose another folder or a smaller scale", target
            )  # fmt: skip


def size_of(width: int, height: int, restorer: Restorer) -> WorkingSize:
    """The sizes of a picture on its way through the networks, by the restorer's options."""
    options = restorer.options
    return working_size(width, height, options.scale, options.min_size, size_multiple(restorer.autoencoder))


def _write(
    picture: LargePicture,
    size: WorkingSize,
    found: Iterator[Tensor],
    path: Path,
    record: Mapping[str, str] | None,
    marks: Mapping[str, Any],
    grained: Callable[[Picture, int], Picture] = lambda band, top: band,
    told: Callable[[float], None] = lambda share: None,
) -> None:
    height, width = size.output_height, size.output_width
    whole = picture.with_bands(size, _cut(found, height, width, told), grained)
    write_in_bands(picture.frame, (height, width), whole, path, record=record, **marks)


def _cut(found: Iterator[Tensor], height: int, width: int, told: Callable[[float], None]) -> Iterator[Tensor]:
    """The bands (3, rows, width) without the padding at the bottom and the right; how far down they are is told."""
    top = 0
    for band in found:
        rows = min(band.shape[-2], height - top)
        if rows > 0:
            yield band[0, :, :rows, :width].cpu().clamp(-1, 1)
        top += rows
        told(min(1.0, top / height))

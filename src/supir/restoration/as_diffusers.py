"""Arguments of a call as pipelines of diffusers call them, and results as they give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from diffusers import ImagePipelineOutput
from torch import Tensor

from supir import image
from supir.errors import OptionError
from supir.image import PictureLike
from supir.options.levels import training_levels
from supir.options.restore import MAX_SEED, RestoreOptions
from supir.sampling.solvers import Step, StepCallback

RENAMED = {"num_inference_steps": "num_steps", "guidance_scale": "text_guidance"}
"""Options under their names there. Their guidance is the same in all steps, and so is ours without its start."""
OUTPUTS = ("pil", "np", "pt")
ELSEWHERE = {
    "strength": "how much is kept of the photo is set by detail, start_sigma and restoration_guidance",
    "height": "the size follows from the photo and scale",
    "width": "the size follows from the photo and scale",
    "latents": "give noise to restore_pixels",
    "prompt_embeds": "give conditions to restore_pixels",
    "negative_prompt_embeds": "give conditions to restore_pixels",
    "pooled_prompt_embeds": "give conditions to restore_pixels",
    "ip_adapter_image": "the adaptor reads the photo itself, and IP-Adapters have no place beside it",
    "control_image": "the adaptor reads the photo itself",
}
"""Arguments there that have no place here, each with what does it."""


@dataclass(frozen=True, kw_only=True)
class DiffusersCall:
    """What a call said as diffusers says it."""

    image: Any = None
    """Pictures; also arrays (B, H, W, C) and tensors (B, C, H, W) in [0, 1]."""
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    """A seed is drawn from it for each result, so that its state moves on; of several, from each for one variant."""
    num_images_per_prompt: int = 1
    output_type: str | None = None
    """None gives what ``SupirPipeline`` gives without any of these."""
    return_dict: bool = True
    callback_on_step_end: Callable[[Any, int, int, dict[str, Any]], Mapping[str, Any] | None] | None = None
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)

    def __post_init__(self) -> None:
        if self.output_type not in (None, *OUTPUTS):
            other = "; latents are between restore_pixels' encoding and decoding" * (self.output_type == "latent")
            raise OptionError(f"output_type is {self.output_type!r}; it must be one of {', '.join(OUTPUTS)}{other}")
        if self.num_images_per_prompt < 1:
            raise OptionError(f"num_images_per_prompt is {self.num_images_per_prompt}; it must be 1 or more")
        given = self.generator
        if given is not None and not isinstance(given, torch.Generator) and len(given) != self.num_images_per_prompt:
            raise OptionError(
                f"generator holds {len(given)} for num_images_per_prompt {self.num_images_per_prompt}; give one, or one"
                " for each"
            )
        if unknown := set(self.callback_on_step_end_tensor_inputs) - {"latents"}:
            raise OptionError(
                f"callback_on_step_end_tensor_inputs names {', '.join(sorted(unknown))}; there is latents alone"
            )

    def each(
        self, pictures: Any, seed: int | None, options: RestoreOptions | None
    ) -> Iterator[tuple[PictureLike, int]]:
        """(picture, seed) of each result: the variants of a picture follow one another.

        Args:
            pictures: as the pipeline takes them; None takes ``image``.
            seed: of the first variant where there is no generator; None takes that of ``options``.
            options: as the pipeline was given them.
        """
        given = self.image if pictures is None else pictures
        if given is None:
            raise OptionError("no picture is given; the first argument, or image, holds one or several")
        found = [*map(_picture, given)] if isinstance(given, list) else _pictures(given)
        first = seed if seed is not None else 0 if options is None else options.seed
        for picture in found if isinstance(found, list) else [found]:
            yield from ((picture, each) for each in self._seeds(first))

    def _seeds(self, seed: int) -> list[int]:
        count, given = self.num_images_per_prompt, self.generator
        if given is None:
            return [*range(seed, seed + count)]
        generators = [given] * count if isinstance(given, torch.Generator) else given
        return [int(torch.randint(MAX_SEED, (1,), generator=each, device=each.device)) for each in generators]

    def on_step(self, pipeline: Any) -> StepCallback | None:
        """The callback as one of ours. What it returns may not be other latents: solvers keep earlier answers."""
        callback = self.callback_on_step_end
        if callback is None:
            return None

        def told(step: Step) -> None:
            inputs = dict.fromkeys(self.callback_on_step_end_tensor_inputs, step.x)
            changed = callback(pipeline, step.index, _timestep(step.sigma), dict(inputs)) or {}
            if any(changed.get(name, value) is not value for name, value in inputs.items()):
                raise OptionError("callback_on_step_end returns other latents; here it may look at them, and raise")

        return told

    def output(self, results: Sequence[Any]) -> Any:
        """What the call returns: ``.images``, or a tuple of them."""
        if self.output_type is None:
            return [*results]
        if self.output_type == "pil":
            images: Any = [result.image for result in results]
        else:
            sizes = {(result.picture.width, result.picture.height) for result in results}
            if len(sizes) > 1:
                raise OptionError(f"output_type {self.output_type!r} holds pictures of one size; use pil for several")
            batch = image.to_batch(result.picture for result in results)[..., :3]
            images = batch.movedim(-1, 1) if self.output_type == "pt" else batch.numpy()
        return ImagePipelineOutput(images=images) if self.return_dict else (images,)


def taken(values: Mapping[str, Any]) -> tuple[DiffusersCall | None, dict[str, Any]]:
    """What of a call's keywords is diffusers', None where nothing is, and the options that are left.

    Raises:
        OptionError: an argument of theirs that has no place here, or an option under both names.
    """
    for name, instead in ELSEWHERE.items():
        if name in values:
            raise OptionError(f"{name} has no place here: {instead}")
    if both := [name for name, ours in RENAMED.items() if name in values and ours in values]:
        raise OptionError(f"{both[0]} is {RENAMED[both[0]]} here; give one of them")
    names = DiffusersCall.__dataclass_fields__
    theirs = {name: value for name, value in values.items() if name in names}
    ours = {RENAMED.get(name, name): value for name, value in values.items() if name not in names}
    return (DiffusersCall(**theirs) if theirs else None), ours


def _pictures(given: Any) -> Any:
    """One picture, or those of a batch."""
    if isinstance(given, np.ndarray):
        given = torch.from_numpy(np.ascontiguousarray(given)).movedim(-1, -3)
    if not isinstance(given, Tensor):
        return given
    return [*image.from_batch((given[None] if given.ndim == 3 else given).movedim(1, -1))]


def _picture(given: Any) -> Any:
    found = _pictures(given)
    if not isinstance(given, (np.ndarray, Tensor)):
        return found
    if len(found) != 1:
        raise OptionError("image is a list with a batch in it; give the batch, or a list of single pictures")
    return found[0]


def _timestep(sigma: float) -> int:
    """The training timestep that is nearest to a noise level, 0 for none."""
    return sum(sigma > (low + high) / 2 for low, high in pairwise(training_levels()))

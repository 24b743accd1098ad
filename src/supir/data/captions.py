"""Words for a picture: what a captioner is, and one that reads a model folder.

A caption that came with the picture (`supir.data.provenance`) goes before; a captioner is asked for the others.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from supir.errors import OptionError, SupirError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Captioner", "ModelCaptioner"]


class Captioner(Protocol):
    """Anything that says in words what a picture shows. It must be picklable where several workers build."""

    @property
    def name(self) -> str:
        """Which captioner it is: recorded in the data set, and another name means other shards."""

    def __call__(self, image: Image.Image) -> str:
        """A caption in one line.

        Args:
            image: RGB, upright, sRGB, at its stored size.
        """


@dataclass(frozen=True)
class ModelCaptioner:
    """An image-to-text model of transformers (BLIP, GIT, LLaVA ...) in a local folder; nothing is downloaded.

    The model is loaded when the first caption is asked for, once a process, and decodes greedily, so that the same
    picture gets the same words.

    Raises:
        OptionError: the folder is not there or is not a model folder.
    """

    folder: Path
    max_tokens: int = 77
    """Tokens of a caption at most."""
    prompt: str | None = None
    """What a chat model is asked, in the model's own form; None for models that need no question."""

    def __post_init__(self) -> None:
        if not (Path(self.folder) / "config.json").is_file():
            raise OptionError(
                f"captions {self.folder}: no model folder (config.json is missing); give 'beside' for the caption"
                " files beside the pictures, or the folder of an image-to-text model of transformers"
            )

    @property
    def name(self) -> str:
        """The folder's name with what is asked of it."""
        return f"{Path(self.folder).resolve().name}, {self.max_tokens} tokens, prompt {self.prompt!r}"

    def __call__(self, image: Image.Image) -> str:
        """A caption in one line.

        Raises:
            SupirError: the model cannot be loaded.
        """
        processor, model = _loaded(str(self.folder))
        asked = {} if self.prompt is None else {"text": self.prompt}
        inputs = processor(images=image, return_tensors="pt", **asked)
        tokens = model.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False)
        if self.prompt is not None and "input_ids" in inputs and not model.config.is_encoder_decoder:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]  # the question is repeated before the answer
        return " ".join(processor.batch_decode(tokens, skip_special_tokens=True)[0].split())


@functools.lru_cache(maxsize=1)
def _loaded(folder: str) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise SupirError(f"captions {folder}: cannot be loaded as an image-to-text model: {error}") from error
    return processor, model.eval()

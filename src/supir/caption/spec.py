"""Who is meant by the words of `CaptionOptions`, and what they are shown: the clean preview as captioners read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from supir.caption.words import MAX_SIDE, OF_THE_PAPER, QUESTION
from supir.errors import OptionError
from supir.options import CaptionOptions

if TYPE_CHECKING:
    from PIL import Image

    from supir.caption.text_files import TextFileCaptioner
    from supir.image import Picture


class PictureCaptioner(Protocol):
    """Says in words what a picture shows; a `Closable`."""

    @property
    def name(self) -> str:
        """Which captioner it is, for the record of a result."""

    @property
    def identity(self) -> str:
        """All that decides its words beside the picture."""

    def __call__(self, image: Image.Image) -> str:
        """A caption of a picture, RGB, upright, sRGB.

        Raises:
            CaptionError: this picture gets none.
        """

    def close(self) -> None:
        """Give the memory back; it may be asked again all the same."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def is_text_file(spec: str) -> bool:
    """Whether a captioner's name means a file of words."""
    return spec.lower().endswith(".txt") and not Path(spec).is_dir()


def looks_at_pictures(spec: str) -> bool:
    """Whether a captioner of this name is shown pictures, and so can be asked about them."""
    return spec not in ("none", "beside") and not is_text_file(spec)


def captioner_of(options: CaptionOptions, *, device: str | None = None) -> PictureCaptioner | TextFileCaptioner | None:
    """The captioner that the options name, not loaded yet; None for ``none``.

    Args:
        options: see there.
        device: where a model runs; None is a GPU if torch sees one.

    Raises:
        OptionError: it or the device is not there, or options do not go together.
        MissingExtraError: it needs a package that is not installed.
    """
    spec = options.captioner
    shown = "a URL" if "://" in spec else repr(spec)  # it may hold a password
    is_url = spec.startswith(("http://", "https://"))
    is_text, looking = is_text_file(spec), looks_at_pictures(spec)
    if options.caption_model and not is_url:
        raise OptionError(f"caption_model is for an endpoint, and captioner is {shown}")
    if options.caption_bits != "off" and (is_url or not looking):
        raise OptionError(f"caption_bits is for a model folder, and captioner is {shown}")
    if not options.caption_cache and not looking:
        raise OptionError(f"caption_cache is for a captioner that looks at pictures, and captioner is {shown}")
    asking = {name: getattr(options, name) for name in OF_THE_PAPER}
    unasked = {name: getattr(CaptionOptions(), name) for name in OF_THE_PAPER}
    if not looking:
        for name, value in asking.items():
            if value != unasked[name]:
                raise OptionError(f"{name} is for a captioner that looks at pictures, and captioner is {shown}")
    if spec == "none":
        return None
    if is_url:
        from supir.caption.endpoint import EndpointCaptioner

        return EndpointCaptioner(
            url=spec,
            model=options.caption_model,
            question=options.caption_question or QUESTION,
            max_tokens=options.caption_tokens,
            temperature=options.caption_temperature,
        )
    if is_text or spec == "beside":
        from supir.caption.text_files import TextFileCaptioner

        return TextFileCaptioner(Path(spec) if is_text else None)
    if not Path(spec).is_dir():
        raise OptionError(
            f"captioner is {shown}; it must be the folder of a model, a URL, beside, a .txt file, or none"
        )
    from supir.caption.model import ModelCaptioner
    from supir.weights.device import find_device

    bits = None if options.caption_bits == "off" else int(options.caption_bits)
    return ModelCaptioner(
        Path(spec),
        max_tokens=options.caption_tokens,
        prompt=options.caption_question,
        temperature=options.caption_temperature,
        bits=bits,
        device=str(find_device(device)),
    )


def readable(picture: Picture) -> Image.Image:
    """A picture as RGB, sRGB, transparency laid on white, its longer side at most `MAX_SIDE` pixels."""
    from PIL import Image

    from supir.data.pixels import srgb

    image = Image.fromarray(srgb(picture))
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return image

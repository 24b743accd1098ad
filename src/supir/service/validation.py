"""What a client hands in, checked before it is queued: the picture by its header alone, the options by their fields."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supir.errors import ImageTooLargeError, MissingExtraError, OptionError, SupirError
from supir.jobs import Model
from supir.options import DEFAULT_PRESET, PRESETS, RestoreOptions, unused_by_model
from supir.options.audit import AuditOptions
from supir.options.combinations import without_effect
from supir.options.crop import Crop
from supir.options.distilled import mismatch
from supir.options.fields import Options, choice, flag, json_object, number, text
from supir.options.packages import FACES, lacking
from supir.options.regions import INLINE, split_regions
from supir.options.restore import AS_ALL_ELSE
from supir.service.limits import Limits
from supir.service.stored_job import UNTIL

FORMATS = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif", "avif": ".avif"}
"""What a result may be asked for as, and its suffix."""
MAX_TEXT = 16_384
"""Bytes of all texts of the options together, in UTF-8: a JPEG's record holds no more than four times that."""
CROP_PIXELS = 640 * 640
"""Of what a part is worked on at, without its surroundings: four seconds of two cores for the bundled model
(bench/closer_look.py).
"""
_SEES_ALL = ("first", "region", "reference_quirks")
"""Options by which a part's preview would be another than that of the whole photo."""
_MAX_NAME = 150


@dataclass(frozen=True, kw_only=True)
class SubmissionOptions(Options):
    """What a submission says beside the picture and the options of its restoration."""

    format: str | None = choice(None, tuple(FORMATS), "of the result; unset: that of the picture")
    until: str = choice(
        UNTIL[0], UNTIL, "preview: the clean preview is all that is made, before any other job; unset: result"
    )
    preview_side: int | None = number(
        None, 64, 65536, "of a preview alone: the scale is lowered until its long side has at most so many", unit="px"
    )
    preview_seconds: float | None = number(
        None, 0.5, 3600, "of a preview alone: the scale is lowered until it is made within about so long", unit="s"
    )
    crop: str | None = text(
        None,
        "of a preview alone: left,top,width,height of the part that it shows, in pixels of the upright photo; it is as"
        " large as that part of the result; unset: all of the photo",
    )
    preset: str = choice(DEFAULT_PRESET, tuple(PRESETS), f"the values that are not set; unset: {DEFAULT_PRESET}")
    audit: bool = flag(False, "audit the result: what of it was kept, reconstructed and invented; unset: false")
    scaled: bool = False
    """Whether a scale was said; it is no field of its own."""
    auditing: AuditOptions | None = None
    """How the result is audited, where that is asked for; likewise."""


OF_PRESET = ("preset", "audit")
"""Fields of a submission that may stand in the object of options too."""


def chosen_options(given: Mapping[str, str], model: Model) -> tuple[RestoreOptions, SubmissionOptions, list[str]]:
    """What the fields of a form ask for, and sentences about options that have no effect on a result.

    Args:
        given: ``options``, a JSON object of ``preset``, ``audit``, fields of ``RestoreOptions`` and ``AuditOptions``;
            and these, ``format``, ``until`` and the like, one by one as text. An empty text, or null, is the preset's
            value.
        model: that will restore it.

    Raises:
        OptionError: an unknown field, a value that it cannot have, or one that is given both ways.
    """
    form = {name: text for name, text in given.items() if text}
    chosen = json_object(form.pop("options", "{}"), "options is ")
    typed: dict[str, Any] = {}
    known = {**SubmissionOptions.fields(), **RestoreOptions.fields(), **AuditOptions.fields()}
    for name, value in form.items():
        if name not in known:
            raise OptionError(f"{name!r} is not a field; there are: file, options, {', '.join(known)}")
        if chosen.get(name) is not None:
            raise OptionError(f"{name} is given twice: in options and as a field of its own")
        typed[name] = known[name].parse(value)
    own = {name: typed.pop(name) for name in SubmissionOptions.fields() if name in typed}
    asked = SubmissionOptions.given({**{name: chosen.pop(name, None) for name in OF_PRESET}, **own})
    chosen |= typed
    auditing = _auditing(asked, {name: chosen.pop(name) for name in AuditOptions.fields() if name in chosen})
    found = model.options(asked.preset, **RestoreOptions.known(chosen))
    _check_crop_asked(asked, found)
    _check_texts(found)
    _check_files(found, model)
    said = [name for name, value in chosen.items() if value is not None] if asked.until == UNTIL[0] else []
    before = model.options(asked.preset)
    idle = without_effect(found, said, before) | unused_by_model(found, said, before, model.presets) if said else {}
    other_base = mismatch(found, model.distilled) if asked.until == UNTIL[0] else None
    idle |= {"base": other_base} if other_base else {}
    scaled = chosen.get("scale") is not None
    return found, dataclasses.replace(asked, scaled=scaled, auditing=auditing), list(idle.values())


def _auditing(asked: SubmissionOptions, given: Mapping[str, Any]) -> AuditOptions | None:
    """How the result is audited; None where it is not."""
    if asked.audit and asked.until == "preview":
        raise OptionError("audit is true, and until=preview makes no result that could be audited: leave out one")
    if asked.audit:
        return AuditOptions.given(given)
    if chosen := [name for name, value in given.items() if value is not None]:
        raise OptionError(
            f"{chosen[0]} says how the result is audited: ask for that too, by audit=true, or leave it out"
        )
    return None


def _check_crop_asked(asked: SubmissionOptions, options: RestoreOptions) -> None:
    if asked.crop is None:
        return
    if asked.until != "preview":
        raise OptionError(f"crop is {asked.crop!r}, and a part is shown of a preview alone: add until=preview")
    if asked.preview_side is not None or asked.preview_seconds is not None:
        raise OptionError(
            f"crop is {asked.crop!r}, and is shown as large as in the result: leave out preview_side, preview_seconds"
        )
    if other := [name for name in _SEES_ALL if getattr(options, name)]:
        raise OptionError(f"crop is {asked.crop!r}, and with {other[0]} a preview is made of the whole photo alone")


def checked_crop(asked: SubmissionOptions, path: Path, options: RestoreOptions) -> Crop | None:
    """The part that a preview is to show; None where it shows all of the photo.

    Raises:
        OptionError: it does not lie within the photo, or is worked on at more than `CROP_PIXELS`.
    """
    if asked.crop is None:
        return None
    from supir.image import read_size, working_size

    crop, (width, height) = Crop.parse(asked.crop), read_size(path)
    crop.check_within(width, height)
    size = working_size(width, height, options.scale, options.min_size)
    pixels = crop.width * crop.height * size.width * size.height / (width * height)
    if pixels > CROP_PIXELS:
        raise OptionError(
            f"crop is {crop}, which is worked on at {pixels:.0f} pixels; {CROP_PIXELS} are allowed: ask for less of the"
            " photo"
        )
    return crop


def check_auditing(asked: AuditOptions, width: int, height: int, scale: float) -> None:
    """See that the result of a picture of this size can be audited as asked.

    Raises:
        OptionError: it is too small or too large, the calibration cannot promise so much, or nobody here reads letters
            or compares faces.
    """
    from supir.audit import Calibration, check_asked
    from supir.audit.auditing import check_sizes
    from supir.image import working_size

    size = working_size(width, height, scale)
    try:
        check_sizes((width, height), (size.output_width, size.output_height))
    except OptionError as error:
        raise OptionError(f"{error}: choose another scale, or leave out audit") from error
    try:
        check_asked(asked, Calibration.load())
    except MissingExtraError as error:
        raise OptionError(f"{error}, where this service runs; or leave out the limit that needs it") from error


def checked_picture(
    path: Path,
    name: str,
    options: RestoreOptions,
    limits: Limits,
    preview_side: int | None = None,
    asked: SubmissionOptions | None = None,
) -> tuple[str, int, int, RestoreOptions]:
    """(suffix, width, height, options) of an upload, from its first bytes and header; nothing is decoded.

    Args:
        path: of the file.
        name: of the picture, for messages.
        options: what it is to be restored with.
        limits: of the client.
        preview_side: of a preview alone, as in `SubmissionOptions`.
        asked: with the format, and whether a scale was said; where none was, it is the largest that is allowed.

    Returns:
        The options are those given, but for the scale.

    Raises:
        ImageReadError: it is no picture that supir reads, or its header is damaged.
        ImageTooLargeError: it has more pixels than the client may send.
        OptionError: restored at this scale and size, it has more than the client may ask for.
    """
    from supir.image import check_file, check_masks, masks_in, read_size

    try:
        kind, width, height = check_file(path, max_pixels=int(limits.megapixels * 1e6))
    except ImageTooLargeError as error:
        raise ImageTooLargeError(_without(path, name, error).replace("(max_pixels)", "for this key")) from None
    except SupirError as error:
        raise type(error)(_without(path, name, error)) from None
    if asked is not None and not asked.scaled:
        options = with_fitting_scale(options, width, height, suffix_of(asked.format, FORMATS[kind.lower()]), limits)
    if preview_side is not None:
        options = options.replace(scale=max(0.05, min(options.scale, preview_side / max(width, height))))
    check_work(width, height, options, limits)
    if masks_in(options):
        check_masks(options, *read_size(path))  # as it stands upright
    return FORMATS[kind.lower()], width, height, options


def with_fitting_scale(options: RestoreOptions, width: int, height: int, suffix: str, limits: Limits) -> RestoreOptions:
    """Where nobody has said a scale: the options with the largest that a client may ask for.

    Args:
        options: with the preset's scale.
        width, height: of the picture, in pixels.
        suffix: of the result.
        limits: of the client.
    """
    from supir.image import UNASKED, scale_within

    scale = scale_within(width, height, options.scale, suffix, min(UNASKED, limits.work_megapixels * 1e6))
    return options if scale == options.scale else options.replace(scale=scale)


def check_work(width: int, height: int, options: RestoreOptions, limits: Limits) -> None:
    """See that a client may ask for a picture of this size with these options.

    Raises:
        OptionError: restored at this scale and size, it has more pixels.
    """
    from supir.image import working_size

    size = working_size(width, height, options.scale, options.min_size)
    megapixels = size.padded_width * size.padded_height / 1e6
    if megapixels > limits.work_megapixels:
        raise OptionError(
            f"{width} x {height} pixels at scale {options.scale:g} and min_size {options.min_size} are worked on at"
            f" {megapixels:.0f} megapixels; {limits.work_megapixels:g} are allowed: lower scale or min_size"
        )


def suffix_of(form_format: str | None, own: str, until: str = "result") -> str:
    """The suffix of a result: that of the format asked for, or the upload's own; a preview alone is a PNG."""
    if until == "preview":
        return FORMATS["png"]
    return own if form_format is None else FORMATS[form_format]


def digest_of(
    sha256: str,
    options: RestoreOptions,
    suffix: str,
    until: str = "result",
    audit: AuditOptions | None = None,
    crop: Crop | None = None,
) -> str:
    """One hash of everything that a request asks for; the name of the picture is no part of it."""
    whole: list[Any] = [sha256, dataclasses.asdict(options), suffix, until]
    whole += [dataclasses.asdict(audit)] if audit else []
    whole += [str(crop)] if crop else []
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def shown_name(name: str | None) -> str:
    """A user's file name as text that is safe to show: its last part, without what cannot be printed, not too long."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    plain = "".join(sign for sign in last if unicodedata.category(sign)[0] not in "CZ" or sign == " ")
    plain = plain.encode(errors="ignore").decode().strip(" .")
    return plain[:_MAX_NAME] or "picture"


def _check_texts(options: RestoreOptions) -> None:
    texts = [value for value in vars(options).values() if isinstance(value, str)]
    try:
        size = sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError as error:
        raise OptionError(f"a text of the options holds half a character ({error.reason})") from None
    if size > MAX_TEXT:
        raise OptionError(f"the texts of the options have {size} bytes; {MAX_TEXT} are allowed")


def _check_files(options: RestoreOptions, model: Model) -> None:
    """Only what the operator has put into a folder may be named: never a path."""
    masks = [("blend_mask", options.blend_mask)] if options.blend_mask else []
    for option, name in (*masks, *(("region", each.mask) for each in split_regions(options.region) if each.mask)):
        if not name.startswith(INLINE):
            raise OptionError(
                f"{option} is {name!r}; it names a file, and a service opens none of its own: send the mask as a small"
                f" PNG, {INLINE}..."
            )
    if options.faces != AS_ALL_ELSE and lacking(FACES) is not None:
        raise OptionError(
            f"faces is {options.faces!r}, and dlib, which finds them, is not installed here; leave it out"
        )
    if options.lora and model.loras is None:
        raise OptionError(f"lora is {options.lora!r}; this service offers none")
    if options.first and model.first_models is None:
        raise OptionError(f"first is {options.first!r}; this service offers none")
    try:
        model.check_first([options.first])
    except SupirError as error:
        raise OptionError(str(error)) from error
    try:
        model.check_loras([options.lora])
    except SupirError as error:
        raise OptionError(f"lora: {error}") from error


def _without(path: Path, name: str, error: Exception) -> str:
    return str(error).replace(str(path), name)

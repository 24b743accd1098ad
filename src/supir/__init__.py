"""supir restores photographs: a damaged, small or blurred picture goes in, a sharp one comes out.

    import supir

    pipeline = supir.SupirPipeline.from_pretrained()
    [restored] = pipeline([supir.read("photo.jpg")], supir.restore_options(scale=4))
    supir.write(restored.picture, "restored.png", record=restored.record)

Names are loaded when first used (PEP 562), so that importing `supir` costs nothing: torch alone takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from supir.errors import (
        CaptionerError,
        CaptionError,
        ImageError,
        ImageReadError,
        ImageTooLargeError,
        ImageWriteError,
        KeyMismatchError,
        MissingExtraError,
        OptionError,
        OutOfMemoryError,
        StateError,
        StudyError,
        SupirError,
        UnsafeCheckpointError,
        WeightsError,
    )
    from supir.image import Picture, find_pictures, read, write
    from supir.options import PRESETS, RestoreOptions, restore_options
    from supir.pipeline import Restored, SupirPipeline

__all__ = [
    "PRESETS",
    "CaptionError",
    "CaptionerError",
    "ImageError",
    "ImageReadError",
    "ImageTooLargeError",
    "ImageWriteError",
    "KeyMismatchError",
    "MissingExtraError",
    "OptionError",
    "OutOfMemoryError",
    "Picture",
    "RestoreOptions",
    "Restored",
    "StateError",
    "StudyError",
    "SupirError",
    "SupirPipeline",
    "UnsafeCheckpointError",
    "WeightsError",
    "__version__",
    "find_pictures",
    "read",
    "restore_options",
    "write",
]

_HOME = {
    **dict.fromkeys(("PRESETS", "RestoreOptions", "restore_options"), "supir.options"),
    **dict.fromkeys(("Picture", "find_pictures", "read", "write"), "supir.image"),
    **dict.fromkeys(("Restored", "SupirPipeline"), "supir.pipeline"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'supir' has no attribute {name!r}; it offers {', '.join(__all__)}")
    value = getattr(import_module(_HOME.get(name, "supir.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)

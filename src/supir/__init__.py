"""supir restores photographs: a damaged, small or blurred picture goes in, a sharp one comes out.

    import supir

    pipeline = supir.SupirPipeline.from_pretrained()
    [restored] = pipeline([supir.read("photo.jpg")], supir.restore_options(scale=4))
    supir.write(restored.picture, "restored.png", record=restored.record)

Names are loaded when first used, so that importing `supir` costs nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from supir.lazy import lazy_names

# Threads that wait for others sleep. By default they spin, which gains little and keeps others off the core. Heard when
# torch is loaded after this; how many threads there are, OMP_NUM_THREADS says.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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

__getattr__ = lazy_names(
    __name__,
    {
        "errors": [name for name in __all__ if name.endswith("Error")],
        "options": ("PRESETS", "RestoreOptions", "restore_options"),
        "image": ("Picture", "find_pictures", "read", "write"),
        "pipeline": ("Restored", "SupirPipeline"),
    },
)


def __dir__() -> list[str]:
    return list(__all__)

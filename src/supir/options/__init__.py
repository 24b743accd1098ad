"""What a user may set: options that are checked when they are made, their combinations, and the named presets.

    fields          how an option is written down: its range, its sentence, one way to check
    restore         the options of a restoration, and the presets
    presets         what the presets come to with a given model
    combinations    which options act together, and which have no effect beside others
    levels          noise levels as plain numbers
    dials           what one dial comes to, and how values go over one another
    regions         places of a picture with what is to be done there
    loras           the LoRAs that a text names
    published       settings as the retired ComfyUI nodes call them
    packages        what some options need that is not installed with supir
    distilled       bases distilled to few steps, and which options are not for them

Nothing heavy is imported here.
"""

from supir.options.dials import GOES_WITH
from supir.options.restore import (
    DEFAULT_PRESET,
    NOTICE,
    PRESETS,
    TRADE_OFFS,
    CaptionOptions,
    IdleOptionWarning,
    NetworkOptions,
    RestoreOptions,
    SigningOptions,
    restore_options,
    unused_by_model,
    unused_options,
    warn_of_idle,
)

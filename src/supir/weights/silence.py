"""One voice, ours, while a model is loaded and used."""

from __future__ import annotations

import logging
import threading


def silence_libraries() -> None:
    """No bars, notices or complaints of the libraries we stand on."""
    # torchao and bitsandbytes, where they are installed, complain of GPUs and kernels that are not there.
    for name in ("bitsandbytes", "torchao", "torch.utils._pytree", "diffusers.quantizers.torchao"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("pyvips").setLevel(logging.WARNING)
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    # The lock that tqdm makes itself is a semaphore of the system, which a worker that is killed leaves behind.
    diffusers_logging.tqdm.set_lock(threading.RLock())
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()  # a command has one bar, over everything
        library.set_verbosity_error()

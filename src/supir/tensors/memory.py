"""Memory of processors and accelerators: what there is, how it is said that there is none left, and giving it back."""

from __future__ import annotations

import errno
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from supir.errors import OutOfMemoryError

SIGNS = (
    "out of memory",
    "out_of_memory",
    "outofmemory",
    "allocate memory",
    "allocate tensor",
    "not enough memory",
    "insufficient memory",
    "bad_alloc",
    "bad allocation",
    "paging file is too small",  # Windows, error 1455: reading weights
    # CUDA and ROCm: their libraries allocate for themselves, and PyTorch's allocator asks the driver what is left.
    "status_alloc_failed",
    "statusallocfailed",
    "allocation_failed",
    "memoryallocation",
    "rocblas_status_memory_error",
    "cublas_status_not_initialized when calling `cublascreate",
    "unable to find an engine to execute",
    "unable to find a valid cudnn algorithm",
    "nvml_success == r",
    # Intel GPUs.
    "out_of_device_memory",
    "out_of_host_memory",
    "error_out_of_resources",
    # Apple GPUs refuse single buffers.
    "invalid buffer size",
    # oneDNN, which names no reason.
    "could not create a memory object",
    "could not create a primitive",
    "could not execute a primitive",
)
"""What errors without a type of their own say, in lower case."""
_WINDOWS_COMMITMENT_LIMIT = 1455


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of whichever device and in whose words ever."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM or getattr(error, "winerror", None) == _WINDOWS_COMMITMENT_LIMIT
    if not isinstance(error, Exception):
        return False
    text = str(error).lower()
    return any(sign in text for sign in SIGNS)


@contextmanager
def naming_lack_of_memory(doing: str, advice: str) -> Iterator[None]:
    """Errors that say in their own words that memory ran out become a sentence.

    It tells what is done meanwhile, as in ``loading the weights``, and what would take less.

    Raises:
        OutOfMemoryError: memory ran out.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        if not ran_out(error):
            raise
        [reason, *_] = str(error).strip().splitlines() or [type(error).__name__]
        raise OutOfMemoryError(f"memory ran out {doing}: {reason}; {advice}") from error


def give_back() -> None:
    """What this process has freed goes back to the device, whichever it is, so that others can have it.

    To be called when the error is gone with all that its traceback held.
    """
    gc.collect()  # networks hold one another in circles
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None:
        empty = getattr(torch.get_device_module(accelerator), "empty_cache", None)
        if empty is not None:
            empty()


def available(device: torch.device | str) -> int | None:
    """Bytes that this process may still fill on a device, those that it has freed included; None where nobody knows.

    Of the processor nobody knows: what the system would take from others, or from its disk, is not ours to plan with.
    """
    device = torch.device(device)
    if device.type in ("cpu", "meta"):
        return None
    module = torch.get_device_module(device)
    try:
        if device.type == "mps":
            return int(module.recommended_max_memory()) - int(module.current_allocated_memory())
        free, _ = module.mem_get_info(device)
        kept = int(module.memory_reserved(device)) - int(module.memory_allocated(device))
    except (AttributeError, RuntimeError):  # some integrated GPUs do not tell
        return None
    return int(free) + kept


def stored_bytes(tensor: torch.Tensor) -> int:
    """What a tensor takes, also one that stands for others: torchao's says the width of what it is widened to."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return tensor.nbytes
    names, _ = tensor.__tensor_flatten__()
    return sum(stored_bytes(getattr(tensor, name)) for name in names)

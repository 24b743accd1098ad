"""Where the networks run and in which arithmetic: decided here, once, for every command and the Python class.

The device is the one that is named, else the machine's accelerator, else the processor. The arithmetic follows from
the device that will really be used and from what the model folder says that its networks bear.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch

from supir.errors import OptionError
from supir.options import NetworkOptions

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
"""By name; a folder that says nothing bears them all, and an accelerator is given the first that it has."""
BUILDS = {
    "cuda": "torch for CUDA or ROCm from https://pytorch.org/get-started",
    "xpu": "torch for XPU from https://pytorch.org/get-started",
    "mps": "torch for macOS on a Mac with Apple's processor",
    "npu": "the package torch_npu",
}
"""What must be installed where the torch that is here knows nothing of a kind of device."""

LOST = (
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "illegal instruction was encountered",
    "misaligned address",
    "launch timed out",
    "uncorrectable ecc",
    "device lost",
    "device_lost",
)
"""What errors say after which a context of CUDA, ROCm or Level Zero is dead."""


def best_device() -> str:
    """The accelerator that torch sees (CUDA, ROCm as ``cuda``, XPU, MPS, NPU), else ``cpu``."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if found is None else found.type


def devices(kind: str | None = None) -> tuple[str, ...]:
    """Every device of a kind, one for each worker in turn: ``cuda:0``, ``cuda:1``; unset: of the best kind."""
    kind = best_device() if kind is None else kind
    number = _number(kind)
    return (kind,) if number == 1 else tuple(f"{kind}:{index}" for index in range(number))


def find_device(name: str | None) -> torch.device:
    """The device of this name; None is ``best_device``.

    Raises:
        OptionError: there is none of that name here; it says what there is.
    """
    if name is None:
        return torch.device(best_device())
    try:
        device = torch.device(name)
    except RuntimeError:
        needs = f" without {BUILDS[name.split(':')[0]]}" if name.split(":")[0] in BUILDS else ""
        raise OptionError(f"device is {name!r}, which torch does not know{needs}; {_what_there_is()}") from None
    if device.type == "cpu":
        return torch.device("cpu")
    number = _number(device.type)
    if number == 0:
        raise OptionError(f"device is {name!r}, and {_why_absent(device.type)}; {_what_there_is()}")
    if (device.index or 0) >= number:
        raise OptionError(f"device is {name!r}, and {device.type} counts to {number - 1} here; {_what_there_is()}")
    return device


def kind_of(name: str) -> str:
    """The kind of a device that need not be here: ``cuda`` of ``cuda:1``.

    Raises:
        OptionError: networks run on no such kind.
    """
    kind = name.split(":")[0]
    if kind not in ("cpu", best_device(), *BUILDS):
        raise OptionError(f"device is {name!r}; networks run on cpu, {', '.join(BUILDS)}")
    return kind


def choose_dtype(asked: str, kind: str, borne: Sequence[str] | None = None) -> torch.dtype:
    """The arithmetic of the networks on a kind of device.

    Args:
        asked: a key of ``DTYPES``, or ``auto``: float32 on a processor, so that one that multiplies bfloat16 fast makes
            no other picture than one that does not; elsewhere the first of ``borne`` that the device has.
        kind: of the device: ``cuda``; need not be here.
        borne: what the model folder says (``dtypes`` in its index), in the order of preference; None is all.
    """
    if asked != "auto":
        return DTYPES[asked]
    if kind == "cpu":
        return torch.float32
    able = [DTYPES[name] for name in borne or DTYPES if name in DTYPES and (name != "bfloat16" or has_bfloat16(kind))]
    return able[0] if able else torch.float32


def choose_vae_dtype(
    asked: str, beside: torch.dtype, kind: str, borne: Sequence[str] | None = None, *, overflows: bool = True
) -> torch.dtype:
    """The arithmetic of the autoencoder on a kind of device.

    Args:
        asked: a key of ``DTYPES``, or ``auto``: see ``NetworkOptions.vae_dtype_beside``.
        beside: that of the networks.
        kind, borne: as in ``choose_dtype``.
        overflows: whether it gets beyond the numbers of float16 (``force_upcast`` in its configuration), as SDXL's.

    Raises:
        OptionError: the device has no such arithmetic, or the model does not bear it.
    """
    if asked == "auto":
        return DTYPES[NetworkOptions.vae_dtype_beside(str(beside).removeprefix("torch."))]
    said = f"vae_dtype is {asked!r}, "
    if asked == "bfloat16" and not has_bfloat16(kind):
        raise OptionError(f"{said}which {kind} does not multiply here; use auto or float32 (--vae-dtype)")
    if borne is not None and asked not in borne:
        raise OptionError(
            f"{said}and the model bears {', '.join(borne)} (dtypes in its model_index.json); use one of these"
        )
    if asked == "float16" and overflows:
        raise OptionError(
            f"{said}in which this autoencoder overflows (force_upcast in its config.json); use bfloat16 or float32, or"
            " convert the model with one made for float16 (--vae)"
        )
    return DTYPES[asked]


def wider_dtypes(dtype: torch.dtype, kind: str) -> tuple[torch.dtype, ...]:
    """What to try where the numbers of ``dtype`` end: bfloat16 reaches as far as float32."""
    if dtype is torch.float16:
        return (torch.bfloat16, torch.float32) if has_bfloat16(kind) else (torch.float32,)
    return (torch.float32,) if dtype is torch.bfloat16 else ()


def has_bfloat16(kind: str) -> bool:
    """Whether a kind of device multiplies bfloat16 itself; a kind that is not here is taken for a new one."""
    if kind in ("cuda", "xpu") and _number(kind):
        return bool(getattr(torch, kind).is_bf16_supported(including_emulation=False))
    return kind != "mps" or not _number(kind) or torch.backends.mps.is_macos_or_newer(14, 0)


def is_lost(error: BaseException) -> bool:
    """Whether an error leaves the accelerator useless for the rest of the process, as an illegal access does."""
    kind = getattr(torch, "AcceleratorError", None)
    return (kind is not None and isinstance(error, kind)) or (
        isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in LOST)
    )


def _number(kind: str) -> int:
    if kind == "cpu":
        return 1
    found = _module(kind)
    return int(found.device_count()) if found is not None and getattr(found, "is_available", lambda: True)() else 0


def _module(kind: str) -> ModuleType | None:
    """``torch.cuda`` and its likes; None where this build of torch has none of that kind."""
    try:
        found = torch.get_device_module(kind)
    except RuntimeError:
        return None
    return found if hasattr(found, "device_count") else None


def _why_absent(kind: str) -> str:
    built = {"cuda": torch.backends.cuda.is_built, "mps": torch.backends.mps.is_built}.get(kind)
    if _module(kind) is None or (built is not None and not built()):
        needed = f", which needs {BUILDS[kind]}" if kind in BUILDS else ""
        return f"this torch ({torch.__version__}) is built without {kind}{needed}"
    return f"torch ({torch.__version__}) finds no {kind} device: none is there, its driver is missing, or it is hidden"


def _what_there_is() -> str:
    found = () if best_device() == "cpu" else devices()
    return "here there is " + " and ".join([", ".join(found), "cpu"] if found else ["cpu alone"])

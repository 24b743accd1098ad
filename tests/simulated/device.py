"""The simulated device ``sim``: importing this module registers it for the rest of the process.

`SimulatedTensor` says that it lies on ``sim:0`` and keeps its numbers in a tensor of the processor, ``inside``. Each
operation comes to `run`, which checks the rules of an accelerator, computes on the processor, and wraps the result.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration

NAME = "sim"
aten = torch.ops.aten


@dataclass
class Counts:
    """What an accelerator's user waits for."""

    waits: int = 0
    """Numbers and tensors that the host asked of the device, each of which drains its queue."""
    copies: int = 0
    """Tensors that went from the host to the device."""


counts = Counts()
"""Since the process began; `counted` gives those of a block."""


@contextmanager
def counted() -> Iterator[Counts]:
    """The waits and copies of a block; complete when it is left."""
    before, found = Counts(counts.waits, counts.copies), Counts()
    yield found
    found.waits, found.copies = counts.waits - before.waits, counts.copies - before.copies


class SimulatedTensor(Tensor):
    """A tensor on the simulated device.

    Args:
        inside: its numbers, on the processor; a tensor of the meta device, which has none, stays what it is.
        requires_grad: taken for parameters that libraries make anew from their class.
        device: of the new tensor.
    """

    inside: Tensor

    def __new__(cls, inside: Tensor, requires_grad: bool = False, device: torch.device | None = None) -> Any:
        if inside.is_meta:
            return torch.nn.Parameter(inside, requires_grad=False)
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inside.shape,
            strides=inside.stride(),
            storage_offset=inside.storage_offset(),
            dtype=inside.dtype,
            device=device or torch.device(NAME, 0),
        )
        made.inside = inside.inside if isinstance(inside, SimulatedTensor) else inside
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def data_ptr(self) -> int:
        return self.inside.data_ptr()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"{self.inside!r} on {self.device}"


COPIES = (aten.copy_.default, aten._to_copy.default)
READS = (
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
)
"""Operations whose result, or its shape, the host must have before it goes on."""
MADE_AT_ONCE = ("arange", "arange.start", "arange.start_step", "eye", "eye.m")
"""Operations that torch would compose of an empty tensor and one that gives it its shape, which a wrapper cannot."""
INDEXED = ("index", "_index_put_impl_")
"""Operations that take the indices from the processor too, as on CUDA: a copy."""


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """One operation: checked, computed on the processor, its results wrapped where they belong to the device."""
    far: list[SimulatedTensor] = []
    near: list[Tensor] = []
    args, kwargs = _inside(args, far, near), _inside(kwargs, far, near)
    asked = kwargs.get("device")
    place = torch.device(asked) if asked is not None else far[0].device if far else torch.device("cpu")
    there = place.type == NAME
    if there and place.index is None:
        place = torch.device(NAME, Accelerator.current)
    if func in COPIES:
        to_device = there if func is aten._to_copy.default else bool(far) and far[0].inside is args[0]
        counts.copies += bool(near) and to_device
        counts.waits += bool(far) and not to_device
    else:
        _check(func, far, near)
    counts.waits += bool(far) and func in READS
    assert not there or getattr(kwargs.get("generator"), "device", place).type == NAME, (
        f"{func}: a generator of the processor draws on the device"
    )
    if there and asked is not None:
        kwargs["device"] = "cpu"
    out = func(*args, **kwargs)
    if func is aten.copy_.default:
        return _owner(out, far, place) if far and far[0].inside is args[0] else out
    return _wrapped(out, far, place, func) if there else out


def _check(func: Any, far: list[SimulatedTensor], near: list[Tensor]) -> None:
    if not far:
        return
    name = func._schema.name.removeprefix("aten::")
    mixed = [each for each in near if each.ndim]
    if mixed and name.startswith(INDEXED):
        counts.copies += len(mixed)
        mixed = []
    assert not mixed, f"{func}: tensors of the device and of the processor, {[tuple(each.shape) for each in mixed]}"
    places = {each.device for each in far}
    assert len(places) == 1 or not all(each.ndim for each in far), f"{func}: tensors of {places}"
    if name.startswith(INDEXED) and any(each.dtype in (torch.bool, torch.uint8) for each in far[1:]):
        counts.waits += 1  # how many there are is not known to the host


def _inside(value: Any, far: list[SimulatedTensor], near: list[Tensor]) -> Any:
    """What the processor computes on; the tensors are sorted into those of the device and of the processor."""
    if isinstance(value, SimulatedTensor):
        far.append(value)
        return value.inside
    if isinstance(value, Tensor):
        near.append(value)
        return value
    if isinstance(value, (tuple, list)):
        return type(value)([_inside(each, far, near) for each in value])
    if isinstance(value, dict):
        return {name: _inside(each, far, near) for name, each in value.items()}
    return value


def _wrapped(value: Any, far: list[SimulatedTensor], place: torch.device, func: Any) -> Any:
    if isinstance(value, Tensor):
        assert value.dtype is not torch.float64, f"{func}: float64 on the device, which MPS does not have"
        return _owner(value, far, place)
    if isinstance(value, (tuple, list)):
        return type(value)([_wrapped(each, far, place, func) for each in value])
    return value


def _owner(value: Tensor, far: list[SimulatedTensor], place: torch.device) -> Tensor:
    """The tensor that was changed in place, or a new one."""
    for known in far:
        if known.inside is value:
            assert known.shape == value.shape, "an operation gave its result another shape; add it to MADE_AT_ONCE"
            return known
    made: Tensor = SimulatedTensor(value, device=place)
    return made


class Accelerator(backend_registration._DummyBackendModule):  # type: ignore[misc]
    """What torch and libraries ask of ``torch.sim``."""

    count = 1
    """Devices that there are; a test may set it."""
    current = 0

    @classmethod
    def device_count(cls) -> int:  # type: ignore[override]
        return cls.count

    @classmethod
    def current_device(cls) -> int:  # type: ignore[override]
        return cls.current

    @classmethod
    def set_device(cls, device: Any) -> None:
        cls.current = torch.device(NAME, device).index if isinstance(device, int) else torch.device(device).index or 0

    @staticmethod
    def empty_cache() -> None:
        """There is none."""

    @staticmethod
    def synchronize(device: Any = None) -> None:
        """Nothing runs on its own."""

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        """What autocast may compute in."""
        return [torch.float16, torch.bfloat16]

    @staticmethod
    def _lazy_init() -> None:
        """Nothing is begun."""


def _data(self: Tensor) -> Tensor:
    return _C_DATA.__get__(self)


def _set_data(self: Tensor, value: Tensor) -> None:
    """``tensor.data = other`` also where one of them is simulated: what is inside must follow."""
    if isinstance(self, SimulatedTensor) or isinstance(value, SimulatedTensor):
        fresh = value.detach()
        if isinstance(self, torch.nn.Parameter) or getattr(self, "_is_param", False):
            fresh = torch.nn.Parameter(fresh, requires_grad=self.requires_grad)
        torch.utils.swap_tensors(self, fresh)
    else:
        _C_DATA.__set__(self, value)


_C_DATA = torch._C.TensorBase.data  # type: ignore[attr-defined]
backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Accelerator())
_LIBRARIES = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
_LIBRARIES[0].fallback(lambda func, *args, **kwargs: run(func, args, kwargs), "PrivateUse1")
_LIBRARIES[1].impl(
    "_copy_from", lambda src, dst, _=False: (run(aten.copy_.default, (dst, src), {}), dst)[1], "PrivateUse1"
)
for _name in MADE_AT_ONCE:
    _operation = getattr(aten, _name.split(".")[0])
    _overload = getattr(_operation, _name.split(".")[1] if "." in _name else "default")
    _LIBRARIES[1].impl(
        _name, functools.partial(lambda func, *args, **kwargs: run(func, args, kwargs), _overload), "PrivateUse1"
    )
torch.Tensor.data = property(_data, _set_data)  # type: ignore[assignment, misc]
torch.__future__.set_overwrite_module_params_on_conversion(True)  # type: ignore[no-untyped-call]

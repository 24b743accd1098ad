"""Lack of memory is known in all its spellings, said in a sentence, and what was freed goes back to every device."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest
import torch

from supir.errors import OutOfMemoryError
from supir.tensors import memory

SAID = {
    "CUDA": "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.2 GiB",
    "CUDA runtime": "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API",
    "CUDA driver": "CUDA driver error: out of memory",
    "cuDNN": "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN 9": "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuBLAS": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuBLAS handle": "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN engine": "GET was unable to find an engine to execute this computation",
    "cuDNN search": "FIND was unable to find an engine to execute this computation",
    "cuDNN algorithm": "Unable to find a valid cuDNN algorithm to run convolution",
    "NVML": 'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":1090, please report',
    "ROCm": "HIP out of memory. Tried to allocate 256.00 MiB. GPU 0 has a total capacity of 15.98 GiB",
    "ROCm runtime": "hipErrorOutOfMemory",
    "hipBLAS": "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "MIOpen": "miopenStatusAllocFailed",
    "XPU": "XPU out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.56 GiB",
    "Level Zero": "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    "Level Zero resources": "Native API failed. Native API returns: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)",
    "SYCL": "Native API failed. Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES) -5 (PI_ERROR_OUT_OF_RESOURCES)",
    "MPS": "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB).",
    "MPS buffer": "Invalid buffer size: 24.00 GiB",
    "Metal": "Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    "Ascend": "NPU out of memory. Tried to allocate 64.00 MiB (NPU 0; 32.00 GiB total capacity)",
    "DirectML": "Could not allocate tensor with 83886080 bytes. There is not enough GPU video memory available!",
    "Linux": "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
    "Windows": "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to",
    "C++": "std::bad_alloc",
    "C++ of Microsoft": "bad allocation",
    "Windows paging": "Error: The paging file is too small for this operation to complete. (os error 1455)",
    "oneDNN": "could not create a primitive",
}
"""What PyTorch and the libraries below it have said to people, by who said it."""
OTHERS = (
    "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: device-side assert triggered",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
    "required rank 4 tensor to use channels_last memory format",
    "Adaptive pool MPS: input sizes must be divisible by output sizes.",
    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
)


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_lack_of_memory_is_known_by_its_words(said: str) -> None:
    assert memory.ran_out(RuntimeError(said))
    sentence = pytest.raises(OutOfMemoryError, match=r"^memory ran out loading: .*; free some$")
    with sentence, memory.naming_lack_of_memory("loading", "free some"):
        raise RuntimeError(said)


def test_lack_of_memory_is_known_by_its_type() -> None:
    limit = OSError(22, "The paging file")
    limit.winerror = 1455  # type: ignore[attr-defined]
    for error in (MemoryError(), torch.OutOfMemoryError("x"), OSError(errno.ENOMEM, "Cannot allocate memory"), limit):
        assert memory.ran_out(error)
    assert not memory.ran_out(OSError(errno.ENOSPC, "No space left on device"))
    assert not memory.ran_out(KeyboardInterrupt("out of memory"))


@pytest.mark.parametrize("said", OTHERS)
def test_other_errors_stay_what_they_are(said: str) -> None:
    error = RuntimeError(said)
    assert not memory.ran_out(error)
    with pytest.raises(RuntimeError) as caught, memory.naming_lack_of_memory("loading", "free some"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("device", ["cuda", "xpu", "mps", "npu"])
def test_what_was_freed_goes_back_to_whichever_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[str] = []
    accelerator = SimpleNamespace(type=device)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: accelerator)
    module = SimpleNamespace(empty_cache=lambda: emptied.append(device))
    monkeypatch.setattr(torch, "get_device_module", lambda given: module if given is accelerator else None)
    memory.give_back()
    assert emptied == [device]


def test_what_is_available_is_what_the_device_says_and_what_was_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.available("cpu") is None
    cuda = SimpleNamespace(
        mem_get_info=lambda device: (5_000, 9_000),
        memory_reserved=lambda device: 3_000,
        memory_allocated=lambda device: 1_000,
    )
    apple = SimpleNamespace(recommended_max_memory=lambda: 9_000, current_allocated_memory=lambda: 2_000)
    modules = {"cuda": cuda, "mps": apple, "xpu": SimpleNamespace()}
    monkeypatch.setattr(torch, "get_device_module", lambda given: modules[given.type])
    assert memory.available("cuda:1") == 7_000
    assert memory.available(torch.device("mps")) == 7_000
    assert memory.available("xpu") is None

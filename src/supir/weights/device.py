"""Where networks run unless somebody says otherwise."""

from __future__ import annotations


def best_device() -> str:
    """``cuda`` or ``mps`` if torch sees such a GPU, else ``cpu``."""
    import torch

    if torch.cuda.is_available():  # ROCm builds answer here too
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"

"""Whether torch finds a GPU, found out without importing torch where it certainly finds none."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

NVIDIA = "libcuda.so.1"
"""The library of NVIDIA's driver, which CUDA opens by this name."""
AMD = Path("/dev/kfd")
"""The device through which ROCm reaches GPUs."""


def gpu_present() -> bool:
    """True if torch finds a GPU. Without a driver there is none, and importing torch takes seconds."""
    if sys.platform == "linux" and not AMD.exists() and not _opens(NVIDIA):
        return False
    import torch

    return torch.cuda.is_available()


def _opens(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True

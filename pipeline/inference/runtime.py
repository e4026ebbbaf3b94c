"""The state of torch around a forward pass, and the names of what a process computes with.

Two properties of torch 2.6 to 2.13 on a CPU, both measured, are worked around here and in ``predictor.py``:

- Element-wise kernels treat the body of a tensor (vectors) and its tail (scalars) differently, so in a batch of odd
  shape a few voxels change with the patch's place in the batch (up to 15 of 70,818). So a CPU runs patch by patch.
- With one patch, 3D convolutions of fewer than 20,480 channels x planes x rows leave oneDNN for an im2col that took
  1.9 times as long (24 x 64 x 64, one thread). ``_OneDnnConvolutions`` sends them to oneDNN; a patch alone is then as
  fast as one in a batch of four.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pipeline.inference.options import PredictOptions

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")
"""Environment variables that keep torch's libraries from instructions that the processor has."""
BEYOND_AVX512 = frozenset({"avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_fp16"})
"""Instructions for short floats, as Linux names them; to torch a processor with them is AVX512 like one without."""


def environment_names(options: PredictOptions) -> dict[str, str]:
    """What this process computes with, in words, for messages: equal words do not mean equal bytes (``probe.py``)."""
    common = {"device": options.resolved_device(), "torch": str(torch.__version__)}
    if common["device"] == "cuda":
        cudnn = str(torch.backends.cudnn.version())
        return common | {"gpu": gpu_name(), "cuda": str(torch.version.cuda), "cudnn": cudnn}
    limits = {name: os.environ[name] for name in LIMITS if name in os.environ}
    processor, flags = processor_facts()
    instructions = [torch.backends.cpu.get_cpu_capability(), *sorted(flags & BEYOND_AVX512)]
    return common | {"processor": processor, "instructions": " ".join(instructions)} | limits


def processor_facts() -> tuple[str, set[str]]:
    """Name and flags of this machine's processor, as Linux knows them; elsewhere its architecture and no flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine(), set()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return facts.get("model name", platform.machine()), set(facts.get("flags", "").split())


def gpu_name() -> str:
    """The GPU of this process, as ``nvidia-smi -L`` names it."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


@contextmanager
def forward_state(options: PredictOptions) -> Iterator[None]:
    """Inference mode, threads, precision and determinism for the calling thread; all restored at the end."""
    device = options.resolved_device()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if device == "cuda":
            stack.enter_context(_cuda_algorithms(options.deterministic))
        else:
            stack.enter_context(_cpu_threads(options.threads))
            if not options.compile:
                stack.enter_context(_OneDnnConvolutions())
        if options.precision == "bfloat16":
            stack.enter_context(torch.autocast(device, dtype=torch.bfloat16))
        yield


@contextmanager
def _cpu_threads(threads: int) -> Iterator[None]:
    """Set the threads of a forward pass, in the thread that runs it: OpenMP keeps a number for each thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _cuda_algorithms(deterministic: bool) -> Iterator[None]:
    """Fix the choice of algorithms, or, if not deterministic, try which is fastest (which can differ between runs)."""
    if deterministic:  # cuBLAS is deterministic only with a fixed workspace, which it reads from the environment
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=not deterministic, deterministic=deterministic, allow_tf32=False
        ):
            yield
    finally:
        torch.use_deterministic_algorithms(before)


class _OneDnnConvolutions(TorchFunctionMode):
    """Sends every dense float32 3D convolution to oneDNN, whatever its size."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv3d and torch.backends.mkldnn.is_available():
            return _conv3d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    plain = input.dim() == 5 and input.dtype == weight.dtype == torch.float32 and not isinstance(padding, str)
    if not plain or torch.is_autocast_enabled("cpu"):
        return torch.conv3d(input, weight, bias, stride, padding, dilation, groups)
    return torch.mkldnn_convolution(input, weight, bias, _triple(padding), _triple(stride), _triple(dilation), groups)


def _triple(value: Any) -> list[int]:
    return [value] * 3 if isinstance(value, int) else list(value)

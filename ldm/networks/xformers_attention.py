"""xformers, imported only when a CUDA attention call asks for it, and only trusted after a trial.

Legend: b batch, n queries, m keys, h heads, d channels of a head.

Why a trial: a wheel built for another CUDA runtime imports with nothing but a warning and then
refuses every call; and which kernels exist depends on the card, the dtype, the head width and on
whether a mask is a tensor. So each such combination is run once, forward and backward, on tiny
tensors. None of this has yet been run on a GPU.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

# A tensor bias must have strides of a multiple of this many elements (8 for 16-bit types).
BIAS_ALIGNMENT = 8


def obstacle(q: Tensor, *, masked: bool, causal: bool) -> str | None:
    """Why xformers cannot run attention on tensors like q `[b n h d]` here; None when it can."""
    if q.device.type != "cuda":
        return f"xformers' attention runs on CUDA only and the tensors are on {q.device.type}"
    reason = missing()
    if reason is not None:
        return reason
    kind = "tensor" if masked else "causal" if causal else "none"
    capability = torch.cuda.get_device_capability(q.device)
    return _trial(q.dtype, q.shape[-1], kind, capability, q.device)


@functools.cache
def missing() -> str | None:
    """Why the package itself is unusable (not installed, extension not loaded), or None."""
    if importlib.util.find_spec("xformers") is None:
        return "the package xformers is not installed (pip install xformers)"
    try:
        load()
        library = importlib.import_module("xformers._cpp_lib")
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        return f"importing xformers failed: {type(error).__name__}: {error}"
    if not getattr(library, "_built_with_cuda", False):
        return (
            "xformers' CUDA extension does not load with this PyTorch "
            f"({torch.__version__}, CUDA {torch.version.cuda}); where it misses libcudart.so.12, "
            "pip install nvidia-cuda-runtime-cu12 provides it"
        )
    return None


@functools.cache
def load() -> ModuleType:
    """Import `xformers.ops`, after giving its extension the CUDA 12 runtime if one is installed."""
    _preload_cuda_runtime()
    logging.getLogger("xformers").setLevel(logging.ERROR)  # five warnings at import otherwise
    return importlib.import_module("xformers.ops")


def _preload_cuda_runtime() -> Path | None:
    """Load libcudart.so.12 from the package nvidia-cuda-runtime-cu12; the path loaded, or None.

    The wheels of xformers link against that library, and PyTorch built for CUDA 13 lacks it.
    """
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "cuda_runtime" / "lib" / "libcudart.so.12"
        if path.exists():
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            return path
    return None


@functools.cache
def _trial(
    dtype: torch.dtype, d: int, kind: str, capability: tuple[int, int], device: torch.device
) -> str | None:
    """Run one small attention forward and backward; the reason of a failure, or None."""
    try:
        _try_kernel(dtype, d, kind, device)
    # xformers answers an unsupported combination with any of these (KeyError for float64).
    except (NotImplementedError, KeyError, ValueError, RuntimeError, AssertionError) as error:
        first = str(error).strip().splitlines()[:1]
        return (
            f"xformers has no working kernel for {dtype}, head width {d}, mask {kind}, "
            f"compute capability {capability[0]}.{capability[1]} "
            f"({type(error).__name__}: {first[0] if first else 'no message'})"
        )
    return None


def _try_kernel(dtype: torch.dtype, d: int, kind: str, device: torch.device) -> None:
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        q, k, v = (
            torch.ones(2, 5, 2, d, dtype=dtype, device=device, requires_grad=True) for _ in range(3)
        )
        allowed = torch.ones(2, 1, 5, 5, dtype=torch.bool, device=device)
        out = run(q, k, v, allowed=allowed if kind == "tensor" else None, causal=kind == "causal")
        out.float().sum().backward()
        if not bool(out.isfinite().all()):
            raise RuntimeError("the trial gave values that are not finite")


def run(q: Tensor, k: Tensor, v: Tensor, *, allowed: Tensor | None, causal: bool) -> Tensor:
    """xformers' attention. q `[b n h d]`, k v `[b m h d]`, allowed bool `[b 1 n|1 m]` or None."""
    ops = load()
    bias: Any = None
    if allowed is not None:
        bias = tensor_bias(allowed, q.shape[1], q.shape[2], q.dtype)
    elif causal:
        bias = importlib.import_module("xformers.ops.fmha.attn_bias").LowerTriangularMask()
    kernel: Callable[..., Tensor] = ops.memory_efficient_attention
    return kernel(q.contiguous(), k.contiguous(), v.contiguous(), attn_bias=bias)


def tensor_bias(allowed: Tensor, n: int, heads: int, dtype: torch.dtype) -> Tensor:
    """The additive form `[b h n m]` of a bool mask `[b 1 n|1 m]`, strided as xformers demands.

    Rows are allocated with a multiple of eight keys and cut to m, so that their stride is aligned.
    """
    b, m = allowed.shape[0], allowed.shape[-1]
    padded = -(-m // BIAS_ALIGNMENT) * BIAS_ALIGNMENT
    bias = torch.zeros(b, 1, n, padded, dtype=dtype, device=allowed.device)
    bias[..., :m].masked_fill_(~allowed, -torch.inf)
    return bias.expand(b, heads, n, padded)[..., :m]

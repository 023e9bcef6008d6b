"""The one attention function of the library, and the choice of the kernel behind it.

Legend: b batch, n queries, m keys, h heads, d channels of a head. Everything is `[b n h d]`,
which is the layout of xformers; PyTorch's own kernel wants `[b h n d]`, and only this file knows.
Scaled dot-product attention: Vaswani et al. 2017 (arXiv 1706.03762) equation 1.

Kernels: "xformers" (CUDA only), "sdpa" (PyTorch, everywhere), "explicit" (softmax(q k) v written
out). "auto" takes xformers on CUDA when a trial shows that it works there, otherwise SDPA, saying
once why; on a CPU that computes in bfloat16 it takes the explicit form for short bfloat16
sequences, where it is faster.
"""

from __future__ import annotations

import functools
import logging
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ldm.networks import xformers_attention

Backend = Literal["auto", "xformers", "sdpa", "explicit"]
BACKENDS: tuple[Backend, ...] = ("auto", "xformers", "sdpa", "explicit")

# In bfloat16 on a CPU with AVX512-BF16 the explicit form was 1.1 to 3.1 times faster than SDPA up
# to this many keys, and a U-Net's training step 1.24 to 1.34 times. Without such instructions it
# is slower (measured: 11 times forward, 1.2 times backward), and in float32 neither form wins.
EXPLICIT_KEYS = 256

logger = logging.getLogger(__name__)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """softmax(q kᵀ / √d) v, over the keys that the mask allows.

    q: `[b n h d]`; k, v: `[b m h d]`; mask: bool `[b m]` or `[b n m]`, True = attend;
    causal: query i sees keys 0..i (needs n = m). Returns `[b n h d]`.
    A query with no allowed key gets zeros. Raises ValueError for wrong shapes and RuntimeError,
    with the reason, when `backend="xformers"` cannot run here.
    """
    _check(q, k, v, mask, causal)
    name = choose(q, k, masked=mask is not None, causal=causal, backend=backend)
    kernel = {"xformers": _xformers, "sdpa": _sdpa, "explicit": _explicit}[name]
    if mask is None:
        return kernel(q, k, v, None, causal)
    allowed = _allowed(mask, causal)
    # No kernel agrees with another on a row without keys (some give NaN, and NaN gradients):
    # let such a row see everything and put zeros in its place afterwards.
    some = allowed.any(dim=-1, keepdim=True)
    out = kernel(q, k, v, allowed | ~some, False)
    return out * rearrange(some, "b 1 n 1 -> b n 1 1")  # n is 1 where all queries share a row


def choose(q: Tensor, k: Tensor, *, masked: bool, causal: bool, backend: Backend) -> str:
    """The name of the kernel for tensors like these: "xformers", "sdpa" or "explicit"."""
    if backend == "auto":
        return _automatic(q, k, masked=masked, causal=causal)
    if backend == "xformers":
        reason = xformers_attention.obstacle(q, masked=masked, causal=causal)
        if reason is not None:
            raise RuntimeError(
                f'attention="xformers" was asked for, but {reason}; '
                'fix that, or use attention="auto" or "sdpa"'
            )
    return backend


def _automatic(q: Tensor, k: Tensor, *, masked: bool, causal: bool) -> str:
    if q.device.type == "cuda":
        reason = xformers_attention.obstacle(q, masked=masked, causal=causal)
        if reason is None:
            return "xformers"
        _say_once(reason)
        return "sdpa"
    short = k.shape[1] <= EXPLICIT_KEYS and q.dtype == torch.bfloat16
    return "explicit" if q.device.type == "cpu" and short and native_bfloat16() else "sdpa"


@functools.cache
def native_bfloat16() -> bool:
    """Whether this CPU has the instructions for bfloat16 that oneDNN uses."""
    if not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@functools.cache
def _say_once(reason: str) -> None:
    logger.warning("attention uses PyTorch's SDPA instead of xformers, because %s", reason)


def _check(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> None:
    given = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape:
        raise ValueError(f"attention takes q [b n h d] and k, v [b m h d], not {given}")
    if (q.shape[0], *q.shape[2:]) != (k.shape[0], *k.shape[2:]):
        raise ValueError(f"batch, heads and channels of q and k must agree: {given}")
    b, n, m = q.shape[0], q.shape[1], k.shape[1]
    if causal and n != m:
        raise ValueError(f"causal attention needs as many keys as queries, not {m} and {n}")
    if mask is None:
        return
    if mask.dtype != torch.bool or tuple(mask.shape) not in {(b, m), (b, n, m)}:
        raise ValueError(
            f"an attention mask is bool, {(b, m)} or {(b, n, m)}, True = attend; "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )


def _allowed(mask: Tensor, causal: bool) -> Tensor:
    """The mask `[b m]` or `[b n m]` and the causal triangle as one, `[b 1 n m]` or `[b 1 1 m]`."""
    rows = mask[:, None, :] if mask.ndim == 2 else mask
    if causal:
        m = mask.shape[-1]
        rows = rows & torch.ones(m, m, dtype=torch.bool, device=mask.device).tril()
    return rows[:, None]


def _sdpa(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, causal: bool) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=causal)
    return out.transpose(1, 2)


def _explicit(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, causal: bool) -> Tensor:
    if causal:
        allowed = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).tril()
    q = rearrange(q * q.shape[-1] ** -0.5, "b n h d -> b h n d")
    scores = q @ rearrange(k, "b m h d -> b h d m")
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    out = scores.softmax(dim=-1).to(v.dtype) @ rearrange(v, "b m h d -> b h m d")
    return rearrange(out, "b h n d -> b n h d")


def _xformers(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, causal: bool) -> Tensor:
    return xformers_attention.run(q, k, v, allowed=allowed, causal=causal)

"""The attention function: its kernels agree, masks mean what they say, the choice is reasoned.

The xformers kernels themselves have not yet been run on a GPU: the last test is for one.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ldm.networks import attention as module
from ldm.networks import xformers_attention
from ldm.networks.attention import attention, choose

HAS_XFORMERS = importlib.util.find_spec("xformers") is not None
needs_xformers = pytest.mark.skipif(not HAS_XFORMERS, reason="xformers is not installed")


@pytest.fixture(autouse=True)
def _fresh_caches():
    """Each test sees a process that has not looked for xformers yet."""
    caches = (xformers_attention.missing, xformers_attention._trial, module._say_once)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def draw(b: int = 2, n: int = 5, m: int = 7, h: int = 3, d: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((b, n, h, d), (b, m, h, d), (b, m, h, d))
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def by_hand(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """Equation 1 of Vaswani et al. one query at a time; allowed `[b n m]`."""
    out = torch.zeros_like(q)
    for b, n, h in torch.cartesian_prod(*(torch.arange(size) for size in q.shape[:3])).tolist():
        keys = allowed[b, n]
        if keys.any():
            weights = (k[b, keys, h] @ q[b, n, h] / q.shape[-1] ** 0.5).softmax(0)
            out[b, n, h] = weights @ v[b, keys, h]
    return out


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 9),
    m=st.integers(1, 9),
    kind=st.sampled_from(["none", "keys", "full", "causal", "causal keys"]),
    seed=st.integers(0, 10_000),
)
def test_kernels_equal_the_definition(n: int, m: int, kind: str, seed: int) -> None:
    m = n if "causal" in kind else m
    q, k, v = draw(n=n, m=m, seed=seed)
    bits = torch.rand(2, n, m, generator=torch.Generator().manual_seed(seed)) > 0.4
    mask = {"keys": bits[:, 0], "full": bits, "causal keys": bits[:, 0]}.get(kind)
    allowed = torch.ones(2, n, m, dtype=torch.bool)
    if mask is not None:
        allowed = mask if mask.ndim == 3 else mask[:, None].expand(-1, n, -1)
    if "causal" in kind:
        allowed = allowed.tril()
    expected = by_hand(q, k, v, allowed)
    for backend in ("sdpa", "explicit", "auto"):
        out = attention(q, k, v, mask=mask, causal="causal" in kind, backend=backend)
        torch.testing.assert_close(out, expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("backend", ["sdpa", "explicit"])
def test_forbidden_keys_have_no_influence_and_no_gradient(backend) -> None:
    q, k, v = (t.requires_grad_() for t in draw())
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, 3:] = False
    mask[1] = False  # nothing to attend to
    out = attention(q, k, v, mask=mask, backend=backend)
    assert (out[1] == 0).all()
    out.square().sum().backward()
    for tensor in (k, v):
        assert tensor.grad.isfinite().all()
        assert (tensor.grad[0, 3:] == 0).all() and (tensor.grad[1] == 0).all()
        assert (tensor.grad[0, :3] != 0).all()
    changed = [t.detach().clone() for t in (k, v)]
    for tensor in changed:
        tensor[0, 3:] = 1e6
    assert torch.equal(attention(q, *changed, mask=mask, backend=backend), out)


@pytest.mark.parametrize(
    "change",
    [
        {"q": torch.zeros(2, 5, 12)},
        {"q": torch.zeros(2, 5, 3, 8)},
        {"v": torch.zeros(2, 6, 3, 4)},
        {"mask": torch.zeros(2, 7)},
        {"mask": torch.zeros(2, 5, dtype=torch.bool)},
        {"causal": True},
    ],
)
def test_wrong_shapes_are_refused(change) -> None:
    q, k, v = (t.float() for t in draw())
    with pytest.raises(ValueError, match=r"\d"):
        attention(**{"q": q, "k": k, "v": v, **change})


# The choice of a kernel


class OnCuda:
    """Stands for a tensor on a GPU where only device, dtype and shape are read."""

    def __init__(self, dtype: torch.dtype = torch.float16, d: int = 64) -> None:
        self.device, self.dtype, self.shape = torch.device("cuda:0"), dtype, (2, 5, 3, d)


def test_cpu_uses_the_explicit_form_for_short_native_bfloat16_alone(monkeypatch) -> None:
    def pick(dtype: torch.dtype, keys: int) -> str:
        q, k = torch.empty(1, 1, 1, 4, dtype=dtype), torch.empty(1, keys, 1, 4, dtype=dtype)
        return choose(q, k, masked=False, causal=False, backend="auto")

    monkeypatch.setattr(module, "native_bfloat16", lambda: True)
    assert pick(torch.bfloat16, 256) == "explicit"
    assert pick(torch.bfloat16, 257) == pick(torch.float32, 4) == "sdpa"
    monkeypatch.setattr(module, "native_bfloat16", lambda: False)
    assert pick(torch.bfloat16, 4) == "sdpa"


def test_cuda_without_xformers_falls_back_with_one_reasoned_warning(monkeypatch, caplog) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    q = OnCuda()
    with caplog.at_level(logging.WARNING):
        names = {choose(q, q, masked=m, causal=False, backend="auto") for m in (False, True, False)}
    assert names == {"sdpa"}
    assert len(caplog.records) == 1 and "not installed" in caplog.text
    with pytest.raises(RuntimeError, match=r"not installed.*auto"):
        choose(q, q, masked=False, causal=False, backend="xformers")


def test_an_extension_that_does_not_load_is_not_trusted(monkeypatch) -> None:
    class Library:
        _built_with_cuda = False

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(xformers_attention, "load", lambda: None)
    monkeypatch.setattr(importlib, "import_module", lambda name: Library)
    assert "nvidia-cuda-runtime-cu12" in xformers_attention.missing()
    Library._built_with_cuda = True
    xformers_attention.missing.cache_clear()
    assert xformers_attention.missing() is None


def test_a_trial_is_made_once_for_each_kind_of_call(monkeypatch, caplog) -> None:
    tried = []

    def kernel(dtype: torch.dtype, d: int, kind: str, device: torch.device) -> None:
        tried.append((dtype, d, kind))
        if dtype == torch.float64:
            raise KeyError(dtype)
        if kind == "tensor":
            raise NotImplementedError("No operator found\nlong explanation")

    monkeypatch.setattr(xformers_attention, "missing", lambda: None)
    monkeypatch.setattr(xformers_attention, "_try_kernel", kernel)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    half, double = OnCuda(), OnCuda(torch.float64)
    for _ in range(3):
        assert choose(half, half, masked=False, causal=False, backend="auto") == "xformers"
        assert choose(half, half, masked=False, causal=True, backend="auto") == "xformers"
        assert choose(half, half, masked=True, causal=True, backend="auto") == "sdpa"
        assert choose(double, double, masked=False, causal=False, backend="auto") == "sdpa"
    assert len(tried) == 4 and len(caplog.records) == 2
    assert "mask tensor" in caplog.text and "No operator found" in caplog.text
    with pytest.raises(RuntimeError, match=r"compute capability 9\.0.*KeyError"):
        choose(double, double, masked=False, causal=False, backend="xformers")


def test_forcing_xformers_on_a_cpu_says_why_it_cannot() -> None:
    with pytest.raises(RuntimeError, match="CUDA only"):
        attention(*draw(), backend="xformers")


def test_the_cuda_runtime_is_looked_for_in_its_package(monkeypatch, tmp_path: Path) -> None:
    library = tmp_path / "cuda_runtime" / "lib" / "libcudart.so.12"
    loaded = []

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Spec)
    monkeypatch.setattr(xformers_attention.ctypes, "CDLL", lambda path, mode: loaded.append(path))
    assert xformers_attention._preload_cuda_runtime() is None
    library.parent.mkdir(parents=True)
    library.touch()
    assert xformers_attention._preload_cuda_runtime() == library
    assert loaded == [str(library)]


# What xformers is given


@pytest.mark.parametrize("m", [1, 8, 77])
@pytest.mark.parametrize("rows", [1, 5])
def test_tensor_bias_says_the_mask_with_aligned_strides(m: int, rows: int) -> None:
    allowed = torch.rand(2, 1, rows, m, generator=torch.Generator().manual_seed(m)) > 0.5
    bias = xformers_attention.tensor_bias(allowed, 5, 3, torch.float32)
    assert bias.shape == (2, 3, 5, m)
    assert all(stride % 8 == 0 for stride in bias.stride()[:3])
    assert torch.equal(bias == 0, allowed.expand(2, 3, 5, m))
    assert torch.equal(bias == -torch.inf, ~allowed.expand(2, 3, 5, m))


@needs_xformers
def test_xformers_own_causal_mask_is_our_triangle() -> None:
    xformers_attention.load()
    biases = importlib.import_module("xformers.ops.fmha.attn_bias")
    written = biases.LowerTriangularMask().materialize((6, 6))
    assert torch.equal(written == 0, torch.ones(6, 6, dtype=torch.bool).tril())


@needs_xformers
def test_xformers_real_dispatcher_takes_our_calls(monkeypatch) -> None:
    """Real rules of xformers on tensors without data; none of its kernels runs here."""
    xformers_attention.load()
    fmha = importlib.import_module("xformers.ops.fmha")
    dispatch = importlib.import_module("xformers.ops.fmha.dispatch")
    common = importlib.import_module("xformers.ops.fmha.common")
    monkeypatch.setattr(common, "_built_with_cuda", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    for operator in (fmha.cutlass.FwOp, fmha.flash.FwOp):
        monkeypatch.setattr(operator, "SUPPORTED_DEVICES", {"meta"})

    def chosen(bias: Tensor | None) -> str:
        q = torch.empty(2, 64, 3, 64, dtype=torch.float16, device="meta")
        k = torch.empty(2, 77, 3, 64, dtype=torch.float16, device="meta")
        inputs = fmha.Inputs(query=q, key=k, value=k, attn_bias=bias)
        inputs.validate_inputs()
        return dispatch._dispatch_fw(inputs, False).NAME

    allowed = torch.ones(2, 1, 1, 77, dtype=torch.bool, device="meta")
    assert "cutlass" in chosen(xformers_attention.tensor_bias(allowed, 64, 3, torch.float16))
    assert chosen(None)
    with pytest.raises((NotImplementedError, ValueError)):  # what the alignment is for
        chosen(torch.empty(2, 3, 64, 77, dtype=torch.float16, device="meta"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["none", "keys", "causal", "causal keys"])
def test_xformers_equals_sdpa_forward_and_backward(dtype: torch.dtype, kind: str) -> None:
    """Not yet run on a GPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    n = m = 77
    mask = torch.ones(2, m, dtype=torch.bool, device="cuda")
    mask[0, 30:], mask[1, :] = False, False
    options = {"mask": mask if "keys" in kind else None, "causal": "causal" in kind}
    results = []
    for backend in ("xformers", "sdpa"):
        tensors = [t.to("cuda", dtype).requires_grad_() for t in draw(2, n, m, 3, 64)]
        out = attention(*tensors, backend=backend, **options)
        out.float().square().sum().backward()
        results.append([out.detach(), *(t.grad for t in tensors)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=3e-2, rtol=3e-2)

"""The networks that the tests go through, with inputs for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ldm.conditioning.cond import Cond
from ldm.networks.dit import DiT, DiTConfig
from ldm.networks.flat import Flat, FlatConfig
from ldm.networks.gated_mlp import GatedMlp, GatedMlpConfig
from ldm.networks.mlp import Mlp, MlpConfig
from ldm.networks.prior import PriorConfig, PriorTransformer
from ldm.networks.refinenet import RefineNet, RefineNetConfig
from ldm.networks.unet import UNet, UNetConfig

B, TOKENS, WIDTH = 3, 5, 12


@dataclass(frozen=True)
class Case:
    """A network, the shapes of x and of its answer, and the parts of Cond that it takes."""

    build: Callable[[], nn.Module]
    x: tuple[int, ...]
    y: tuple[int, ...]
    parts: tuple[str, ...] = ()


TINY = UNetConfig(in_channels=2, out_channels=4, channels=(16, 32), norm_groups=4, head_dim=8)
FULL = replace(
    TINY,
    attention_levels=(0, 1),
    cross_attention_levels=(0, 1),
    context_dim=WIDTH,
    vector_dim=WIDTH,
    concat_channels=3,
    ff_mult=2,
    time_dim=24,
    resample="conv",
    fourier_exponents=(0, 1),
)
DEEP_ONLY = replace(
    TINY, blocks_per_level=1, attention_levels=(1,), cross_attention_levels=(1,), context_dim=WIDTH
)
PRIOR = PriorConfig(
    embedding_dim=6, vector_dim=WIDTH, context_dim=WIDTH, context_length=7, width=16, depth=2,
    head_dim=8,
)  # fmt: skip
DIT = DiTConfig(
    in_channels=2, out_channels=4, patch_size=2, depth=2, width=16, heads=2, vector_dim=WIDTH
)

CASES = {
    "unet": Case(partial(UNet, TINY), (2, 8, 8), (4, 8, 8)),
    "unet with everything": Case(
        partial(UNet, FULL), (2, 8, 8), (4, 8, 8), ("vector", "tokens", "mask", "concat")
    ),
    "unet, context below, oblong": Case(
        partial(UNet, DEEP_ONLY), (2, 4, 6), (4, 4, 6), ("tokens", "mask")
    ),
    "unet, context alone": Case(
        partial(UNet, replace(DEEP_ONLY, attention_levels=())), (2, 4, 4), (4, 4, 4), ("tokens",)
    ),
    "unet, four levels": Case(
        partial(UNet, replace(TINY, channels=(16, 16, 16, 32), attention_levels=(3,))),
        (2, 8, 8),
        (4, 8, 8),
    ),
    "prior": Case(partial(PriorTransformer, PRIOR), (6,), (6,), ("vector", "tokens", "mask")),
    "prior, no mask": Case(partial(PriorTransformer, PRIOR), (6,), (6,), ("vector", "tokens")),
    "dit": Case(partial(DiT, DIT), (2, 6, 4), (4, 6, 4), ("vector",)),
    "dit with a context": Case(
        partial(DiT, replace(DIT, context_dim=WIDTH)), (2, 4, 4), (4, 4, 4),
        ("vector", "tokens", "mask"),
    ),
    "mlp": Case(partial(Mlp, MlpConfig(dim=2, out_dim=4, width=16)), (2,), (4,)),
    "mlp with a vector": Case(
        partial(Mlp, MlpConfig(dim=2, out_dim=2, width=16, vector_dim=WIDTH)), (2,), (2,),
        ("vector",),
    ),
    "flat": Case(partial(Flat, FlatConfig(shape=(2, 4, 6), width=16)), (2, 4, 6), (2, 4, 6)),
    "flat, more channels": Case(
        partial(Flat, FlatConfig(shape=(2, 4, 6), out_channels=4, width=16)), (2, 4, 6), (4, 4, 6)
    ),
    "gated mlp": Case(partial(GatedMlp, GatedMlpConfig(dim=6, width=16, hidden=8, depth=2,
        cond_dim=8)), (6,), (6,)),
    "gated mlp with everything": Case(
        partial(GatedMlp, GatedMlpConfig(
            dim=6, width=16, hidden=24, depth=2, cond_dim=8, vector_dim=WIDTH, context_dim=WIDTH,
            attention_blocks=(1,), attention_dim=8, head_dim=4, dropout=0.1,
        )), (6,), (6,), ("vector", "tokens", "mask"),
    ),
    "refinenet": Case(
        partial(RefineNet, RefineNetConfig(in_channels=2, channels=8, time_dim=16)),
        (2, 8, 6), (2, 8, 6),
    ),
}  # fmt: skip


def inputs(case: Case, seed: int = 0) -> tuple[Tensor, Tensor, Cond]:
    g = torch.Generator().manual_seed(seed)
    grid = case.x[1:]
    mask = torch.ones(B, TOKENS, dtype=torch.bool)
    mask[0, 2:], mask[1] = False, False
    parts = {
        "vector": torch.randn(B, WIDTH, generator=g),
        "tokens": torch.randn(B, TOKENS, WIDTH, generator=g),
        "mask": mask,
        "concat": torch.randn(B, 3, *grid, generator=g),
    }
    x, time = torch.randn(B, *case.x, generator=g), torch.tensor([0.0, 500.0, 999.0])
    return x, time, Cond(**{name: parts[name] for name in case.parts})


def perturbed(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with noise on all its weights, so that nothing is zero any more."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=g)
    return network.eval()

"""The binomial chain: diffusion of bits, into fair coins.

Sohl-Dickstein et al. 2015 (arXiv 1503.03585) section 2.4.1 and table App.1: at step t of T a bit is
drawn anew with probability beta_t = 1/(T - t + 1). How it fits beside the rest: it is no `Process`,
for there are no alpha, sigma and eps, and so predictions, solvers and guidance do not apply. What
carries over is the plan: a chain with a closed posterior, a network that is asked about x0, a bound
that is a sum of KLs, and a walk back. Here these are `BinomialChain`, a function
(x_t, t) -> logits of x0, `binomial_bound` and `binomial_sample`.

The reverse step mixes the posteriors of x0 = 0 and 1 by the network's belief. Given x_t, each bit's
true reverse chance is such a mixture, so no bit-wise reverse step is lost by asking about x0.

Shapes: b batch, d bits (0.0 or 1.0); T steps; t: [b] in 1..T, a whole number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.noise import Noise

Believe = Callable[[Tensor, Tensor], Tensor]  # (x_t [b d], t [b]) -> logits of x0 [b d]


@dataclass(frozen=True, kw_only=True)
class BinomialChain:
    """q(x_t | x_(t-1)) = B(x_(t-1) (1 - beta_t) + beta_t/2), beta_t = 1/(T - t + 1)."""

    num_steps: int = 100

    def __post_init__(self) -> None:
        if self.num_steps < 2:
            raise ValueError(f"num_steps={self.num_steps} was given; two or more are needed.")

    def beta(self, t: Tensor) -> Tensor:
        """The share of the bits that step t draws anew: [b] -> [b] float64."""
        return 1 / (self.num_steps - t.double() + 1)

    def kept(self, t: Tensor) -> Tensor:
        """Product of 1 - beta up to t, (T - t)/T: each step erases one part in T. [b] -> [b]."""
        return (self.num_steps - t.double()) / self.num_steps

    def chance(self, x0: Tensor, t: Tensor) -> Tensor:
        """q(x_t = 1 | x0): x0 [b d] -> [b d] float64."""
        kept = self.kept(t)[:, None]
        return x0.double() * kept + (1 - kept) / 2

    def posterior(self, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """q(x_(t-1) = 1 | x_t, x0) by Bayes' rule: [b d], [b d] -> [b d] float64."""
        half = self.beta(t)[:, None] / 2
        before = self.chance(x0, t - 1)
        one = torch.where(x_t > 0.5, 1 - half, half) * before
        zero = torch.where(x_t > 0.5, half, 1 - half) * (1 - before)
        return one / (one + zero)

    def reverse(self, x_t: Tensor, logits: Tensor, t: Tensor) -> Tensor:
        """p(x_(t-1) = 1 | x_t) from the belief about x0 [b d]: [b d] float64."""
        belief = torch.sigmoid(logits.double())
        of_one = self.posterior(x_t, torch.ones_like(x_t), t)
        return belief * of_one + (1 - belief) * self.posterior(x_t, torch.zeros_like(x_t), t)


def bernoulli_kl(q: Tensor, p: Tensor) -> Tensor:
    """KL of coins with chances q and p in nats, q in [0, 1] and p held inside: elementwise."""
    p = p.clamp(1e-9, 1 - 1e-9)
    entropy = torch.xlogy(q, q) + torch.xlogy(1 - q, 1 - q)
    return entropy - q * p.log() - (1 - q) * torch.log1p(-p)


def step_nats(chain: BinomialChain, believe: Believe, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """KL(q(x_(t-1) | x_t, x0) || p(x_(t-1) | x_t)) in nats an item; [b d], t [b] -> [b].

    At t = 1 the posterior is x0 itself and this is -log p(x0 | x_1). 1503.03585 eq. 14.
    """
    posterior = chain.posterior(x_t, x0, t)
    return bernoulli_kl(posterior, chain.reverse(x_t, believe(x_t, t), t)).sum(1)


@torch.no_grad()
def binomial_bound(
    chain: BinomialChain, believe: Believe, x0: Tensor, generator: torch.Generator
) -> Tensor:
    """Nats of each step, t = 1..T, for each item: x0 [b d] -> [T b]; the sum bounds -log p(x0).

    There is no prior term: kept(T) = 0, so x_T is a row of fair coins whatever x0 is.
    """
    nats = []
    for step in range(1, chain.num_steps + 1):
        t = torch.full((len(x0),), step, device=x0.device)
        nats.append(step_nats(chain, believe, x0, draw_bits(chain.chance(x0, t), generator), t))
    return torch.stack(nats)


def draw_bits(chance: Tensor, generator: torch.Generator) -> Tensor:
    """Bits [b d] float32 that are 1 with these chances [b d]."""
    return torch.bernoulli(chance, generator=generator).float()


@torch.no_grad()
def binomial_sample(
    chain: BinomialChain, believe: Believe, length: int, noise: Noise
) -> list[Tensor]:
    """Walk back from fair coins: x_T, ..., x_0, each [b length]."""
    x = (noise.normal((length,)) > 0).float()
    walk = [x]
    for step in range(chain.num_steps, 0, -1):
        t = torch.full((len(x),), step, device=x.device)
        chance = chain.reverse(x, believe(x, t), t)
        x = (torch.special.ndtr(noise.normal((length,)).double()) < chance).float()
        walk.append(x)
    return walk

"""The binomial chain on binary heartbeats: its bound in bits and how many samples keep the beat.

n sequences; d bits; p phases
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.binary import Bits
from ldm.data.toys import Heartbeat
from ldm.diffusion import Noise
from ldm.diffusion.binomial import BinomialChain, binomial_bound, binomial_sample
from ldm.papers.bench import Bench
from ldm.papers.findings import Finding, Measured, Table
from ldm.training.learner import LearnerTask

LENGTH, PERIOD = Heartbeat.length, Heartbeat.period
ENTROPY = math.log2(PERIOD)
"""Bits of the data: the phase is all that is drawn."""
RATE = 1 / PERIOD
COINS = -LENGTH * (RATE * math.log2(RATE) + (1 - RATE) * math.log2(1 - RATE))
"""Bits of independent coins with the data's rate of beats."""


def beats() -> Tensor:
    """Every heartbeat there is: [p d]."""
    place = torch.arange(LENGTH)
    return torch.stack([((place - phase) % PERIOD == 0).float() for phase in range(PERIOD)])


def periodic(x: Tensor) -> float:
    """Share of the sequences [n d] that are heartbeats, bit for bit."""
    return float((x[:, None] == beats()).all(-1).any(1).double().mean())


@dataclass(frozen=True)
class Oracle:
    """The exact chance of each bit of x0 given x_t, by summing over all heartbeats."""

    chain: BinomialChain

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits of x0 [n d] from x_t [n d], t [n]."""
        kept = self.chain.kept(t)[:, None, None]
        chance = beats().double() * kept + (1 - kept) / 2  # [n p d]
        log = torch.where(x_t[:, None] > 0.5, chance.log(), torch.log1p(-chance)).sum(-1)
        belief = (log.softmax(1)[..., None] * beats()).sum(1)
        return torch.logit(belief.clamp(1e-12, 1 - 1e-12))


def bound_bits(chain: BinomialChain, believe: Any, n: int, seed: int) -> float:
    """The bound in bits a sequence over n held-out heartbeats."""
    held_out = Heartbeat(n=n, seed=1000 + seed).points()
    nats = binomial_bound(chain, believe, held_out, torch.Generator().manual_seed(seed))
    return float(nats.sum(0).mean()) / math.log(2)


def heartbeat(bench: Bench, tasks: list[LearnerTask[Bits]]) -> list[Finding]:
    """The bound against the data's entropy, and the share of samples that are heartbeats."""
    n = bench.count(1000, 50)
    models = [task.learner for task in tasks]
    chain = models[0].chain
    bits = [bound_bits(chain, m.believe, n, s) for m, s in zip(models, bench.seeds, strict=True)]
    exact = [bound_bits(chain, Oracle(chain), n, s) for s in bench.seeds]
    walks = [
        binomial_sample(chain, model.believe, LENGTH, Noise(range(1000 * seed, 1000 * seed + n)))
        for model, seed in zip(models, bench.seeds, strict=True)
    ]
    ideal = binomial_sample(chain, Oracle(chain), LENGTH, Noise(range(n)))[-1]
    shares = Measured.over([periodic(walk[-1]) for walk in walks])
    rows = (
        ("the trained chain", Measured.over(bits), shares),
        ("the same chain, exact beliefs", Measured.over(exact), periodic(ideal)),
        ("independent coins of the data's rate", COINS, PERIOD * (RATE * (1 - RATE) ** 4) ** 4),
        ("the data", ENTROPY, 1.0),
    )
    table = Table(("model", "bits a sequence", "exactly periodic"), rows)
    sheet = bench.plot("heartbeat", drawn([walk[:24] for walk in walks[0]]))
    return [bound_finding(bits, table, sheet, chain), share_finding(shares, chain)]


def bound_finding(bits: list[float], table: Table, sheet: str, chain: BinomialChain) -> Finding:
    """The bound."""
    found = Measured.over(bits)
    return Finding(
        claim="The binomial chain learns binary sequences nearly to their entropy",
        published="binary heartbeat, T = 2000: K = -2.414 bits a sequence, 12.024 above "
        "independent coins; the true figure is -log2 5 = -2.322 (arXiv 1503.03585, table 1 and "
        "section 3.1)",
        measured=f"at T = {chain.num_steps} the bound is {found} bits a sequence, "
        f"{COINS - found.mean:.2f} below independent coins; the data's entropy is {ENTROPY:.3f}",
        holds=found.below(Measured(COINS / 2, None, 1)) and found.mean < ENTROPY + 0.5,
        table=table,
        figures=(sheet,),
        comment="Here bits are costs, K with its sign turned. It holds if less than half a bit is "
        "lost against the entropy. The row of exact beliefs is what this many steps cost "
        "at best, for a step draws each bit alone. The chain is no Gaussian process: it shares "
        "the training loop, the data and the plan of the bound, not processes or solvers.",
    )


def share_finding(shares: Measured, chain: BinomialChain) -> Finding:
    """The samples."""
    return Finding(
        claim="Samples of the binomial chain are periodic",
        published="figure 2 of arXiv 1503.03585 shows periodic samples; no share is given",
        measured=f"{shares} of the samples of {chain.num_steps} steps are heartbeats, bit for bit; "
        "5 of the 1,048,576 sequences of 20 bits are",
        holds=Measured(0.9, None, 1).below(shares),
        comment="It holds if more than nine in ten are.",
    )


def drawn(walk: list[Tensor]) -> Any:
    """Sequences as rows of black and white, from fair coins to the sample."""
    from matplotlib.figure import Figure

    last = len(walk) - 1
    places = [round(last * share) for share in (0, 0.5, 0.75, 0.9, 1)]
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, place in zip(figure.subplots(1, len(places)), places, strict=True):
        axes.imshow(walk[place], cmap="gray_r", interpolation="nearest")
        axes.set_title(f"t = {last - place}", fontsize=9)
        axes.set_axis_off()
    return figure

"""Products of a diffusion model with a second function, against the exact product.

n samples
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.conditioning.cond import Cond
from ldm.diffusion import (
    Denoiser,
    FixedLarge,
    FractionChain,
    Mask,
    Noise,
    Process,
    Replacing,
    sample,
    start,
)
from ldm.diffusion.ends import FixedFirst
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import per_item
from ldm.diffusion.product import Factor, GaussianFactor, Known, ProductAncestral, product_start
from ldm.diffusion.solvers import Ancestral
from ldm.papers.bench import Bench
from ldm.papers.findings import Finding, Measured, Table
from ldm.papers.measures import energy_distance
from ldm.papers.swiss_roll import GRID, STEPS, VARIANCE, RollDensity, walk

MEAN, VAR = 1.0, 0.5
"""Of r; the model is N(0, 1), so the product is N(2/3, 1/3)."""
PRODUCT = (MEAN / (1 + VAR), VAR / (1 + VAR))
PAPER, EXPECTED = "constant, the paper's (eq. 23)", "expected, E[r(x0) given x_t]"
LINE = 0.4
"""Where the first coordinate is held when the second is inpainted: the roll is crossed often."""


@dataclass(frozen=True)
class UnitGaussian:
    """The exact denoiser of data N(0, 1) on a variance-preserving process: x0 = alpha x."""

    process: Process

    def __call__(self, x: Tensor, t: Tensor) -> Denoised:
        """x [n d], t [n]."""
        alpha, sigma = self.process.at(t, x)
        return Denoised(alpha * x, sigma * x)


@dataclass(frozen=True)
class ExpectedFactor(Factor):
    """r_s(x_s) = E[r(x0) | x_s] of the unit Gaussian: what makes eq. 22 exact.

    x0 given x_s is N(alpha x_s, sigma^2), so r_s is N(mean; alpha x_s, sigma^2 + variance).
    """

    process: Process
    mean: float = MEAN
    variance: float = VAR

    def __call__(self, mean: Tensor, variance: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        clean = s < self.process.t_min
        alpha, sigma = self.process.alpha_sigma(s.clamp(min=self.process.t_min))
        a = per_item(torch.where(clean, 1.0, alpha), mean)
        rest = per_item(torch.where(clean, 0.0, sigma.square()), mean) + self.variance
        product = 1 / (1 / variance + a.square() / rest)
        return product * (mean / variance + a * self.mean / rest), product


def draw_product(factor: Factor, process: Process, n: int, seed: int) -> Tensor:
    """n samples [n 1] of the chain of N(0, 1), each step multiplied by the factor."""
    noise, times = Noise(range(seed * n, (seed + 1) * n)), GRID(process, STEPS)
    x = product_start(factor, process, times, noise.normal((1,)))
    solver = ProductAncestral(factor=factor, variance=FixedFirst(later=FixedLarge()))
    return sample(UnitGaussian(process), process, solver, times, x, noise)


def gaussian_products(bench: Bench) -> Finding:
    """Mean and variance of the product for each choice of r at the noisy times."""
    process, n = FractionChain(num_steps=STEPS), bench.count(4000, 200)
    factors: dict[str, Factor] = {
        PAPER: GaussianFactor(mean=MEAN, variance=VAR),
        "annealed, r^((T - t)/T)": GaussianFactor(mean=MEAN, variance=VAR, annealed=True),
        EXPECTED: ExpectedFactor(process),
    }
    found = {}
    for name, factor in factors.items():
        runs = [draw_product(factor, process, n, seed) for seed in bench.seeds]
        mean = Measured.over([float(x.mean()) for x in runs])
        found[name] = mean, Measured.over([float(x.var()) for x in runs])
    paper, exact = (found[name] for name in (PAPER, EXPECTED))
    rows = tuple((name, *values) for name, values in found.items())
    return Finding(
        claim="A product with a Gaussian is sampled by multiplying every reverse step by it",
        published="section 2.5: exact where a step is small against r; no figure (arXiv "
        "1503.03585)",
        measured=f"the chain of N(0, 1) times r = N({MEAN:g}, {VAR:g}) at every step gives mean "
        f"{paper[0]} and variance {paper[1]}; the product has {PRODUCT[0]:.3f} and "
        f"{PRODUCT[1]:.3f}; with r_t = E[r(x0) given x_t] it gives {exact[0]} and {exact[1]}",
        holds=near(paper[0], PRODUCT[0]) and near(paper[1], PRODUCT[1]),
        table=Table(("r at time t", "mean", "variance"), (*rows, ("exact product", *PRODUCT))),
        comment="It holds if mean and variance are within a tenth of the exact ones. The model is "
        "exact, so what is off is the rule itself: a small step p(x_s given x_t) r(x_s) moves the "
        "mean by variance times grad log r, twice what Langevin dynamics of p r would do, "
        "and r is counted too often. Small steps are not enough; eq. 21 also needs r(x_t) to "
        "change with t as the model's own expectation of it does, which is the last row.",
    )


def near(found: Measured, wanted: float) -> bool:
    """Within a tenth, or within two standard errors if these are wider."""
    return abs(found.mean - wanted) < max(0.1 * abs(wanted), 2 * (found.error or 0.0))


def inpainted(denoiser: Denoiser, n: int, seed: int, *, noised: bool) -> Tensor:
    """n points [n 2] whose first coordinate is LINE: by product, or with the known part noised."""
    noise, process = Noise(range(seed * n, (seed + 1) * n)), denoiser.process
    times, mask = GRID(process, STEPS), torch.tensor([[True, False]])
    value, denoise = torch.tensor([[LINE, 0.0]]), denoiser.bind(Cond())
    if noised:
        solver = Replacing(
            solver=Ancestral(variance=VARIANCE),
            projection=Mask(mask=mask),
            known=value.expand(n, 2),
        )
        x = start(process, times, noise, (2,))
        return sample(denoise, process, solver, times, x, noise)
    factor = Known(mask=mask, value=value)
    with torch.no_grad():
        x = product_start(factor, process, times, noise.normal((2,)))
    product = ProductAncestral(factor=factor, variance=VARIANCE)
    return sample(denoise, process, product, times, x, noise)


def inpainting(bench: Bench, denoisers: list[Denoiser]) -> Finding:
    """The second coordinate of the swiss roll drawn given the first."""
    n = bench.count(1000, 50)
    drawn: dict[str, list[Tensor]] = {"product": [], "noised": [], "unconditional": []}
    truth = []
    for denoiser, seed in zip(denoisers, bench.seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        truth.append(RollDensity().second_given_first(LINE, n, generator)[:, None])
        drawn["product"].append(inpainted(denoiser, n, seed, noised=False))
        drawn["noised"].append(inpainted(denoiser, n, seed, noised=True))
        drawn["unconditional"].append(walk(denoiser, n)[-1])
    far = {
        name: Measured.over(
            [energy_distance(x[:, 1:], y) for x, y in zip(runs, truth, strict=True)]
        )
        for name, runs in drawn.items()
    }
    names = {
        "product": "known coordinate clean at every step (the paper's product)",
        "noised": "known coordinate noised as the chain is",
        "unconditional": "control: the second coordinate of unconditional samples",
    }
    return Finding(
        claim="Missing values are inpainted by a product with a delta at the known ones",
        published="figure 5 of arXiv 1503.03585, the centre of a texture; no figure in numbers",
        measured=f"given the first coordinate of the swiss roll, the energy distance of the "
        f"second to its exact conditional law is {far['product']}, and {far['unconditional']} for "
        "unconditional samples",
        holds=far["product"].below(far["unconditional"]),
        table=Table(("how", "energy distance"), tuple((names[name], far[name]) for name in names)),
        figures=(bench.plot("inpainting", lines(drawn, truth[0])),),
        comment="A clean known value beside a noisy unknown one is an input that the network has "
        "never seen; noising the known value, as later work does, is the fairer factor.",
    )


def lines(drawn: dict[str, list[Tensor]], truth: Tensor) -> Any:
    """Histograms of the second coordinate, and the exact one behind each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.6), layout="constrained")
    grid = figure.subplots(1, len(drawn), sharey=True)
    for axes, (name, runs) in zip(grid, drawn.items(), strict=True):
        for label, y in (("exact", truth[:, 0]), (name, runs[0][:, 1])):
            axes.hist(y.tolist(), bins=60, range=(-2.2, 2.2), density=True, alpha=0.5, label=label)
        axes.legend(fontsize=8)
        axes.set_xlabel("second coordinate")
    return figure

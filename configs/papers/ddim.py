"""DDIM (Song, Meng & Ermon 2020, arXiv 2010.02502): a deterministic sampler for a DDPM.

One digit model on DDPM's own chain of 1000 steps, and the exact denoiser of a Gaussian mixture.
"""

from __future__ import annotations

from ldm.diffusion import Discrete, Eps, LinearChain, Mse
from ldm.papers.bench import Bench, Study
from ldm.papers.ddim_exact import exact_sweep
from ldm.papers.ddim_latent import latents, round_trip
from ldm.papers.ddim_sweep import consistency, sweep
from ldm.papers.digit_chain import digit_recipe
from ldm.papers.findings import Finding
from ldm.recipe import Recipe

CHAIN = LinearChain()
"""1000 steps, beta from 1e-4 to 0.02: 2006.11239 section 4."""


def recipes() -> dict[str, Recipe]:
    """A DDPM of digits; nothing in it knows of DDIM."""
    return {
        "digits": digit_recipe(CHAIN, Eps(), Mse(times=Discrete(num_steps=1000)), images=1_000_000)
    }


def run(bench: Bench) -> list[Finding]:
    """Few steps, exact and trained; the same noise at several lengths; the way back; between."""
    tasks = [bench.train(recipes()["digits"], "digits", seed) for seed in bench.seeds]
    return [
        sweep(bench, tasks),
        exact_sweep(bench, CHAIN),
        consistency(bench, tasks),
        round_trip(bench, tasks),
        latents(bench, tasks),
    ]


STUDY = Study(
    title="DDIM",
    paper="Song, Meng & Ermon 2020, arXiv 2010.02502",
    about="A family of reverse chains has DDPM's training loss and any amount of noise η; without "
    "noise it is an ODE's solver, so that few steps suffice, x_T is a code of the picture, and "
    "between two codes lie pictures. Here a DDPM of 8x8 digits (an MLP of 0.3 M parameters) and a "
    "mixture of two Gaussians whose denoiser is known.",
    run=run,
)

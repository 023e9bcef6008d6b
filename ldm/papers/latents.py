"""The parts of the study of latent diffusion: reconstruction, the scale of latents, cost.

n samples; c latent channels; h w grid
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoencoder import AutoencoderConfig, AutoencoderVQ, VQConfig, usage
from autoencoder.pixels import from_uint8, to_uint8
from ldm.data.batch import Batch
from ldm.data.enlarged import LargeDigits
from ldm.diffusion.noise import Noise
from ldm.first_stage import FirstStage
from ldm.papers.bench import Bench
from ldm.papers.cost import milliseconds, operations
from ldm.papers.findings import Finding, Measured, Rows, Table
from ldm.papers.measures import DigitJudge, frechet_distance
from ldm.recipe import Recipe
from ldm.stage import StageConfig

SIDE = 16
DIGITS = 10
NAMES = {
    "latent": "KL latents, deviation 1",
    "latent_narrow": "KL latents, deviation 0.18",
    "latent_wide": "KL latents, deviation 5.49",
    "latent_raw": "KL latents as they come",
    "latent_vq": "VQ latents, deviation 1",
    "pixels": "pixels",
}


def trained(bench: Bench, plan: Recipe, kind: str) -> list[str]:
    """Train an autoencoder under each seed; returns the folders of the trained models."""
    folders = []
    for seed in bench.seeds:
        task = bench.train(plan, kind, seed)
        folder = bench.runs / f"{kind}-s{seed}-x{bench.scale:g}" / "autoencoder"
        task.export(folder, task.module.state_dict(), plan.data.open().epoch)
        folders.append(str(folder))
    return folders


def opened(kind: AutoencoderConfig | VQConfig, folder: str) -> Any:
    """A trained autoencoder."""
    return FirstStage(autoencoder=kind, folder=folder).load()


def test_digits() -> Batch:
    """Digits that nothing trains on."""
    return LargeDigits(side=SIDE, part="test").whole()


def reconstruction(
    bench: Bench, kinds: Mapping[str, AutoencoderConfig | VQConfig], folders: Mapping[str, Any]
) -> Finding:
    """PSNR of both kinds on test digits, what the codebook uses, the latents' deviation."""
    models = {kind: [opened(kinds[kind], f) for f in folders[kind]] for kind in kinds}
    psnr = {kind: Measured.over([psnr_of(m) for m in found]) for kind, found in models.items()}
    raw = {kind: Measured.over([raw_spread(m) for m in found]) for kind, found in models.items()}
    after = {
        kind: Measured.over([scaled_spread(kinds[kind], f) for f in folders[kind]])
        for kind in kinds
    }
    used = [code_usage(m) for m in models["vq"]]
    share, perplexity = (Measured.over(list(v)) for v in zip(*used, strict=True))
    rows: Rows = tuple((kind.upper(), psnr[kind], raw[kind], after[kind]) for kind in kinds)
    return Finding(
        claim="Both kinds of autoencoder reconstruct, the KL one better than the VQ one",
        published="f = 4: rFID 0.27 (KL) and 0.58 (VQ); f = 8: 0.90 and 1.14 "
        "(arXiv 2112.10752, table 8)",
        measured=f"{psnr['kl']} dB (KL) and {psnr['vq']} dB (VQ) on test digits; the VQ one uses "
        f"{share} of its 128 codes, as many as {perplexity} equally frequent ones",
        holds=psnr["vq"].below(psnr["kl"]),
        if_not="Both reconstruct; the difference between them is within two standard "
        "errors after a training of seconds.",
        table=Table(("kind", "PSNR, dB", "raw deviation", "deviation after scaling"), rows),
        figures=(bench.pictures("reconstructions", side_by_side(models), 12, enlarge=3),),
        comment="PSNR in place of rFID, which needs photographs. The picture has test digits, "
        "then what the KL and the VQ autoencoder make of them. A VQ picture is 16 codes of 7 "
        "bits, 14 bytes; a KL one 64 numbers with next to no price on them (weight 1e-6).",
    )


@torch.no_grad()
def reconstructed(model: Any, x: Tensor) -> Tensor:
    """Pictures [n 1 s s] through an autoencoder of either kind."""
    y: Tensor = model.decode(model.encode(x).mode())
    return y


def pixels() -> Tensor:
    """The test digits [n 1 s s] in [-1, 1]."""
    image = test_digits().image
    assert image is not None
    return from_uint8(image)


def psnr_of(model: Any) -> float:
    """Mean over the test digits of 10 log10(4 / mse)."""
    x = pixels()
    mse = (reconstructed(model, x).clamp(-1, 1) - x).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / mse)).mean())


@torch.no_grad()
def raw_spread(model: Any) -> float:
    """Root mean square over channels of the deviation of latents, drawn, of test digits."""
    z: Tensor = model.encode(pixels()).sample(torch.Generator().manual_seed(0))
    return float(z.std(dim=(0, 2, 3)).square().mean().sqrt())


@torch.no_grad()
def scaled_spread(kind: AutoencoderConfig | VQConfig, folder: str) -> float:
    """The same after scaling: what a diffusion model is given."""
    space, generator = FirstStage(autoencoder=kind, folder=folder).space(), torch.Generator()
    z: Tensor = space.encode(pixels(), generator.manual_seed(0))
    return float(z.std(dim=(0, 2, 3)).square().mean().sqrt())


@torch.no_grad()
def code_usage(model: AutoencoderVQ) -> tuple[float, float]:
    """Share of codes used on test digits, and their perplexity."""
    return usage(model.indices(pixels()), model.vq.codes)


def side_by_side(models: Mapping[str, Sequence[Any]]) -> Tensor:
    """Twelve test digits, then their reconstructions by the first model of each kind."""
    x = pixels()[:12]
    return to_uint8(torch.cat([x, *(reconstructed(found[0], x) for found in models.values())]))


def scale(bench: Bench, plans: Mapping[str, Sequence[Recipe]]) -> Finding:
    """Distance and recognisability of samples from models of latents at several scales."""
    judge, real, n = DigitJudge.fitted(), training_digits(), bench.count(500, 20)
    distance, accuracy, sheets = {}, {}, []
    for name, of_seed in plans.items():
        pairs = list(zip(of_seed, bench.seeds, strict=True))
        drawn = [draw(bench.train(plan, name, seed), n) for plan, seed in pairs]
        label = torch.arange(n) % DIGITS
        distance[name] = Measured.over([frechet_distance(halved(x), real) for x in drawn])
        accuracy[name] = Measured.over([judge.accuracy(halved(x), label) for x in drawn])
        sheets.append(drawn[0][:DIGITS])
    rows: Rows = tuple((NAMES[name], distance[name], accuracy[name]) for name in plans)
    chain = reverse_chain(bench.train(plans["latent"][0], "latent", bench.seeds[0]))
    on, off = distance["latent"], distance["latent_wide"]
    return Finding(
        claim="Latents must be scaled to unit deviation before they are diffused",
        published="no figure for the difference; the latents of the published text-to-image "
        "autoencoder (f = 8, KL) are multiplied by 0.18215, their raw deviation being 5.49",
        measured=f"Fréchet distance of samples to digits {on} with deviation 1, {off} with the "
        f"published raw deviation of 5.49, {distance['latent_raw']} with that of this "
        f"autoencoder's latents as they come",
        holds=on.below(off) and not distance["latent_raw"].below(on),
        table=Table(("diffused", "Fréchet distance", "taken for their class"), rows),
        figures=(
            bench.pictures("samples", to_uint8(torch.cat(sheets)), DIGITS, enlarge=3),
            bench.pictures("reverse_chain", to_uint8(chain), DIGITS, enlarge=3),
        ),
        comment="One network (an MLP of width 128), one training, 50 steps of DDIM. Distance "
        "between samples and training digits, both reduced to 8 x 8 pixels; the share of samples "
        "that a classifier takes for the class asked for. First picture: one row for each row of "
        "the table, the classes 0 to 9. Second: decoded latents on the way from noise to digits, "
        "every tenth step, deviation 1.",
    )


def training_digits() -> Tensor:
    """What samples are compared with, [n 1 8 8] in [-1, 1]."""
    image = LargeDigits(side=SIDE).whole().image
    assert image is not None
    return halved(from_uint8(image))


def halved(x: Tensor) -> Tensor:
    """[n 1 16 16] -> [n 1 8 8], the size that the judge knows."""
    return F.avg_pool2d(x, 2)


@torch.no_grad()
def draw(task: Any, n: int) -> Tensor:
    """Pictures [n 1 s s] in [-1, 1] of the classes 0, 1, ... in turn, from seeds 0 to n - 1."""
    batch = Batch(key=("",) * n, label=torch.arange(n) % DIGITS)
    x0 = task.stage.sample(batch, task.config.preview, Noise(range(n)), task.config.shape)
    decoded: Tensor = task.stage.codec.decode(x0)
    return decoded


@torch.no_grad()
def reverse_chain(task: Any) -> Tensor:
    """Decoded states of ten samples, every tenth step and the last: [10 k 1 s s]."""
    kept: list[Tensor] = []

    def keep(step: int, t: float, x: Tensor) -> None:
        if step % 10 == 0 or step == task.config.preview.steps - 1:
            kept.append(task.stage.codec.decode(x))

    batch = Batch(key=("",) * DIGITS, label=torch.arange(DIGITS))
    noise = Noise(range(DIGITS))
    task.stage.sample(batch, task.config.preview, noise, task.config.shape, on_step=keep)
    return torch.cat(kept)


def cost(bench: Bench, in_pixels: StageConfig, in_latents: StageConfig) -> Finding:
    """A training step of the same U-Net on pixels and on latents, counted and timed."""
    batch = rows_for_cost(in_latents)
    stages = {"pixels": in_pixels.build(), "latents": in_latents.build()}
    repeats = bench.count(15)
    count = {name: operations(stage, batch) / 1e6 for name, stage in stages.items()}
    time = {name: milliseconds(stage, batch, repeats) for name, stage in stages.items()}
    fewer, faster = (v["pixels"] / v["latents"] for v in (count, means(time)))
    return Finding(
        claim="A step in latents costs a fraction of a step in pixels",
        published="at least 2.7 times the throughput of pixel-based diffusion in inpainting "
        "(arXiv 2112.10752, section 4.5); a grid f times smaller has f^2 = 16 times fewer "
        "positions at f = 4",
        measured=f"{fewer:.1f} times fewer operations and {faster:.1f} times less processor time "
        "a training step, the same U-Net on 4 x 4 latents and on 16 x 16 pixels",
        holds=time["latents"].below(time["pixels"]) and faster > 2.7,
        table=Table(
            ("diffused", "million operations", "milliseconds"),
            tuple((name, count[name], time[name]) for name in stages),
        ),
        comment="Forward and backward for one picture in batches of 64, one thread; ± over "
        "repeated steps. Encoding is left out: it is done once for each picture.",
    )


def means(values: Mapping[str, Measured]) -> dict[str, float]:
    """Without their errors."""
    return {name: value.mean for name, value in values.items()}


def rows_for_cost(in_latents: StageConfig) -> Batch:
    """64 test digits beside their moments."""
    whole = test_digits().take(64)
    codec: Any = in_latents.build().codec
    with torch.no_grad():
        moments = codec.space.model.encode(pixels()[:64]).moments
    return whole.replace(latent=moments)

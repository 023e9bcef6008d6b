"""What an autoencoder loses, in pixels and in what a network sees.

b batch; h w pixels
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.evaluation.diversity import content
from ldm.evaluation.features import NAME, Extractor
from ldm.evaluation.fidelity.extractors import load_network
from ldm.evaluation.fidelity.metrics import Settings
from ldm.evaluation.fidelity.table import tabulate
from ldm.evaluation.figures import mean_figure
from ldm.evaluation.grids import sheet
from ldm.evaluation.pairs import choose
from ldm.evaluation.section import Bench, Section

_UNITS = {"PSNR": "dB", "SSIM": "", "feature distance": ""}


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """uint8 [b 3 h w], twice -> [b] in dB: 10 log10(1 / mse), mse over channels and pixels.

    The range of a value is [0, 1]; equal pictures count as 100 dB.
    """
    error = (x.double() - y.double()).div(255).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error.clamp_min(1e-10))


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """uint8 [b 3 h w], twice -> [b]: structural similarity of each channel, averaged.

    Wang et al., "Image quality assessment" (2004), equation 13: Gaussian window of 11 x 11 and
    sigma 1.5 without padding, K1 = 0.01, K2 = 0.03.
    """
    a, b = (v.float().div(255) for v in (x, y))
    offsets = torch.arange(11, dtype=a.dtype, device=a.device) - 5
    row = torch.exp(-offsets.square() / (2 * 1.5**2))
    row = (row / row.sum()).expand(a.shape[1], 1, 1, 11)

    def blur(v: Tensor) -> Tensor:
        # The Gaussian is a product: 22 multiplications a pixel in place of 121.
        across = F.conv2d(v, row, groups=v.shape[1])
        return F.conv2d(across, row.transpose(2, 3), groups=v.shape[1])

    mu_a, mu_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mu_a**2, blur(b * b) - mu_b**2
    covariance = blur(a * b) - mu_a * mu_b
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mu_a * mu_b + c1) * (2 * covariance + c2)
    denominator = (mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2)
    return (numerator / denominator).mean(dim=(1, 2, 3))


def evaluate(bench: Bench) -> Section:
    """PSNR, SSIM and feature distance of all held-out pictures, by style and together."""
    extractor = Extractor(device=bench.pipe.device)
    places = bench.real.of("heldout")
    made = bench.reconstructed(places)
    originals = bench.originals(places)
    pairs = list(zip(originals.split(64), made.split(64), strict=True))
    values = {
        name: torch.cat([measure(x, y) for x, y in pairs])
        for name, measure in {"PSNR": psnr, "SSIM": ssim}.items()
    }
    before, after = (content(bench, extractor, images) for images in (originals, made))
    values["feature distance"] = 1 - F.cosine_similarity(before, after)
    styles = [bench.real[i].style for i in places]
    rows = {"all": {k: mean_figure(v, _UNITS[k]) for k, v in values.items()}}
    for style in bench.real.styles:
        mine = torch.tensor([s == style for s in styles])
        if mine.any():
            rows[style] = {k: mean_figure(v[mine], _UNITS[k]) for k, v in values.items()}
    few = choose(bench.real, "heldout", bench.options.grid, bench.options.seed)
    shown = [places.index(i) for i in few]
    captions = tuple(bench.real[i].caption for i in few)
    return Section(
        title="Reconstruction",
        notes=(
            "PSNR is 10 log10(1 / mse) of each picture, values in [0, 1] and rounded to 8 bits, "
            "averaged over pictures. SSIM: Gaussian window 11, sigma 1.5, mean over RGB. "
            "The latent is the posterior's mean. Feature distance: 1 - cosine of the content "
            f"features of {NAME}, whose earlier stages the training of the autoencoder looked at.",
            "Grid: originals over reconstructions.",
        ),
        protocol={
            "split": "heldout",
            "pictures": len(places),
            "latent": "mean of the posterior",
            "extractor": extractor.identity(),
            **bench.resize,
        },
        subject={"autoencoder": bench.pipe.space.model.fingerprint()},
        depends=(),
        rows=rows,
        grids={"reconstruction": sheet([originals[shown], made[shown]], captions)},
        shown={"reconstruction": captions},
    )


def evaluate_distribution(bench: Bench) -> Section:
    """rFID and rKID: all held-out pictures after the autoencoder against the same ones before it.

    FID and KID as the section on fidelity has them, there of the asked pairs alone.
    """
    options = bench.options
    network = load_network(options.extractor, options.extractor_weights, bench.pipe.device)
    settings, places = Settings(), bench.real.of("heldout")

    def see(images: Tensor) -> Tensor:
        return bench.over(images, network, "features")

    table = tabulate(
        network,
        {"through the autoencoder (rFID, rKID)": see(bench.reconstructed(places))},
        see(bench.originals(places)),
        ("fid", "kid"),
        settings,
    )
    return Section(
        title="Reconstruction, as a set",
        notes=(
            "The reconstructions are held against the very pictures that they are of; those of "
            "the floor are different pictures, so that a good autoencoder may lie below it.",
            *table.notes,
        ),
        protocol={
            "split": "heldout",
            "pictures": len(places),
            "latent": "mean of the posterior",
            "network": network.identity(),
            "metrics": settings.told(),
            **bench.resize,
        },
        subject={"autoencoder": bench.pipe.space.model.fingerprint()},
        depends=("extractor", "extractor_weights"),
        rows=table.rows,
    )

"""What do the decoder's features say of a picture, at each layer and noise level?

Linear probes on features of noised latents, the decoder told nothing, beside an untrained network,
pixels, latents and CLIP. n pictures; c channels; d width of a representation
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoencoder.pixels import from_uint8
from ldm.codec import Latents
from ldm.diffusion.noise import Noise
from ldm.errors import RequestError
from ldm.evaluation.figures import Figure, known_figure, mean_figure
from ldm.evaluation.latent_bounds import Pictures, noise_seeds, pictures_of
from ldm.evaluation.probes import class_hits, explained_figure, squares
from ldm.evaluation.section import Bench, Section
from ldm.networks.dit import DiTBlock
from ldm.networks.gated_mlp import GatedBlock
from ldm.networks.unet import Layer
from ldm.stage import Stage

if TYPE_CHECKING:
    from PIL import Image

TIMES = (0.05, 0.25, 0.5, 0.75)
"""Shares of the way from data to noise."""
TRAIN_PICTURES, TEST_PICTURES = 512, 256
SIDE = 16
"""Side in pixels of the pixel control."""
MOST_LAYERS = 4
TRAINED, FRESH = "trained", "untrained"
COLUMNS = ("style", "skin tone", "mean colour, R2")


@dataclass(frozen=True)
class Labels:
    """What probes are asked for: style and skin [n] int64, colour [n 3] in [0, 1]."""

    style: Tensor
    skin: Tensor
    colour: Tensor


def evaluate(bench: Bench) -> Section:
    """Style, skin tone and mean colour by linear probes, over layers, noise levels, controls."""
    asked = min(bench.options.pairs, TEST_PICTURES)
    train = pictures_of(bench, "train", min(2 * asked, TRAIN_PICTURES))
    test = pictures_of(bench, "heldout", asked)
    known, wanted = labels_of(bench, train), labels_of(bench, test)
    rows = {"most frequent answer": _chance(known, wanted)}
    for name, represent in _controls(bench).items():
        rows[name] = probe_row(represent(train), known, represent(test), wanted)
    for kind, stage in ((TRAINED, bench.pipe.decoder), (FRESH, untrained(bench))):
        for time in TIMES:
            seen, seen_test = (features(bench, stage, p, time) for p in (train, test))
            for layer in seen:
                rows[f"{kind}, {layer}, t = {time:g}"] = probe_row(
                    seen[layer], known, seen_test[layer], wanted
                )
    plots = {f"probes-{c.split(',')[0].replace(' ', '-')}": _plot(rows, c) for c in COLUMNS}
    return Section(
        title="Probes",
        notes=(
            "Linear probes fitted on train pictures and scored on held-out ones: logistic "
            "regression for the style and for whether the concept names a skin tone (accuracy), "
            "ridge regression for the mean colour (share of variance explained). Intervals are "
            "over the held-out pictures.",
            "Features of the decoder: mean and spread over the positions after a layer, the latent "
            "noised to t (0 data, 1 noise, as a share of the process's range), told nothing. "
            f"Controls: the same network untrained, pixels at {SIDE} x {SIDE}, latents without "
            "noise, CLIP's image embedding. The mean colour is a linear map of pixels, so that "
            "they give it nearly exactly.",
        ),
        protocol={
            "split": "train to fit, heldout to score",
            "pictures": {"train": len(train.places), "heldout": len(test.places)},
            "styles": len(known.style.unique()),
            "seed": bench.options.seed,
            **bench.resize,
        },
        subject={
            "decoder": bench.pipe.decoder.fingerprint(),
            "autoencoder": bench.pipe.space.model.fingerprint(),
            "clip": bench.pipe.clip.fingerprint(),
        },
        depends=("pairs", "seed"),
        rows=rows,
        grids=plots,
        shown={name: () for name in plots},
    )


def labels_of(bench: Bench, of: Pictures) -> Labels:
    """The labels of pictures, from the data."""
    real, styles = bench.real, bench.real.styles
    concepts = [real[i].concept for i in of.places]
    return Labels(
        torch.tensor([styles.index(real[i].style) for i in of.places]),
        torch.tensor([int("skin tone" in concept) for concept in concepts]),
        of.images.float().mean(dim=(2, 3)) / 255,
    )


def probe_row(z: Tensor, known: Labels, z_test: Tensor, wanted: Labels) -> dict[str, Figure]:
    """What probes of z [n d] find, scored on z_test [m d]."""
    found = (
        mean_figure(_hits(z, known.style, z_test, wanted.style), "%"),
        mean_figure(_hits(z, known.skin, z_test, wanted.skin), "%"),
        explained_figure(*squares(z, known.colour, z_test, wanted.colour)),
    )
    return dict(zip(COLUMNS, found, strict=True))


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """The layers whose outputs are probed: four at most, from the first to the last.

    Raises:
        RequestError: a network without known layers.
    """
    found = {
        name: module for name, module in network.named_modules()
        if isinstance(module, (Layer, DiTBlock, GatedBlock))
    }  # fmt: skip
    if not found:
        raise RequestError(
            f"{type(network).__name__} has no layers to probe: the probes know U-Nets, DiTs and "
            "gated MLPs"
        )
    last, names = len(found) - 1, list(found)
    chosen = sorted({round(i * last / (MOST_LAYERS - 1)) for i in range(MOST_LAYERS)})
    return {names[i]: found[names[i]] for i in chosen}


@torch.no_grad()
def features(bench: Bench, stage: Stage, of: Pictures, time: float) -> dict[str, Tensor]:
    """By layer [n d], what a stage that is told nothing makes of noised latents."""
    process = stage.denoiser.process
    at = process.t_min + time * (process.t_max - process.t_min)
    noise = Noise(noise_seeds(bench, of), bench.pipe.device)
    t = torch.full((len(of.places),), at, dtype=torch.float64, device=bench.pipe.device)
    noised = process.perturb(of.latents, t, noise.normal(of.latents.shape[1:]))
    parts = []
    for x, times in zip(*(v.split(bench.options.batch_size) for v in (noised, t)), strict=True):
        parts.append(_seen(stage, x, times))
    return {layer: torch.cat([part[layer] for part in parts]) for layer in parts[0]}


def pooled(h: Tensor) -> Tensor:
    """Mean and spread over the positions of [b c h w] or [b n c]: [b 2c]; [b c] as it is."""
    if h.ndim == 2:
        return h.float().cpu()
    flat = h.flatten(2) if h.ndim == 4 else h.transpose(1, 2)  # [b c n]
    return torch.cat([flat.mean(2), flat.std(2, correction=0)], dim=1).float().cpu()


def untrained(bench: Bench) -> Stage:
    """The decoder as it is drawn before training."""
    decoder = bench.pipe.decoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.options.seed)
        stage = decoder.config.build(Latents(bench.pipe.space))
    return stage.to(bench.pipe.device).eval()


def _seen(stage: Stage, x: Tensor, t: Tensor) -> dict[str, Tensor]:
    """What each layer answers, pooled, in one evaluation."""
    seen: dict[str, Tensor] = {}

    def keep(layer: str) -> Any:
        return lambda module, inputs, output: seen.update({layer: pooled(output)})

    hooks = [
        module.register_forward_hook(keep(layer))
        for layer, module in layers_of(stage.denoiser.network).items()
    ]
    try:
        stage.denoiser(x, t, stage.conditioner.null(len(x)))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _controls(bench: Bench) -> dict[str, Callable[[Pictures], Tensor]]:
    """Representations [n d] that no decoder made."""

    def clip(of: Pictures) -> Tensor:
        return bench.over(of.images, bench.pipe.clip.image, "CLIP images")

    def pixels(of: Pictures) -> Tensor:
        return F.adaptive_avg_pool2d(from_uint8(of.images), SIDE).flatten(1)

    return {
        f"pixels, {SIDE} x {SIDE}": pixels,
        "autoencoder's latents": lambda of: of.latents.flatten(1).cpu(),
        "CLIP's image embedding": clip,
    }


def _hits(z: Tensor, label: Tensor, z_test: Tensor, label_test: Tensor) -> Tensor:
    """`class_hits`, or those of the only answer where training pictures have one."""
    if len(label.unique()) == 1:
        return label_test == label[0]
    return class_hits(z, label, z_test, label_test)


def _chance(known: Labels, wanted: Labels) -> dict[str, Figure]:
    """What is got by answering alike whatever the picture."""
    n = len(wanted.style)
    often = [
        (test == train.mode().values).double().mean().item()
        for train, test in ((known.style, wanted.style), (known.skin, wanted.skin))
    ]
    values = dict(zip(COLUMNS, [*often, 0.0], strict=True))
    return {column: known_figure(value, n, "%") for column, value in values.items()}


def _plot(rows: Mapping[str, Mapping[str, Figure]], column: str) -> Image.Image:
    """A column over t, a line a layer; after them the controls, which know no t."""
    from ldm.evaluation.plots import Point, lines

    series: dict[str, list[Point]] = {}
    for name, row in rows.items():
        line, found, time = name.rpartition(", t = ")
        if found:
            series.setdefault(line, []).append(Point(float(time), row[column]))
    for name, row in rows.items():
        if ", t = " not in name:
            level = known_figure(row[column].value, row[column].n, "%")
            series[name] = [Point(t, level) for t in TIMES]
    return lines(series, "t (0 data, 1 noise)", column)

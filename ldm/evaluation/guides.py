"""Ways to guide the decoder, by name: each a function from a scale to a sampler.

b batch; e embedding width; ... data
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor

from ldm.diffusion.denoiser import Denoise, Denoiser
from ldm.diffusion.guidance import Joinable, classifier, clip_guidance, within
from ldm.diffusion.process import Process
from ldm.diffusion.solvers import Solver
from ldm.evaluation.noised_styles import NoisedStyles
from ldm.evaluation.section import Bench
from ldm.samplers import Sampler, Sampling

INTERVAL = (0.3, 3.0)
RESCALE = 0.7
LOGIT_SCALE = 100.0
SEEING = (0.0, 10.0)
"""sigma/alpha where CLIP guides. Nearer to pure noise the expected picture says nothing, and the
factor sigma^2/alpha of its gradient grows without bound."""


class Told(NamedTuple):
    """What guidance may know of b pictures: CLIP's text embeddings [b e] and the asked styles."""

    text: Tensor
    styles: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to guide.

    Attributes:
        sampler: (the plain sampler, scale, what is told of the pictures) -> the guided sampler.
        scales: those that are measured; the plain model, which all ways begin with, is not one.
        describes: what its pictures depend on beside scale and plain sampler, for records.
        note: what a reader should know of it.
    """

    sampler: Callable[[Sampler, float, Told], Sampling]
    scales: tuple[float, ...]
    describes: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Pulled:
    """A sampler whose denoiser is moved by `pull`; solver and grid are those of `plain`."""

    plain: Sampler
    pull: Callable[[Denoise, Process], Denoise]

    @property
    def solver(self) -> Solver:
        return self.plain.solver

    def times(self, process: Process) -> Tensor:
        """The grid, [steps] float64, from noise to data."""
        return self.plain.times(process)

    def guide(self, denoiser: Denoiser, cond: Joinable, null: Joinable) -> Denoise:
        """The plain denoiser, moved."""
        return self.pull(self.plain.guide(denoiser, cond, null), denoiser.process)


def classifier_free(
    scales: tuple[float, ...],
    interval: tuple[float, float] | None = None,
    rescale: float = 0.0,
) -> Callable[[Bench], Way]:
    """Ho & Salimans 2022 (arXiv 2207.12598), with what `cfg` knows beside it."""

    def sampler(plain: Sampler, scale: float, told: Told) -> Sampler:
        return replace(plain, guidance=scale, interval=interval, rescale=rescale)

    described = {"interval of sigma/alpha": interval, "rescale": rescale}
    return lambda bench: Way(sampler=sampler, scales=scales, describes=described)


def by_clip(bench: Bench) -> Way:
    """The gradient of CLIP's cosine through x0, the autoencoder and the image tower.

    Nichol et al. 2021 (arXiv 2112.10741) section 2.3, by a tower that has seen clean pictures
    only: it is shown the picture that the denoiser expects in place of the noised one.
    """
    pipe = bench.pipe

    def sampler(plain: Sampler, scale: float, told: Told) -> Pulled:
        def pull(denoise: Denoise, process: Process) -> Denoise:
            def see(x: Tensor, t: Tensor) -> Tensor:
                picture = pipe.decoder.codec.decode(denoise(x, t).x0) / 2 + 0.5
                return pipe.clip.image_with_gradient(255 * picture)

            guided = clip_guidance(denoise, process, see, told.text, scale, LOGIT_SCALE)
            return within(process, SEEING, guided, denoise)

        return Pulled(plain, pull)

    described = {
        "clip": pipe.clip.fingerprint(),
        "logit scale": LOGIT_SCALE,
        "interval of sigma/alpha": SEEING,
        "sees": "decoded x0",
    }
    return Way(sampler=sampler, scales=(1.0, 3.0), describes=described)


def by_styles(styles: NoisedStyles) -> Way:
    """The gradient of log p(style | x_t). Dhariwal & Nichol 2021 (arXiv 2105.05233) algorithm 2."""

    def sampler(plain: Sampler, scale: float, told: Told) -> Pulled:
        log_prob = styles.log_prob(told.styles)
        return Pulled(plain, lambda denoise, process: classifier(denoise, process, log_prob, scale))

    note = f"The style classifier is right on {styles.accuracy:.1%} of noised held-out latents."
    described = {"classifier": styles.describe()}
    return Way(sampler=sampler, scales=(3.0, 8.0), describes=described, note=note)


WAYS: dict[str, Callable[[Bench], Way]] = {
    "classifier-free": classifier_free((2.0, 3.0, 5.0, 8.0)),
    "classifier-free within an interval": classifier_free((3.0, 5.0, 8.0), INTERVAL),
    "classifier-free with rescale": classifier_free((3.0, 8.0), rescale=RESCALE),
    "CLIP": by_clip,
    "style classifier": lambda bench: by_styles(NoisedStyles.fitted(bench)),
}
"""What the guidance section compares; another way is another entry."""

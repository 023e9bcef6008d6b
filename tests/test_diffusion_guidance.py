"""Guidance against the analytic posterior of a mixture, and what it must leave alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from oracles import PAIR, SMOOTH, Mixture, begin
from solver_cases import EVERY
from torch import Tensor, nn

from ldm.diffusion import (
    X0,
    Ancestral,
    Denoiser,
    Edm,
    Eps,
    FixedLarge,
    GuidedAncestral,
    Karras,
    LinearChain,
    LinearFlow,
    LogSnrGrid,
    Noise,
    Prediction,
    Process,
    Score,
    V,
    VarianceHead,
    VPCosine,
    VPLinear,
    autoguidance,
    cfg,
    classifier,
    clip_guidance,
    clip_x0,
    dynamic_threshold,
    sample,
    within,
)
from ldm.diffusion.prediction import Denoised, Flow


@dataclass(frozen=True)
class Label:
    """A condition of one label an item; -1 is the null."""

    label: Tensor  # [b]

    def cat(self, other: Label) -> Label:
        return Label(torch.cat([self.label, other.label]))


class LabelNet(nn.Module):
    """Exact for each component of PAIR under its label, and for the mixture under the null."""

    def __init__(self, process: Process, prediction: Prediction, variance: bool = False) -> None:
        super().__init__()
        self._process, self.prediction, self.variance = (process,), prediction, variance
        self.calls = 0

    def forward(self, x: Tensor, time: Tensor, cond: Label) -> Tensor:
        self.calls += 1
        process, t = self._process[0], time.double() / 1000
        out = torch.empty_like(x)
        for label in (-1, 0, 1):
            rows = cond.label == label
            if rows.any():
                found = part(label).denoise(process, x[rows], t[rows])
                out[rows] = self.prediction.target(process, t[rows], found.x0, found.eps)
        extra = cond.label[:, None].to(x.dtype).expand_as(x)
        return torch.cat([out, extra], dim=1) if self.variance else out


def part(label: int) -> Mixture:
    if label < 0:
        return PAIR
    return Mixture(weights=(1.0,), means=(PAIR.means[label],), stds=(PAIR.stds[label],))


def label_of(process: Process, label: int) -> Any:
    """The exact log p(label | x_t)."""

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        return PAIR.log_joint(process, x, t).log_softmax(1)[:, label]

    return log_prob


def points(b: int = 5) -> tuple[Tensor, Tensor]:
    x = torch.randn(b, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.linspace(0.1, 0.9, b, dtype=torch.float64)


def labels(b: int = 5) -> tuple[Label, Label]:
    return Label(torch.zeros(b, dtype=torch.long)), Label(torch.full((b,), -1))


def test_a_classifier_turns_the_mixture_into_its_component() -> None:
    """Bayes: the score of p(x) p(y|x) is the score under the label, at scale 1."""
    for process in (VPCosine(), LinearFlow(), Edm()):
        x, t = points()
        guided = classifier(PAIR.bind(process), process, label_of(process, 0), 1.0)(x, t)
        exact = part(0).denoise(process, x, t)
        torch.testing.assert_close(guided.x0, exact.x0, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(guided.eps, exact.eps, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_cfg_is_the_score_of_the_sharpened_posterior(scale: float) -> None:
    """p(x) p(y|x)^w, whose score is known, for networks of three predictions; one call each."""
    process = VPLinear()
    x, t = points()
    exact = classifier(PAIR.bind(process), process, label_of(process, 0), scale)(x, t)
    for prediction in (Eps(), V(), Flow()):
        net = LabelNet(process, prediction)
        guided = cfg(Denoiser(net, process, prediction), *labels(), scale)(x, t)
        torch.testing.assert_close(guided.x0, exact.x0, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(guided.eps, exact.eps, rtol=1e-7, atol=1e-7)
        assert net.calls == 1


PREDICTIONS = (X0(), Eps(), V(), Score(), Flow(), Karras())


@pytest.mark.parametrize("name", SMOOTH)
def test_each_guidance_of_each_prediction_on_each_process_is_the_posterior(name: str) -> None:
    """The product of processes, predictions and guidances, against p(x) p(y|x)^3."""
    process = SMOOTH[name]
    x, places = points()
    t = process.t_min + (process.t_max - process.t_min) * places
    x = x * process.at(t, x).sigma
    exact = classifier(PAIR.bind(process), process, label_of(process, 0), 3.0)(x, t)
    for prediction in PREDICTIONS:
        denoiser = Denoiser(LabelNet(process, prediction), process, prediction)
        strong, weak = (denoiser.bind(label) for label in labels())
        for guided in (
            cfg(denoiser, *labels(), 3.0),
            autoguidance(strong, weak, 3.0),
            classifier(weak, process, label_of(process, 0), 3.0),
        ):
            found = guided(x, t)
            torch.testing.assert_close(found.x0, exact.x0, rtol=1e-7, atol=1e-7)
            torch.testing.assert_close(found.eps, exact.eps, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", EVERY)
def test_each_solver_draws_alike_from_guided_networks_of_each_prediction(name: str) -> None:
    """The product of solvers, predictions and guidance: one noise, one sample."""
    process, solver = SMOOTH["cosine"], EVERY[name]
    times = LogSnrGrid()(process, 4)
    exact = classifier(PAIR.bind(process), process, label_of(process, 0), 2.0)
    x, noise = begin(process, times, range(3))
    expected = sample(exact, process, solver, times, x, noise)
    for prediction in PREDICTIONS:
        denoiser = Denoiser(LabelNet(process, prediction), process, prediction)
        x, noise = begin(process, times, range(3))
        found = sample(cfg(denoiser, *labels(3), 2.0), process, solver, times, x, noise)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_cfg_leaves_the_variance_channels_alone() -> None:
    """2112.10741, their code: the scale is for the mean; the variance is the conditional one."""
    process = VPLinear()
    net = LabelNet(process, Eps(), variance=True)
    denoiser = Denoiser(net, process, Eps(), head=VarianceHead())
    x, t = points()
    guided = cfg(denoiser, *labels(), 4.0)(x, t)
    assert guided.aux is not None
    assert (guided.aux == 0).all()  # label 0's own; the null's is -1


def test_the_interval_acts_between_two_noise_levels() -> None:
    process = VPLinear()
    net = LabelNet(process, Eps())
    denoiser = Denoiser(net, process, Eps())
    x, t = points()
    ratio = (-process.logsnr(t) / 2).exp()
    low, high = ratio[1].item() * 0.999, ratio[3].item() * 1.001
    guided = cfg(denoiser, *labels(), 3.0, interval=(low, high))(x, t).x0
    everywhere = cfg(denoiser, *labels(), 3.0)(x, t).x0
    plain = denoiser(x, t, labels()[0]).x0
    torch.testing.assert_close(guided[1:4], everywhere[1:4])
    torch.testing.assert_close(guided[[0, 4]], plain[[0, 4]])
    net.calls = 0
    nothing = cfg(denoiser, *labels(), 3.0, interval=(1e5, 1e6))(x, t).x0
    torch.testing.assert_close(nothing, plain)
    inside, outside = PAIR.bind(process), part(1).bind(process)
    both = within(process, (low, high), inside, outside)(x, t).x0
    torch.testing.assert_close(both[1:4], inside(x, t).x0[1:4])
    torch.testing.assert_close(both[[0, 4]], outside(x, t).x0[[0, 4]])


def test_rescale_takes_the_contrast_back() -> None:
    process = VPLinear()
    denoiser = Denoiser(LabelNet(process, V()), process, V())
    x, t = points()
    plain = denoiser(x, t, labels()[0]).x0.std(1)
    wild = cfg(denoiser, *labels(), 5.0)(x, t).x0.std(1)
    full = cfg(denoiser, *labels(), 5.0, rescale=1.0)(x, t)
    torch.testing.assert_close(full.x0.std(1), plain)
    half = cfg(denoiser, *labels(), 5.0, rescale=0.5)(x, t).x0.std(1)
    torch.testing.assert_close(half, (plain + wild) / 2)
    torch.testing.assert_close(process.perturb(full.x0, t, full.eps), x)
    with pytest.raises(ValueError, match="rescale"):
        cfg(denoiser, *labels(), 5.0, rescale=2.0)


def test_autoguidance_moves_away_from_the_lesser_model() -> None:
    process = VPLinear()
    x, t = points()
    strong, weak = PAIR.bind(process), part(1).bind(process)
    found = autoguidance(strong, weak, 2.0)(x, t).x0
    torch.testing.assert_close(found, 2 * strong(x, t).x0 - weak(x, t).x0)


def test_clip_guidance_is_a_classifier_by_cosine() -> None:
    process = VPLinear()
    x, t = points()
    text = torch.randn(5, 2, dtype=torch.float64)

    def tower(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(x) * (1 + t[:, None])

    def cosine(x: Tensor, t: Tensor) -> Tensor:
        return 100 * torch.cosine_similarity(tower(x, t), text, dim=-1)

    found = clip_guidance(PAIR.bind(process), process, tower, text, 0.3)(x, t)
    expected = classifier(PAIR.bind(process), process, cosine, 0.3)(x, t)
    torch.testing.assert_close(found.x0, expected.x0)


def test_adm_shifts_the_mean_by_its_variance() -> None:
    """2105.05233 algorithm 1; with variance beta it is sqrt(1 - beta) times the exact guidance."""
    chain = LinearChain(num_steps=50)
    x, _ = points(3)
    t, s = (torch.full((3,), v, dtype=torch.float64) for v in (0.6, 0.58))
    beta = chain.conditional_variance(t, s)[0]
    moved = []
    for solver in (
        GuidedAncestral(log_prob=label_of(chain, 0), scale=2.0, variance=FixedLarge()),
        Ancestral(variance=FixedLarge()),
    ):
        moved.append(solver.step(PAIR.bind(chain), chain, x, t, s, None, Noise(range(3)))[0])
    leaf = x.clone().requires_grad_()
    gradient = torch.autograd.grad(label_of(chain, 0)(leaf, t).sum(), leaf)[0]
    torch.testing.assert_close(moved[0] - moved[1], 2 * beta * gradient)
    exact = classifier(PAIR.bind(chain), chain, label_of(chain, 0), 2.0)
    plain = Ancestral(variance=FixedLarge())
    through = plain.step(exact, chain, x, t, s, None, Noise(range(3)))[0]
    torch.testing.assert_close((through - moved[1]) * (1 - beta).sqrt(), moved[0] - moved[1])


def test_thresholds_hold_x0_and_keep_the_pair_consistent() -> None:
    process = VPCosine()
    x, t = points()

    def wild(x: Tensor, t: Tensor) -> Denoised:
        return Denoised(5 * x, x, x)

    clipped = clip_x0(wild, process)(x, t)
    assert clipped.x0.abs().max() <= 1
    torch.testing.assert_close(process.perturb(clipped.x0, t, clipped.eps), x)
    assert clipped.aux is x
    dynamic = dynamic_threshold(wild, process, 1.0)(x, t)
    size = (5 * x).abs().amax(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(dynamic.x0, 5 * x / size)
    torch.testing.assert_close(process.perturb(dynamic.x0, t, dynamic.eps), x)
    with pytest.raises(ValueError, match="quantile"):
        dynamic_threshold(wild, process, 0.0)

"""ADM's own parts: classifier of noised data, guided score, coverage, rescaled U-Net."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from networks_cases import TINY, perturbed
from torch import Tensor

from configs.papers import adm
from ldm.classifier import ClassifierConfig, NoisyClassifier
from ldm.conditioning import Cond
from ldm.data.batch import Batch
from ldm.data.toys import Mixture
from ldm.diffusion import Process, VPCosine, classifier
from ldm.errors import DataError
from ldm.networks.blocks import ResBlock
from ldm.networks.rescaled import RescaledConfig
from ldm.papers.coverage import precision_recall, psnr, spread_within
from ldm.papers.exact import Exact
from ldm.papers.guided import component, component_log_prob

SETTINGS: ClassifierConfig = adm.classifier().task.classifier  # type: ignore[attr-defined]
PAIR = Mixture(means=((1.5, 0.0), (-1.0, 0.8)), weights=(0.3, 0.7), std=0.5)


def small_classifier() -> NoisyClassifier:
    torch.manual_seed(0)
    built = SETTINGS.build()
    perturbed(built)
    return built


def batch_of(b: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (b, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Batch(key=("",) * b, image=image, label=torch.arange(b) % 10)


# 1. The guided score


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("level", [0.05, 0.5, 0.95])
def test_guided_score_is_the_score_of_the_component(k: int, level: float) -> None:
    """2105.05233 section 4.2: score of p(x) plus gradient of log p(k | x) is that of p(x | k)."""
    process = VPCosine()
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.full((64,), level, dtype=torch.float64)
    log_prob = component_log_prob(PAIR, process, k)
    guided = classifier(Exact(PAIR, process), process, log_prob, 1.0)(x, t)
    truth = Exact(component(PAIR, k), process)(x, t)
    torch.testing.assert_close(guided.eps, truth.eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(guided.x0, truth.x0, rtol=1e-9, atol=1e-9)


def test_posteriors_of_the_components_add_up_to_one() -> None:
    process, x = VPCosine(), torch.randn(16, 2, dtype=torch.float64)
    t = torch.full((16,), 0.4, dtype=torch.float64)
    both = torch.stack([component_log_prob(PAIR, process, k)(x, t).exp() for k in (0, 1)])
    torch.testing.assert_close(both.sum(0), torch.ones(16, dtype=torch.float64), rtol=1e-6, atol=0)


# 2. The classifier


def test_log_prob_is_a_distribution_over_labels_and_has_a_gradient() -> None:
    found, x = small_classifier(), torch.randn(3, 1, 8, 8, requires_grad=True)
    t = torch.tensor([0.1, 0.5, 0.9])
    labels = [torch.full((3,), label) for label in range(10)]
    every = torch.stack([found.log_prob(label)(x, t) for label in labels])
    torch.testing.assert_close(every.exp().sum(0), torch.ones(3))
    (gradient,) = torch.autograd.grad(every[4].sum(), x)
    assert gradient.isfinite().all() and (gradient != 0).any()


def test_loss_is_the_cross_entropy_of_pictures_noised_by_the_process() -> None:
    """Draw by draw against the formula; a classifier trained on clean pictures would differ."""
    found, batch = small_classifier(), batch_of(6)
    terms = found.loss(batch, torch.Generator().manual_seed(3))
    again = torch.Generator().manual_seed(3)
    t, weight = SETTINGS.times(SETTINGS.process, 6, again)
    eps = torch.randn(6, 1, 8, 8, generator=again)
    alpha, sigma = SETTINGS.process.alpha_sigma(t)
    assert batch.image is not None and batch.label is not None
    clean = batch.image.float() / 127.5 - 1
    x_t = (alpha[:, None, None, None] * clean + sigma[:, None, None, None] * eps).float()
    logits = found.network(x_t, (1000 * t).float())
    expected = -logits.log_softmax(1)[torch.arange(6), batch.label]
    torch.testing.assert_close(terms["loss"], weight.float() * expected)
    with pytest.raises(DataError, match="labels"):
        found.loss(batch.replace(label=None), again)


def test_a_classifier_survives_its_folder(tmp_path: Path) -> None:
    found, x, t = small_classifier(), torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.7])
    found.save_pretrained(tmp_path)
    assert torch.equal(NoisyClassifier.from_pretrained(tmp_path)(x, t), found(x, t))


@dataclass(frozen=True, kw_only=True)
class TwoTimes:
    """Times that remember what they were told."""

    heard: list[Tensor]

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return torch.full((b,), 0.5).double(), torch.full((b,), 2.0).double()

    def update(self, process: Process, t: Tensor, loss: Tensor) -> None:
        self.heard.append(loss)


def test_times_weigh_and_hear_the_loss() -> None:
    found = small_classifier()
    heard: list[Tensor] = []
    found.times = TwoTimes(heard=heard)  # type: ignore[assignment]
    terms = found.loss(batch_of(4), torch.Generator().manual_seed(0))
    torch.testing.assert_close(terms["loss"], 2 * heard[0])


# 3. Measures


def test_precision_and_recall_of_known_cases() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200, 2, generator=generator)
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)
    tight = 0.01 * torch.randn(200, 2, generator=generator)
    precision, recall = precision_recall(real, tight)
    assert precision == 1.0 and recall < 0.1
    precision, recall = precision_recall(real, 5 * torch.randn(200, 2, generator=generator))
    assert precision < 0.6 and recall > 0.9


def test_balls_reach_to_the_kth_neighbour() -> None:
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    drawn = torch.tensor([[8.5], [11.5], [20.0], [-2.5]])
    # radii for k = 1 are 1, 1, 2, 4; for k = 2 they are 3, 2, 3, 6
    assert precision_recall(line, drawn, k=1)[0] == 0.25
    assert precision_recall(line, drawn, k=2)[0] == 0.75


def test_spread_is_measured_within_labels() -> None:
    x = torch.tensor([[0.0], [1.0], [50.0], [53.0]])
    assert spread_within(x, torch.tensor([0, 0, 1, 1])) == pytest.approx(2.0)


def test_psnr_of_a_known_error() -> None:
    truth = torch.zeros(2, 1, 2, 2)
    torch.testing.assert_close(psnr(truth + 0.2, truth), torch.full((2,), 20.0))


# 4. The rescaled network


def test_residual_sums_are_divided_by_the_root_of_two() -> None:
    torch.manual_seed(0)
    plain, rescaled = TINY.build(), RescaledConfig(base=TINY).build()
    rescaled.load_state_dict(plain.state_dict())
    blocks = [[m for m in net.modules() if isinstance(m, ResBlock)] for net in (plain, rescaled)]
    x, time = torch.randn(2, 16, 4, 4), torch.randn(2, 64)
    torch.testing.assert_close(blocks[1][0](x, time), blocks[0][0](x, time) / 2**0.5)
    for net in (plain, rescaled):
        perturbed(net)
    inputs = torch.randn(2, 2, 8, 8), torch.zeros(2), Cond()
    assert not torch.allclose(plain(*inputs), rescaled(*inputs))

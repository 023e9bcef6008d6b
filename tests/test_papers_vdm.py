"""VDM's parts: finite and continuous bounds, the residual prediction, two players, waves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from configs.papers import vdm
from ldm.conditioning.cond import Cond
from ldm.data.digits import Digits
from ldm.diffusion import Denoiser, Eps, GaussianDecoder, Noise, VPCosine
from ldm.diffusion.bounds import continuous_bound
from ldm.diffusion.finite import finite_bound
from ldm.diffusion.residual import EpsResidual
from ldm.errors import ConfigError
from ldm.learned_schedule import ScheduleTraining
from ldm.networks.flat import FlatConfig
from ldm.networks.waves import WavesConfig
from ldm.papers.schedules import SHAPES, Between, ExactGaussian, straight, under


def test_residual_of_nothing_is_the_input_and_targets_agree() -> None:
    process, t = VPCosine(), torch.tensor([0.3, 0.8]).double()
    x0, eps = Noise(range(2)).normal((3,), torch.float64), Noise([5, 6]).normal((3,), torch.float64)
    x = process.perturb(x0, t, eps)
    torch.testing.assert_close(EpsResidual().target(process, t, x0, eps), eps - x)
    torch.testing.assert_close(EpsResidual().denoised(process, t, x, torch.zeros_like(x)).eps, x)


@pytest.mark.parametrize("name", SHAPES)
def test_schedules_share_their_ends_and_fall(name: str) -> None:
    process = Between(-8.0, 5.0, SHAPES[name])
    logsnr = process.logsnr(torch.linspace(0, 1, 50, dtype=torch.float64))
    torch.testing.assert_close(logsnr[[0, -1]], torch.tensor([8.0, -5.0]).double())
    assert (logsnr.diff() < 0).all()


def test_the_finite_bound_falls_to_the_continuous_one() -> None:
    """2107.00630 section 4.2 and eq. 18, with the exact denoiser: the closed form at the end."""
    process, std, n, d = Between(-6.0, 4.0, straight), 0.5, 100, 256
    x0 = std * Noise(range(n)).normal((d,), torch.float64)
    exact = ExactGaussian(process, std)

    def diffusion(steps: int | None) -> float:
        noise = Noise(range(n, 2 * n))
        found: Any = (
            continuous_bound(exact, process, x0, 100, noise, decoder=GaussianDecoder())
            if steps is None
            else finite_bound(exact, process, x0, steps, noise, decoder=GaussianDecoder())
        )
        return float(found.diffusion.mean()) / d

    found = [diffusion(steps) for steps in (3, 10, 60, None)]
    assert found[0] > found[1] > found[2] > found[3] - 0.02
    truth = math.log((1 + std**2 * math.exp(6)) / (1 + std**2 * math.exp(-4))) / 2
    assert found[3] == pytest.approx(truth, abs=0.05)


def test_the_interior_learns_from_its_own_loss_alone() -> None:
    plan = vdm.recipes()["interior"]
    torch.manual_seed(0)
    task = plan.task.build(Digits(batch_size=8).open())
    stage, interior = task.players()
    assert not {id(p) for p in stage.parameters} & {id(p) for p in interior.parameters}
    every = {id(p) for p in task.module.parameters()}
    assert every == {id(p) for player in (stage, interior) for p in player.parameters}
    names = {n for n, p in task.module.named_parameters() if id(p) in map(id, interior.parameters)}
    assert {name.rsplit(".", 1)[1] for name in names} == {"line", "inner", "shift", "outer"}


def test_a_schedule_without_an_interior_is_refused() -> None:
    wrong = ScheduleTraining(stage=vdm.stage(vdm.LINEAR, ()), shape=vdm.SHAPE)
    with pytest.raises(ConfigError, match="MonotoneConfig"):
        wrong.build(Digits(batch_size=8).open())


def test_waves_have_the_period_of_two_bins_and_of_one() -> None:
    base = FlatConfig(shape=(5, 2, 2), out_channels=1, width=16)
    built = WavesConfig(base=base, exponents=(3, 4)).build()
    seen: list[torch.Tensor] = []
    built.base.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    levels = torch.linspace(-1, 1, 17)[:4].view(1, 1, 2, 2)
    built(levels, torch.zeros(1), Cond())
    cosines = seen[0][0, [2, 4]].flatten(1)
    torch.testing.assert_close(cosines[0], torch.tensor([1.0, -1.0, 1.0, -1.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(cosines[1], torch.ones(4), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="base alone"):
        WavesConfig(base=FlatConfig(shape=(1, 2, 2)), exponents=())


def test_a_network_may_read_another_process() -> None:
    base = FlatConfig(shape=(1, 2, 2), width=16).build()
    first = Denoiser(base, Between(-8.0, 5.0, straight), Eps())
    second = under(first, Between(-8.0, 5.0, SHAPES["alpha-cosine"]))
    assert second.network is base and second.process is not first.process

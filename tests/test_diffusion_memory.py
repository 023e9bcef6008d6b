"""Times that learn from the losses: their law, their memory, stop and resume, several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from wrong_nets import Wrong, data, draws

from ldm.diffusion import (
    Denoiser,
    Discrete,
    Eps,
    LinearChain,
    LossHistory,
    LossSecondMoment,
    Mse,
)

CHAIN = LinearChain(num_steps=4)
STEPS = (torch.arange(4) + 1).double() / 4


def filled(loss: Tensor, history: int = 1) -> LossHistory:
    times = LossSecondMoment(num_steps=len(loss), history=history).build()
    for _ in range(history):
        times.update(CHAIN, STEPS, loss)
    return times


def test_loss_second_moment_draws_by_root_mean_square_without_bias() -> None:
    """2102.09672 eq. 18; uniform until every step has its history."""
    times = LossSecondMoment(num_steps=4, history=3).build()
    loss = torch.tensor([1.0, 2.0, 3.0, 10.0]).double()
    even = torch.full((4,), 0.25).double()
    for round_ in range(5):
        times.update(CHAIN, STEPS, loss * (1 if round_ >= 2 else 100))
        if round_ < 2:
            torch.testing.assert_close(times.probabilities(), even)
    torch.testing.assert_close(times.probabilities(), 0.999 * loss / 16 + 0.001 * even)
    times.update(CHAIN, STEPS, 7 * loss)
    mean = (1 + 1 + 49) / 3
    torch.testing.assert_close(times.losses.square().mean(1), (mean * loss**2).float())
    drawn, weight = times(CHAIN, 40_000, draws())
    values = loss[(drawn * 4).round().long() - 1]
    assert abs((weight * values).mean() - loss.mean()) < 0.02


def test_it_lowers_the_variance_of_the_loss() -> None:
    """Section 3.3: the point of it; with the exact law the weighted losses are nearly equal."""
    loss = torch.tensor([1.0, 2.0, 3.0, 10.0]).double()
    spreads = []
    for times in (filled(loss), Discrete(num_steps=4)):
        t, weight = times(CHAIN, 10_000, draws())
        spreads.append((weight * loss[(t * 4).round().long() - 1]).std())
    assert spreads[0] < 0.05 * spreads[1]


def test_importance_weights_multiply_the_loss_and_it_is_heard() -> None:
    denoiser = Denoiser(Wrong(CHAIN, Eps()), CHAIN, Eps())
    times = filled(torch.tensor([1.0, 2.0, 3.0, 10.0]))
    p = times.probabilities()
    terms = Mse(times=times)(denoiser, data(8), None, draws())
    index = torch.multinomial(p, 8, replacement=True, generator=draws())
    torch.testing.assert_close(terms["loss"], terms["mse"] / (4 * p[index]))
    assert int(times.counts.sum()) == 4 + 8
    last = {int(i): float(v) for i, v in zip(index, terms["mse"], strict=True)}
    for i, value in last.items():
        assert times.losses[i, 0].item() == pytest.approx(value)  # before its weight


def test_a_batch_is_remembered_as_one_loss_after_another() -> None:
    """Also where one step comes more often than it has places."""
    config = LossSecondMoment(num_steps=4, history=3)
    together, apart = config.build(), config.build()
    for round_ in range(3):
        index = torch.randint(0, 3, (11,), generator=draws(round_))
        loss = torch.rand(11, generator=draws(round_ + 9)).double()
        together.update(CHAIN, STEPS[index], loss)
        for i, value in zip(index.tolist(), loss, strict=True):
            apart.update(CHAIN, STEPS[i : i + 1], value[None])
    assert torch.equal(together.losses, apart.losses)
    assert torch.equal(together.counts, apart.counts)
    assert together.counts.sum() == 33 and together.counts[3] == 0


def test_it_does_not_hear_evaluation_nor_what_is_not_finite() -> None:
    times = filled(torch.ones(4))
    before = times.losses.clone()
    times.eval().update(CHAIN, STEPS, torch.full((4,), 9.0))
    assert torch.equal(times.losses, before) and int(times.counts.sum()) == 4
    loss = torch.tensor([2.0, float("nan"), float("inf"), 3.0])
    times.train().update(CHAIN, STEPS, loss)
    assert times.losses[:, 0].tolist() == [2.0, 1.0, 1.0, 3.0]
    assert times.counts.tolist() == [2, 1, 1, 2]
    silent = filled(torch.zeros(4))
    assert silent(CHAIN, 5, draws())[0].shape == (5,)  # all losses zero: no step is preferred


def test_a_setting_says_that_it_has_no_memory() -> None:
    config = LossSecondMoment(num_steps=4)
    with pytest.raises(ValueError, match=r"objective\.build"):
        config(CHAIN, 3, draws())
    with pytest.raises(ValueError, match="history 1 or more"):
        LossSecondMoment(history=0)
    objective = Mse(times=config).build()
    assert objective.memory() is objective.times
    assert Mse(times=config).build().times is not objective.times  # each build its own
    assert Mse().memory() is None and Mse().build() == Mse()


def _one_of_two(rank: int, folder: str) -> None:
    """Losses of five and of three items, as uneven last batches have them."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    times = LossSecondMoment(num_steps=4, history=3).build()
    for round_ in range(4):
        index, loss = _losses(rank, round_)
        times.update(CHAIN, STEPS[index], loss)
    torch.save(times.state_dict(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()
    os._exit(0)  # forked: what the parent holds is not this one's to tidy up


def _losses(rank: int, round_: int) -> tuple[Tensor, Tensor]:
    n, generator = (5, 3)[rank], draws(10 * rank + round_)
    return torch.randint(0, 4, (n,), generator=generator), torch.rand(n, generator=generator)


def test_two_processes_share_one_history(tmp_path: Path) -> None:
    """2102.09672, their code: all_gather; the history is that of one process with both batches."""
    fork = multiprocessing.get_context("fork")  # torch is imported already
    both = [fork.Process(target=_one_of_two, args=(rank, str(tmp_path))) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    alone = LossSecondMoment(num_steps=4, history=3).build()
    for round_ in range(4):
        parts = [_losses(rank, round_) for rank in (0, 1)]
        index, loss = (torch.cat(part) for part in zip(*parts, strict=True))
        alone.update(CHAIN, STEPS[index], loss)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(found["losses"], alone.losses)
        assert torch.equal(found["counts"], alone.counts)


# --- in a stage, under the training loop


def small_stage() -> Any:
    from ldm.conditioning import TextConditionerConfig
    from ldm.networks.prior import PriorConfig
    from ldm.stage import EmbeddingCodec, StageConfig

    torch.manual_seed(0)
    return StageConfig(
        codec=EmbeddingCodec(width=8),
        conditioner=TextConditionerConfig(text_dim=8, embed_dim=8, context_length=4),
        network=PriorConfig(
            embedding_dim=8, vector_dim=8, context_dim=8, context_length=4, width=16, depth=1,
            head_dim=8,
        ),
        process=LinearChain(num_steps=4),
        prediction=Eps(),
        objective=Mse(times=LossSecondMoment(num_steps=4, history=2)),
    ).build()


class Learning:
    """The smallest task around a stage: what the loop saves is the stage."""

    def __init__(self) -> None:
        self.module: Any = small_stage()

    def players(self) -> list[Any]:
        from ldm.training import Player

        return [Player("net", list(self.module.parameters()), self.module.loss)]

    def samples(self, *_: object) -> None: ...

    def export(self, *_: object) -> None: ...


def batches(start: int) -> Iterator[Any]:
    from ldm.data.batch import Batch

    for number in range(start, 10):
        embedding = torch.randn(6, 8, generator=draws(number))
        embedding = embedding / embedding.norm(dim=1, keepdim=True)
        yield Batch(key=tuple("abcdef"), image_embedding=embedding)


def run(folder: Path, stop: int) -> Any:
    """From the folder's checkpoint, if one is there, to ten steps of six items or to `stop`."""
    from ldm.training import LoopConfig, OptimConfig, Trainer, resume

    config = LoopConfig(images=60, precision="float32")
    trainer = Trainer(Learning(), OptimConfig(lr=1e-2), config, device=torch.device("cpu"))
    resume(trainer, folder)
    for batch in batches(trainer.batches):
        if trainer.batches == stop:
            break
        trainer.step(batch)
    trainer.save(folder, {})
    return trainer


def test_stop_and_resume_is_a_straight_run(tmp_path: Path) -> None:
    straight = run(tmp_path / "a", 10)
    run(tmp_path / "b", 5)
    resumed = run(tmp_path / "b", 10)
    expected, found = (r.task.module.state_dict() for r in (straight, resumed))
    assert int(expected["objective_memory.counts"].sum()) == 60
    assert straight.task.module.objective.times.probabilities().std() > 0  # it has begun to choose
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_the_moving_average_copies_the_memory_as_it_is(tmp_path: Path) -> None:
    trainer = run(tmp_path, 10)
    live, average = trainer.task.module.state_dict(), trainer.ema.state_dict()
    for name in ("objective_memory.losses", "objective_memory.counts"):
        assert torch.equal(live[name], average[name])
    moved = [k for k, _ in trainer.task.module.named_parameters()]
    assert any(not torch.equal(live[k], average[k]) for k in moved)


def test_a_stage_is_published_with_its_memory_and_read_again(tmp_path: Path) -> None:
    from ldm.stage import Stage

    stage = run(tmp_path / "run", 4).task.module
    stage.save_pretrained(tmp_path / "stage", {})
    read = Stage.from_pretrained(tmp_path / "stage")
    assert read.fingerprint() == stage.fingerprint()
    memory: Any = read.objective_memory
    assert torch.equal(memory.losses, stage.objective_memory.losses)
    assert read.objective.times is memory


def test_most_objectives_keep_nothing() -> None:
    from tiny import PRIOR

    assert not [k for k in PRIOR.build().state_dict() if k.startswith("objective")]

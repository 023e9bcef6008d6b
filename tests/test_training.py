"""The training loop: exact resume, whole checkpoints, averages, refusals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ldm.data.batch import Batch
from ldm.errors import CheckpointError, DivergedError
from ldm.training import LoopConfig, OptimConfig, Player, Trainer, checkpoint, resume, train
from ldm.training.ema import Ema
from ldm.training.log import RunLog, logged_seconds

CPU = torch.device("cpu")
OPTIM = OptimConfig(lr=1e-2, warmup_images=8)


class Regression:
    """A dropout network on labels: its loss uses the generator and torch's global one is unused."""

    def __init__(self, blow_up: bool = False) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
        self.blow_up = blow_up

    def players(self) -> list[Player]:
        return [Player("net", list(self.module.parameters()), self.loss)]

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        assert batch.label is not None
        x = torch.randn(len(batch), 4, generator=generator)
        error = (self.module(x)[:, 0] - batch.label.float()).square()
        return {"loss": error * (math.inf if self.blow_up else 1.0)}

    def samples(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        return torch.randint(0, 255, (3, 3, 4, 5), generator=generator, dtype=torch.uint8)

    def export(self, *_: object) -> None: ...


def batches(start: int) -> Iterator[Batch]:
    """Endless; batch n is a function of n."""
    number = start
    while True:
        label = torch.randint(0, 3, (4,), generator=torch.Generator().manual_seed(number))
        yield Batch(key=("a", "b", "c", "d"), label=label)
        number += 1


def run(folder: Path, images: int, total: int, task: Regression | None = None) -> Trainer:
    """Train towards `total` images and stop after `images`, as a killed run would."""
    config = LoopConfig(images=total, log_every=8, sample_every=16, save_every=8, precision="auto")
    trainer = Trainer(task or Regression(), OPTIM, config, device=CPU)
    resume(trainer, folder / "checkpoints")
    log = RunLog(folder, tensorboard=False)
    count = (images - trainer.images) // 4
    stream = (b for b, _ in zip(batches(trainer.batches), range(count)))  # noqa: B905
    train(trainer, lambda _: stream, log, meta={"who": "test"}, progress=False)
    log.close()
    return trainer


def state(trainer: Trainer) -> dict[str, Tensor]:
    tensors = dict(trainer.task.module.state_dict())
    tensors |= {f"ema.{k}": v for k, v in trainer.ema.state_dict().items()}
    return tensors | checkpoint.optimizer_tensors(trainer.optimizers[0], "optim")


def test_resume_equals_a_straight_run_bit_for_bit(tmp_path: Path) -> None:
    straight = run(tmp_path / "a", 48, 48)
    run(tmp_path / "b", 24, 48)
    resumed = run(tmp_path / "b", 48, 48)
    for name, value in state(straight).items():
        assert torch.equal(value, state(resumed)[name]), name
    assert straight.images == resumed.images == 48


def test_logs_and_pictures_are_written(tmp_path: Path) -> None:
    run(tmp_path, 32, 32)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4
    assert [p.name for p in sorted((tmp_path / "samples").iterdir())] == [
        "000000016.png",
        "000000032.png",
    ]


@pytest.mark.parametrize("victim", ["state.safetensors", "meta.json", "sha256.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    tmp_path: Path, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, 24, 48)
    root = tmp_path / "checkpoints"
    newest = checkpoint.steps(root)[-1]
    data = bytearray((newest / victim).read_bytes())
    data[len(data) // 2] ^= 1
    (newest / victim).write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=newest.name):
        checkpoint.load(newest)
    trainer = Trainer(Regression(), OPTIM, LoopConfig(images=48), device=CPU)
    assert resume(trainer, root)
    assert trainer.images == 16
    assert newest.name in caplog.text


def test_only_whole_checkpoints_are_published_and_old_ones_go(tmp_path: Path) -> None:
    for step in range(4):
        checkpoint.save(tmp_path, step, {"x": torch.ones(2)}, {}, keep=2)
    (tmp_path / ".tmp-000000009").mkdir()  # what a killed process leaves
    assert [p.name for p in checkpoint.steps(tmp_path)] == ["step_000000002", "step_000000003"]
    assert not list(tmp_path.glob(".trash*"))


def test_steps_that_are_not_finite_change_nothing_and_end_the_run(tmp_path: Path) -> None:
    task = Regression(blow_up=True)
    before = {k: v.clone() for k, v in task.module.state_dict().items()}
    config = LoopConfig(images=400, max_bad_steps=3)
    trainer = Trainer(task, OPTIM, config, device=CPU)
    stream = batches(0)
    trainer.step(next(stream))
    assert all(torch.equal(before[k], v) for k, v in task.module.state_dict().items())
    assert trainer.bad_steps == 1
    with pytest.raises(DivergedError, match="3 steps in a row"):
        for batch in stream:
            trainer.step(batch)


def test_a_player_waits_for_its_start() -> None:
    task = Regression()
    late = Player("late", list(task.module.parameters()), task.loss, start=8)
    task.players = lambda: [late]  # type: ignore[method-assign]
    trainer = Trainer(task, OPTIM, LoopConfig(images=100), device=CPU)
    stream = batches(0)
    logged = ["loss" in trainer.step(next(stream)) for _ in range(3)]
    assert logged == [False, False, True]


def test_ema_has_the_half_life_it_says() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    ema = Ema(module, half_life=100, ramp=1e9)
    nn.init.ones_(module.weight)
    for images in range(10, 101, 10):
        ema.update(10, images)
    assert ema.state_dict()["weight"].item() == pytest.approx(0.5)
    with ema.applied():
        assert module.weight.item() == pytest.approx(0.5)
    assert module.weight.item() == 1.0


def test_learning_rate_warms_up_and_decays() -> None:
    config = OptimConfig(lr=1.0, warmup_images=100, decay="cosine", final=0.0)
    assert config.lr_at(0, 1000) == pytest.approx(0.01, rel=0.01)
    assert config.lr_at(500, 1000) == pytest.approx(0.5)
    assert config.lr_at(1000, 1000) == pytest.approx(0.0)


def test_a_run_starts_from_anothers_averages(tmp_path: Path) -> None:
    first = run(tmp_path / "first", 24, 24)
    trainer = Trainer(Regression(), OPTIM, LoopConfig(images=24), device=CPU)
    trainer.start_from(tmp_path / "first")
    for name, value in trainer.task.module.state_dict().items():
        assert torch.equal(value, first.ema.shadow[name])
        assert torch.equal(trainer.ema.shadow[name], value)
    assert trainer.images == 0
    with pytest.raises(CheckpointError, match="no checkpoints/"):
        trainer.start_from(tmp_path)
    other = Regression()
    other.module = nn.Linear(3, 3)
    with pytest.raises(CheckpointError, match="no start for this recipe"):
        Trainer(other, OPTIM, LoopConfig(images=1), device=CPU).start_from(tmp_path / "first")


class Convolution(Regression):
    """One kernel on noise pictures."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Conv2d(3, 5, 3)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        x = torch.randn(len(batch), 3, 6, 6, generator=generator)
        return {"loss": (self.module(x) - x[:, :1, 1:-1, 1:-1]).square().mean((1, 2, 3))}


@pytest.mark.parametrize("channels_last", [False, True])
def test_channels_last_resumes_to_the_same_weights(tmp_path: Path, channels_last: bool) -> None:
    def trained(folder: str, stops: list[int]) -> Tensor:
        for stop in stops:
            config = LoopConfig(images=stop, channels_last=channels_last, precision="float32")
            trainer = Trainer(Convolution(), OptimConfig(decay="constant"), config, device=CPU)
            resume(trainer, tmp_path / folder / "checkpoints")
            log = RunLog(tmp_path / folder, tensorboard=False)
            train(trainer, batches, log, meta={}, progress=False)
            log.close()
        weight = trainer.task.module.weight
        assert isinstance(weight, Tensor)
        assert weight.is_contiguous() != channels_last
        return weight.detach()

    assert torch.equal(trained("straight", [40]), trained("stopped", [20, 40]))


def test_exported_weights_are_read_back(tmp_path: Path) -> None:
    tensors = dict(Convolution().module.to(memory_format=torch.channels_last).state_dict())
    checkpoint.export_weights(tmp_path / "part", tensors)
    found = checkpoint.weights(tmp_path / "part")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_the_seconds_of_a_run_are_those_of_all_its_starts(tmp_path: Path) -> None:
    assert logged_seconds(tmp_path) == 0.0
    told = (10.0, 25.5, 3.0, 8.0, 2.0)  # three starts
    (tmp_path / "log.jsonl").write_text("".join(f'{{"seconds": {s}}}\n' for s in told))
    assert logged_seconds(tmp_path) == 25.5 + 8.0 + 2.0

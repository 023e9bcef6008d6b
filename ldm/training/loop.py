"""The training loop: the only one, and it knows no method.

    batch -> each player: terms -> mean -> backward -> clip -> step -> average -> log, sample, save

A stopped run goes on exactly where it was: weights, average, optimiser, random state and the place
in the data are all in the checkpoint, and nothing else has a memory.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ldm.data.batch import Batch
from ldm.errors import CheckpointError, DivergedError
from ldm.training import checkpoint
from ldm.training.ema import Ema
from ldm.training.log import RunLog
from ldm.training.optim import OptimConfig, clip_gradients
from ldm.training.task import Moves, Task, Terms

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how to train; every interval is in images seen.

    Attributes:
        images: when training ends.
        seed: of every draw in training (not of the initial weights).
        ema_half_life: memory of the weight average.
        precision: "bf16" autocasts the losses; "auto" takes bf16 where the device has it.
        channels_last: lay kernels and maps out with the channels last: a tenth faster in float32
            on a CPU, slower under a CPU's bf16 autocast.
        compile: let torch.compile fuse the layers of what is trained (of a stage, its network): a
            minute or two at the start, and on a CPU it needs a C++ compiler.
        log_every, sample_every, save_every: intervals.
        keep: how many checkpoints stay on disk.
        max_bad_steps: consecutive steps with gradients that are not finite before giving up.
    """

    images: int
    seed: int = 0
    ema_half_life: int = 20_000
    precision: Literal["auto", "bf16", "float32"] = "auto"
    channels_last: bool = False
    compile: bool = False
    log_every: int = 2_000
    sample_every: int = 20_000
    save_every: int = 20_000
    keep: int = 2
    max_bad_steps: int = 20


class Trainer:
    """The state of one run: step it, save it, load it.

    Args:
        task: what is trained.
        optim: optimiser settings, the same for each player.
        config: lengths and intervals.
        device: where the task's module lies.
    """

    def __init__(
        self, task: Task, optim: OptimConfig, config: LoopConfig, *, device: torch.device
    ) -> None:
        self.task, self.optim, self.config, self.device = task, optim, config, device
        if config.channels_last:
            task.module.to(memory_format=torch.channels_last)
        if config.compile:
            task.module.compile()
        self.players = list(task.players())
        self.optimizers = [optim.build(list(p.parameters)) for p in self.players]
        self.ema = Ema(task.module, config.ema_half_life)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.autocast = use_bf16(config.precision, device)
        self.images = self.batches = self.bad_steps = self.bad_in_a_row = 0

    def step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step of each player on one batch; returns the numbers to log."""
        batch = batch.to(self.device)
        lr = self.optim.lr_at(self.images, self.config.images)
        values = {"lr": lr}
        for player, optimizer in zip(self.players, self.optimizers, strict=True):
            if self.images >= player.start:
                values |= self._turn(player, optimizer, batch, lr)
        self.images += len(batch)
        self.batches += 1
        self.ema.update(len(batch), self.images)
        return values

    def _turn(
        self, player: Moves, optimizer: torch.optim.Optimizer, batch: Batch, lr: float
    ) -> dict[str, float]:
        for group in optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            terms = player.loss(batch, self.generator)
        gradients = torch.autograd.grad(
            terms["loss"].float().mean(), list(player.parameters), allow_unused=True
        )
        for parameter, gradient in zip(player.parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = clip_gradients(list(player.parameters), self.optim.clip_norm)
        self._step_if_finite(optimizer, norm, terms)
        optimizer.zero_grad(set_to_none=True)
        prefix = "" if len(self.players) == 1 else f"{player.name}/"
        values = {f"{prefix}{k}": float(v.detach().float().mean()) for k, v in terms.items()}
        return {**values, f"{prefix}grad_norm": norm}

    def _step_if_finite(self, optimizer: torch.optim.Optimizer, norm: float, terms: Terms) -> None:
        if math.isfinite(norm):
            optimizer.step()
            self.bad_in_a_row = 0
            return
        self.bad_steps += 1
        self.bad_in_a_row += 1
        logger.warning("step skipped: gradients are not finite (%d so far)", self.bad_steps)
        if self.bad_in_a_row >= self.config.max_bad_steps:
            shown = {k: float(v.detach().float().mean()) for k, v in terms.items()}
            raise DivergedError(
                f"{self.bad_in_a_row} steps in a row had gradients that are not finite after "
                f"{self.images:,} images; last terms: {shown}. Lower optim.lr, lengthen "
                f"optim.warmup_images or set loop.precision=float32."
            )

    def start_from(self, folder: Path) -> None:
        """Take over weights, and nothing else, from another run or an exported part.

        Raises:
            CheckpointError: the folder has none, or they are another network's.
        """
        tensors = checkpoint.weights(folder)
        try:
            self.task.module.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(f"{folder} is no start for this recipe: {error}") from error
        self.ema.load_state_dict(tensors)

    def save(self, root: Path, meta: dict[str, Any]) -> Path:
        """Publish a checkpoint of everything that has a memory."""
        tensors = {f"model.{k}": v for k, v in self.task.module.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            tensors |= checkpoint.optimizer_tensors(optimizer, f"optim{i}")
        tensors["generator"] = self.generator.get_state()
        counters = {k: getattr(self, k) for k in ("images", "batches", "bad_steps")}
        return checkpoint.save(root, self.images, tensors, {**meta, **counters}, self.config.keep)

    def load(self, folder: Path) -> None:
        """Take over the whole of a checkpoint that `save` wrote."""
        tensors, meta = checkpoint.load(folder)
        self.task.module.load_state_dict(_under(tensors, "model."))
        self.ema.load_state_dict(_under(tensors, "ema."))
        for i, optimizer in enumerate(self.optimizers):
            checkpoint.restore_optimizer(optimizer, tensors, f"optim{i}")
        self.generator.set_state(tensors["generator"])
        for name in ("images", "batches", "bad_steps"):
            setattr(self, name, meta[name])


def resume(trainer: Trainer, root: Path) -> bool:
    """Load the newest intact checkpoint under `root`; damaged ones are named and passed by."""
    for folder in reversed(checkpoint.steps(root)):
        try:
            trainer.load(folder)
        except CheckpointError as error:
            logger.warning("%s; trying the one before", error)
            continue
        logger.info("resumed from %s", folder)
        return True
    return False


def train(
    trainer: Trainer,
    batches: Callable[[int], Iterator[Batch]],
    log: RunLog,
    *,
    meta: dict[str, Any],
    progress: bool = True,
) -> None:
    """Run to the end of `trainer.config.images`.

    Args:
        batches: from the number of batches already consumed to the rest of the endless stream.
        log: receives numbers and pictures.
        meta: what a checkpoint shall say of itself (the configuration).
    """
    from tqdm import tqdm

    config, root = trainer.config, log.folder / "checkpoints"
    bar = tqdm(total=config.images, initial=trainer.images, unit="img", disable=not progress)
    averages = _Averages()
    for batch in batches(trainer.batches):
        if trainer.images >= config.images:
            break
        before = trainer.images
        averages.add(trainer.step(batch))
        bar.update(len(batch))
        if _crossed(config.log_every, before, trainer.images):
            values = averages.take(trainer.images)
            bar.set_postfix(loss=f"{next(iter(values.values())):.4f}")
            log.scalars(values, trainer.images)
        if _crossed(config.sample_every, before, trainer.images):
            _show(trainer, batch, log)
        if _crossed(config.save_every, before, trainer.images):
            trainer.save(root, meta)
    bar.close()
    trainer.save(root, meta)


def _show(trainer: Trainer, batch: Batch, log: RunLog) -> None:
    """Samples of the averaged weights, from a generator of their own: training is undisturbed."""
    generator = torch.Generator(trainer.device).manual_seed(trainer.config.seed)
    with trainer.ema.applied() as module, torch.no_grad():
        module.eval()
        pictures = trainer.task.samples(batch.to(trainer.device), generator)
        module.train()
    if pictures is not None:
        log.pictures(grid(pictures), trainer.images)


def grid(pictures: Tensor, columns: int = 8, gap: int = 2) -> Tensor:
    """Pictures uint8 [n 3 h w] on one sheet, row by row: uint8 [3 H W]."""
    n, c, h, w = pictures.shape
    rows = math.ceil(n / columns)
    sheet = pictures.new_full((c, rows * (h + gap) - gap, min(n, columns) * (w + gap) - gap), 255)
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (h + gap), (i % columns) * (w + gap)
        sheet[:, y : y + h, x : x + w] = picture
    return sheet


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether to autocast to bf16: as told, or ("auto") where the device computes in it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    return device.type == "cpu" and bool(supported())


class _Averages:
    """Means of logged values since the last line."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.images, self.time = 0, time.monotonic()

    def add(self, values: dict[str, float]) -> None:
        for k, v in values.items():
            self.sums[k] = self.sums.get(k, 0.0) + v
            self.counts[k] = self.counts.get(k, 0) + 1

    def take(self, images: int) -> dict[str, float]:
        values = {k: self.sums[k] / self.counts[k] for k in sorted(self.sums, key=_loss_first)}
        now = time.monotonic()
        if self.images:
            values["images_per_second"] = (images - self.images) / (now - self.time)
        self.sums, self.counts, self.images, self.time = {}, {}, images, now
        return values


def _loss_first(name: str) -> tuple[bool, str]:
    return (name.rpartition("/")[2] != "loss", name)


def _crossed(interval: int, before: int, after: int) -> bool:
    return before // interval != after // interval


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

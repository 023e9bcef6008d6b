"""One training loop for everything: optimiser, weight average, checkpoints, logs."""

from ldm.training.loop import LoopConfig, Trainer, resume, train
from ldm.training.optim import OptimConfig
from ldm.training.task import Player, Task, Terms

__all__ = ["LoopConfig", "OptimConfig", "Player", "Task", "Terms", "Trainer", "resume", "train"]

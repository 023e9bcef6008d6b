"""The trainable of the binomial chain: a network that believes something about bits.

b batch; d bits
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ldm.conditioning.cond import Cond
from ldm.data.batch import Batch
from ldm.data.stream import Stream
from ldm.diffusion.binomial import BinomialChain, draw_bits, step_nats
from ldm.errors import DataError
from ldm.networks.mlp import MlpConfig
from ldm.training import Terms
from ldm.training.learner import Learner, LearnerTask


@dataclass(frozen=True, kw_only=True)
class BinaryTraining:
    """A network on bits [b d] of the batch's points.

    network: from bits, as -1 and 1, and the time to the logits of x0; chain: the noise.
    """

    network: MlpConfig
    chain: BinomialChain = field(default_factory=BinomialChain)

    def build(self, stream: Stream) -> LearnerTask[Bits]:
        """Freshly drawn weights."""
        return LearnerTask(Bits(self.chain, self.network.build()))


class Bits(Learner):
    """One step of the chain, drawn evenly, stands for all of them."""

    def __init__(self, chain: BinomialChain, network: nn.Module) -> None:
        super().__init__()
        self.chain, self.network = chain, network

    def believe(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Logits of x0 [b d] from x_t [b d] at step t [b]."""
        time = (1000 * t / self.chain.num_steps).float()
        logits: Tensor = self.network(2 * x_t - 1, time, Cond())
        return logits

    def loss(self, batch: Batch, generator: torch.Generator) -> Terms:
        """T times the nats of one step, in bits a sequence: its mean over t is the bound."""
        if batch.point is None:
            raise DataError("the batch has no point; bits are kept there, as 0.0 and 1.0")
        x0, steps = batch.point, self.chain.num_steps
        t = torch.randint(1, steps + 1, (len(x0),), generator=generator, device=generator.device)
        x_t = draw_bits(self.chain.chance(x0, t), generator)
        nats = step_nats(self.chain, self.believe, x0, x_t, t)
        return {"loss": steps * nats / math.log(2)}

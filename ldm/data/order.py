"""The order of samples: a pure function of (seed, epoch), so that any position can be computed.

A shard order is drawn for each epoch and dealt out to the ranks; runs of `group` shards form a
group, whose samples are permuted together. A stream's position n is then known without reading
anything: which epoch, which group, which sample of which shard.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeVar

import numpy as np

_T = TypeVar("_T")


@dataclass(frozen=True)
class Group:
    """Some shards of an epoch; `slots[i]` is (shard, index in it) of the group's i-th sample.

    `first` is the stream position of its first sample.
    """

    epoch: int
    first: int
    slots: tuple[tuple[int, int], ...] = field(repr=False)

    @property
    def end(self) -> int:
        return self.first + len(self.slots)


class Order:
    """The endless order in which one rank meets the samples of shards with `counts` samples."""

    def __init__(
        self,
        counts: Sequence[int],
        *,
        seed: int,
        group: int,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.counts = tuple(counts)
        self.seed, self.group, self.shuffle = seed, group, shuffle
        self.rank, self.world_size = rank, world_size
        self._starts = [0]

    def shards(self, epoch: int) -> list[int]:
        """This rank's shards in the order of `epoch`."""
        every = list(range(len(self.counts)))
        if self.shuffle:
            every = _permuted(every, self.seed, epoch)
        return every[self.rank :: self.world_size]

    def start(self, epoch: int) -> int:
        """The position at which `epoch` starts for this rank."""
        while len(self._starts) <= epoch:
            last = len(self._starts) - 1
            size = sum(self.counts[s] for s in self.shards(last))
            self._starts.append(self._starts[-1] + size)
        return self._starts[epoch]

    def epoch_of(self, position: int) -> int:
        """The epoch that the sample at `position` belongs to."""
        while self._starts[-1] <= position:
            self.start(len(self._starts))
        return bisect_right(self._starts, position) - 1

    def group_of(self, position: int) -> Group:
        """The group that holds the sample at `position`."""
        epoch = self.epoch_of(position)
        offset = position - self.start(epoch)
        ends = list(accumulate(sum(self.counts[s] for s in g) for g in self._groups(epoch)))
        return self._build_group(epoch, bisect_right(ends, offset))

    def _groups(self, epoch: int) -> list[list[int]]:
        shards = self.shards(epoch)
        return [shards[i : i + self.group] for i in range(0, len(shards), self.group)]

    def _build_group(self, epoch: int, number: int) -> Group:
        groups = self._groups(epoch)
        before = sum(self.counts[s] for g in groups[:number] for s in g)
        slots = [(s, i) for s in groups[number] for i in range(self.counts[s])]
        if self.shuffle:
            slots = _permuted(slots, self.seed, epoch, number + 1)
        return Group(epoch, self.start(epoch) + before, tuple(slots))


def _permuted(items: list[_T], *key: int) -> list[_T]:
    # Raw words of a bit generator: numpy keeps those the same for ever, unlike its shuffles.
    words = np.random.PCG64(list(key)).random_raw(len(items))
    return [items[i] for i in np.argsort(words, kind="stable")]

"""Shards -> an endless, deterministic stream of batches that resumes by one integer.

Batch n is a function of (shards, config, rank, n) alone: not of the number of workers, nor of
where the stream was started. A sample that cannot be used is counted, and the next usable one of
its group takes its place, so that batches keep their size.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ldm.data.batch import Batch
from ldm.data.decode import collate
from ldm.data.groups import HeldGroup, ShardConfig, ShardSet
from ldm.data.order import Order
from ldm.data.reader import read_manifest
from ldm.data.report import Event, Report
from ldm.errors import DataError

__all__ = ["ShardConfig", "ShardStream"]

logger = logging.getLogger(__name__)
_Sample = tuple[str, dict[str, Any]]
_Packet = tuple[Batch | None, list[Event]]


class _Packets(IterableDataset, ABC):
    """Packets made in a worker. Its last one may be an error, raised where it is received.

    DataLoader would wrap an error into a traceback and lose the message that a person needs.
    """

    def __iter__(self) -> Iterator[_Packet | DataError]:
        info = get_worker_info()
        self.worker, self.stride = (info.id, info.num_workers) if info else (0, 1)
        try:
            yield from self.packets()
        except DataError as error:
            yield error

    @abstractmethod
    def packets(self) -> Iterator[_Packet]:
        """This worker's share: every `stride`-th batch."""


class _Endless(_Packets):
    """What one worker of the endless stream does: every W-th batch from `start` on."""

    def __init__(self, stream: ShardStream, start: int) -> None:
        self.stream, self.start = stream, start
        self.size = stream.config.batch_size
        self._held: list[HeldGroup] = []

    def packets(self) -> Iterator[_Packet]:
        for number in count(self.start + self.worker, self.stride):
            yield self._batch(number)

    def _batch(self, number: int) -> _Packet:
        events: list[Event] = []
        positions = range(number * self.size, (number + 1) * self.size)
        picked = [self._sample(p, events) for p in positions]
        return _collated(picked), events

    def _sample(self, position: int, events: list[Event]) -> _Sample:
        """The sample at `position`, or the next usable one of its group."""
        held = self._holding(position, events)
        group, seed = held.group, self.stream.config.seed
        size = group.end - group.first
        for step in range(size):
            place = group.first + (position - group.first + step) % size
            if step == 1:
                held.read_all()
            try:
                sample = held.sample(place)
                return sample.key, sample.drawn(seed, group.epoch)
            except DataError as error:
                if step == 0:
                    events.append(held.skip(place, error))
        raise DataError(f"no usable sample in {held.names()}; the first skipped: {events[0]}")

    def _holding(self, position: int, events: list[Event]) -> HeldGroup:
        for held in self._held:
            if held.group.first <= position < held.group.end:
                return held
        group = self.stream.order.group_of(position)
        mine = [p for p in range(group.first, group.end) if self._is_mine(p // self.size)]
        held = HeldGroup(self.stream.shards, group, mine)
        events.extend(held.events)
        # Nothing before the batch in hand is needed again.
        self._held = [*(h for h in self._held if h.group.end > position - self.size), held]
        return held

    def _is_mine(self, number: int) -> bool:
        return (number - self.start) % self.stride == self.worker


class _Pass(_Packets):
    """What one worker of the finite pass does: every W-th batch of the fixed order."""

    def __init__(self, stream: ShardStream) -> None:
        self.stream = stream

    def packets(self) -> Iterator[_Packet]:
        total = self.stream.plain_order.start(1)
        size = self.stream.config.batch_size
        held: HeldGroup | None = None
        for number in range(self.worker, -(-total // size), self.stride):
            events: list[Event] = []
            batch: list[_Sample] = []
            for p in range(number * size, min((number + 1) * size, total)):
                if held is None or p >= held.group.end:
                    held = self._next(p)
                    events.extend(held.events)
                try:
                    sample = held.sample(p)
                    batch.append((sample.key, sample.drawn(0, None)))
                except DataError as error:
                    events.append(held.skip(p, error))
            yield _collated(batch) if batch else None, events

    def _next(self, position: int) -> HeldGroup:
        group, size = self.stream.plain_order.group_of(position), self.stream.config.batch_size
        places = range(group.first, group.end)
        mine = [p for p in places if p // size % self.stride == self.worker]
        return HeldGroup(self.stream.shards, group, mine)


def _collated(samples: list[_Sample]) -> Batch:
    return collate([key for key, _ in samples], [values for _, values in samples])


class ShardStream:
    """A stream of batches from shards.

    >>> stream = ShardStream(ShardConfig(sources=("data/train",), batch_size=64))
    >>> for batch in stream.batches(start_batch=0): ...   # endless
    >>> for batch in stream.epoch(): ...                  # once through, in a fixed order
    """

    def __init__(self, config: ShardConfig, *, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise DataError(f"rank {rank} of {world_size}; it must be 0 to {world_size - 1}")
        self.config = config
        self.shards = ShardSet(config)
        counts = self.shards.counts
        if len(counts) < world_size or 0 in counts:
            raise DataError(
                f"{len(counts)} shards ({counts.count(0)} empty) for {world_size} ranks; each rank "
                "needs a shard that is not empty: write smaller shards (--per-shard)"
            )

        def order(shuffle: bool) -> Order:
            return Order(
                counts,
                seed=config.seed,
                group=config.group,
                shuffle=shuffle,
                rank=rank,
                world_size=world_size,
            )

        self.order, self.plain_order = order(config.shuffle), order(False)
        self._reports: dict[int, Report] = {}

    @property
    def num_samples(self) -> int:
        """Samples over all ranks, by the manifests."""
        return sum(self.order.counts)

    def batches(self, *, start_batch: int = 0) -> Iterator[Batch]:
        """Batches `start_batch`, `start_batch` + 1, ... for ever; each epoch in another order."""
        if start_batch < 0:
            raise DataError(f"start_batch is {start_batch}; it must be 0 or more")
        size = self.config.batch_size
        self._reports = {}
        for number, packet in enumerate(self._load(_Endless(self, start_batch)), start_batch):
            first, end = number * size, (number + 1) * size
            self._account(first, end, packet[1])
            assert packet[0] is not None
            yield packet[0]

    def epoch(self) -> Iterator[Batch]:
        """Each sample of this rank once, in the order of the shards, with its first caption.

        The last batch may be smaller, and so is one that lost samples.
        """
        self._reports = {0: (report := Report(0, self.plain_order.start(1)))}
        for batch, events in self._load(_Pass(self)):
            for event in events:
                report.add(event)
            self._check(report, report.samples)
            if batch is not None:
                yield batch
        logger.info("%s", report.summary())

    def encodings(self) -> list[Mapping[str, str]]:
        """What encoded each source, by part; empty mappings for shards of pictures."""
        return [read_manifest(s).extra.get("encoding", {}) for s in self.config.sources]

    def report(self, epoch: int | None = None) -> Report:
        """What was met and left out in `epoch`; None means the newest epoch."""
        if epoch is None:
            epoch = max(self._reports, default=0)
        return self._reports.get(epoch, Report(epoch))

    def _load(self, dataset: IterableDataset) -> Iterator[_Packet]:
        # Its own generator: DataLoader would otherwise draw from, and so change, the global one.
        loader = DataLoader(
            dataset,
            batch_size=None,
            num_workers=self.config.workers,
            generator=torch.Generator(),
        )
        for packet in loader:
            if isinstance(packet, DataError):
                raise packet
            yield packet

    def _account(self, first: int, end: int, events: list[Event]) -> None:
        for epoch in range(self.order.epoch_of(first), self.order.epoch_of(end - 1) + 1):
            low, high = self.order.start(epoch), self.order.start(epoch + 1)
            report = self._reports.setdefault(epoch, Report(epoch))
            report.samples += min(end, high) - max(first, low)
        for event in events:
            self._reports.setdefault(event.epoch, Report(event.epoch)).add(event)
            size = self.order.start(event.epoch + 1) - self.order.start(event.epoch)
            self._check(self._reports[event.epoch], size)
        for epoch in [e for e in self._reports if self.order.start(e + 1) <= end]:
            if self.order.start(epoch + 1) > first:
                logger.info("%s", self._reports[epoch].summary())
            elif self.order.start(epoch + 2) <= first:
                del self._reports[epoch]

    def _check(self, report: Report, size: int) -> None:
        if report.num_skipped > self.config.max_bad_fraction * size:
            raise DataError(
                f"more than max_bad_fraction={self.config.max_bad_fraction} of {size} samples "
                f"cannot be used: {report.summary()}"
            )

"""Shards -> an endless, deterministic stream of batches that resumes by one integer.

Batch n is a function of (shards, config, rank, n) alone: not of the number of workers, nor of
where the stream was started. A sample that cannot be used is counted, and the next usable one of
its group takes its place, so that batches keep their size.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ldm.data import images
from ldm.data.batch import Batch
from ldm.data.decode import Decoder, FieldName, collate
from ldm.data.images import Crop
from ldm.data.order import Group, Order
from ldm.data.reader import Raw, check_source, read_manifest, read_shard
from ldm.data.report import Damage, Report, Skip
from ldm.errors import DataError

logger = logging.getLogger(__name__)
Event = Skip | Damage
_Packet = tuple[Batch | None, list[Event]]


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """Which shards to stream and how.

    sources:          folders (paths or http(s) addresses) that hold shards and manifest.json
    size:             side of the square that pictures are resized and cut to; None keeps them
    fields:           what a batch holds; a sample that lacks one of them is skipped
    require_caption:  False gives "" to a sample without a caption instead of skipping it
    group:            shards whose samples are shuffled together; their bytes are held in memory
    workers:          processes that read and decode; 0 does it in this one
    max_bad_fraction: an epoch with more skipped samples than this is an error
    on_damage:        a shard that its manifest contradicts: "error", or "warn" and count its loss
    allow_pipe:       allow sources "pipe:COMMAND {name}", which run a command
    cache:            keep the raw files of all samples in memory (small data sets)
    """

    sources: tuple[str, ...]
    batch_size: int = 64
    size: int | None = None
    fields: tuple[FieldName, ...] = ("image", "caption")
    require_caption: bool = True
    shuffle: bool = True
    group: int = 8
    seed: int = 0
    workers: int = 0
    max_bad_fraction: float = 0.01
    on_damage: Literal["error", "warn"] = "error"
    allow_pipe: bool = False
    pixel_limit: int = images.PIXEL_LIMIT
    cache: bool = False

    def __post_init__(self) -> None:
        if not self.sources or isinstance(self.sources, str):
            raise DataError(f"sources is {self.sources!r}; give a tuple of one or more folders")
        if not self.fields:
            raise DataError("fields is empty; name at least one part of a batch")
        for name, low in (("batch_size", 1), ("group", 1), ("workers", 0)):
            if getattr(self, name) < low:
                raise DataError(f"{name} is {getattr(self, name)}; it must be {low} or more")
        for source in self.sources:
            check_source(source, allow_pipe=self.allow_pipe)


class _Shards:
    """The shards of all sources as one list, with their counts; reads and checks them."""

    def __init__(self, config: ShardConfig) -> None:
        self.config = config
        self.entries = [(s, e) for s in config.sources for e in read_manifest(s).shards]
        self._cached: dict[int, dict[int, Raw]] = {}

    def name(self, shard: int) -> str:
        source, entry = self.entries[shard]
        return str(Path(source) / entry.name) if "://" not in source else f"{source}/{entry.name}"

    def read(self, shard: int, wanted: set[int] | None) -> tuple[dict[int, Raw], str | None]:
        """Raw samples by place, and what is wrong with the shard, if anything."""
        if shard in self._cached:
            return self._cached[shard], None
        source, entry = self.entries[shard]
        content = read_shard(source, entry.name, None if self.config.cache else wanted)
        damage = None
        if content.fault or content.found != entry.samples:
            fault = f" ({content.fault})" if content.fault else ""
            damage = (
                f"shard {self.name(shard)} holds {content.found} samples, its manifest says "
                f"{entry.samples}{fault}"
            )
            if self.config.on_damage == "error":
                raise DataError(f"{damage}; fetch it again, or set on_damage='warn' to go on")
        elif self.config.cache:
            self._cached[shard] = content.samples
        return content.samples, damage


class _Held:
    """The raw samples of one group that a worker holds."""

    def __init__(self, shards: _Shards, group: Group, wanted: list[int]) -> None:
        self.shards, self.group = shards, group
        self.events: list[Event] = []
        self._raw: dict[tuple[int, int], Raw] = {}
        self._whole = False
        self._read([group.slots[w - group.first] for w in wanted])

    def raw(self, place: int) -> Raw | None:
        """The sample at a stream position, or None if its shard lost it."""
        return self._raw.get(self.group.slots[place - self.group.first])

    def read_all(self) -> None:
        """Hold every sample of the group: a replacement may be any of them."""
        if not self._whole:
            self._whole = True
            self._read(list(self.group.slots))

    def _read(self, slots: list[tuple[int, int]]) -> None:
        wanted: dict[int, set[int]] = {}
        for shard, index in slots:
            wanted.setdefault(shard, set()).add(index)
        for shard, indices in wanted.items():
            samples, damage = self.shards.read(shard, indices)
            self._raw.update(((shard, i), samples[i]) for i in indices if i in samples)
            if damage:
                self.events.append(Damage(self.group.epoch, self.shards.name(shard), damage))


class _Worker(IterableDataset):  # type: ignore[type-arg]
    """What one worker of the endless stream does: every W-th batch from `start` on."""

    def __init__(self, stream: ShardStream, start: int) -> None:
        self.stream, self.start = stream, start
        self._held: list[_Held] = []

    def __iter__(self) -> Iterator[_Packet]:
        info = get_worker_info()
        self._worker, self._stride = (info.id, info.num_workers) if info else (0, 1)
        batch = self.start + self._worker
        while True:
            yield self._batch(batch)
            batch += self._stride

    def _batch(self, number: int) -> _Packet:
        size = self.stream.config.batch_size
        events: list[Event] = []
        picked = [self._sample(p, events) for p in range(number * size, (number + 1) * size)]
        return collate([k for k, _ in picked], [s for _, s in picked]), events

    def _sample(self, position: int, events: list[Event]) -> tuple[str, dict[str, Any]]:
        held = self._holding(position, events)
        group, decoder = held.group, self.stream.decoder
        size = group.end - group.first
        for step in range(size):
            place = group.first + (position - group.first + step) % size
            if step == 1:
                held.read_all()
            raw = held.raw(place)
            try:
                if raw is None:
                    raise DataError("lost in a damaged shard")
                return raw.key, decoder(raw, group.epoch)
            except DataError as error:
                if step == 0:
                    events.append(self.stream.skip(group, place, raw, error))
        raise DataError(
            f"no usable sample in shards {self.stream.names(group)}: the last one says "
            f"{events[-1]!r}"
        )

    def _holding(self, position: int, events: list[Event]) -> _Held:
        for held in self._held:
            if held.group.first <= position < held.group.end:
                return held
        group = self.stream.order.group_of(position)
        size = self.stream.config.batch_size
        mine = [
            p
            for p in range(group.first, group.end)
            if (p // size - self.start) % self._stride == self._worker
        ]
        held = _Held(self.stream.shards, group, mine)
        events.extend(held.events)
        # A batch lies in two groups at most unless groups are tiny: drop what is behind.
        self._held = [*(h for h in self._held if h.group.end > position - size), held]
        return held


class _Pass(IterableDataset):  # type: ignore[type-arg]
    """What one worker of the finite pass does: every W-th batch of the fixed order."""

    def __init__(self, stream: ShardStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[_Packet]:
        info = get_worker_info()
        worker, stride = (info.id, info.num_workers) if info else (0, 1)
        order, size = self.stream.plain_order, self.stream.config.batch_size
        total, position = order.start(1), 0
        batch: list[tuple[str, dict[str, Any]]] = []
        events: list[Event] = []
        while position < total:
            group = order.group_of(position)
            places = range(group.first, group.end)
            mine = [p for p in places if p // size % stride == worker]
            held = _Held(self.stream.shards, group, mine)
            events.extend(held.events)
            for p in mine:
                self._add(batch, held, p, events)
                if (p + 1) % size == 0 or p + 1 == total:
                    yield _packed(batch), events
                    batch, events = [], []
            position = group.end

    def _add(
        self, batch: list[tuple[str, dict[str, Any]]], held: _Held, p: int, events: list[Event]
    ) -> None:
        raw = held.raw(p)
        try:
            if raw is None:
                raise DataError("lost in a damaged shard")
            batch.append((raw.key, self.stream.decoder(raw, None)))
        except DataError as error:
            events.append(self.stream.skip(held.group, p, raw, error))


def _packed(batch: list[tuple[str, dict[str, Any]]]) -> Batch | None:
    return collate([k for k, _ in batch], [s for _, s in batch]) if batch else None


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
        self.shards = _Shards(config)
        counts = [e.samples for _, e in self.shards.entries]
        if len(counts) < world_size or 0 in counts:
            raise DataError(
                f"{len(counts)} shards ({counts.count(0)} empty) for {world_size} ranks; each rank "
                "needs a shard that is not empty: write smaller shards (--per-shard)"
            )
        dealt = {"group": config.group, "rank": rank, "world_size": world_size}
        self.order = Order(counts, seed=config.seed, shuffle=config.shuffle, **dealt)
        self.plain_order = Order(counts, seed=config.seed, shuffle=False, **dealt)
        crop = Crop(size=config.size) if config.size else None
        self.decoder = Decoder(
            config.fields, crop, config.pixel_limit, config.require_caption, config.seed
        )
        self._reports: dict[int, Report] = {}

    @property
    def num_samples(self) -> int:
        """Samples over all ranks, by the manifests."""
        return sum(self.order.counts)

    def batches(self, *, start_batch: int = 0) -> Iterator[Batch]:
        """Batches `start_batch`, `start_batch` + 1, ... for ever; each epoch in another order."""
        size = self.config.batch_size
        self._reports = {}
        for number, packet in enumerate(self._load(_Worker(self, start_batch)), start_batch):
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

    def report(self, epoch: int | None = None) -> Report:
        """What was met and left out in `epoch`; None means the newest epoch."""
        if epoch is None:
            epoch = max(self._reports, default=0)
        return self._reports.get(epoch, Report(epoch))

    def skip(self, group: Group, place: int, raw: Raw | None, error: DataError) -> Skip:
        """The record of a sample that cannot be used."""
        shard, index = group.slots[place - group.first]
        # The numbers in a reason differ between samples: the part before them is counted.
        reason = str(error).partition(":")[0]
        return Skip(group.epoch, self.shards.name(shard), raw.key if raw else f"#{index}", reason)

    def names(self, group: Group) -> str:
        """The shards of a group, for an error."""
        return ", ".join(self.shards.name(s) for s in sorted({s for s, _ in group.slots}))

    def _load(self, dataset: IterableDataset) -> Iterator[_Packet]:  # type: ignore[type-arg]
        if self.config.cache:
            # Before workers start, so that they share what is read here.
            for shard in set(self.order.shards(0)) if self.order.world_size == 1 else ():
                self.shards.read(shard, None)
        yield from DataLoader(dataset, batch_size=None, num_workers=self.config.workers)

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

"""The shards of a stream and the samples of a group of them, as a worker holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ldm.data import images
from ldm.data.decode import Decoded, Decoder, FieldName
from ldm.data.images import Crop
from ldm.data.manifest import verify
from ldm.data.order import Group
from ldm.data.reader import (
    Raw,
    check_source,
    full_name,
    is_folder,
    read_manifest,
    read_shard,
)
from ldm.data.report import Damage, Event, Skip
from ldm.errors import DataError

if TYPE_CHECKING:
    from ldm.data.shards import ShardStream

_Slot = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """Which shards to stream and how.

    sources:          folders (paths or http(s) addresses) that hold shards and manifest.json; a
                      folder named twice is met twice in an epoch (see `ldm.data.divide`)
    size:             side of the square that pictures are resized and cut to; None keeps them
    fields:           what a batch holds; a sample that lacks one of them is skipped
    require_caption:  False gives "" to a sample without a caption instead of skipping it
    group:            shards whose samples are shuffled together; their bytes are held in memory
    workers:          processes that read and decode; 0 does it in this one. Each of them reads
                      every shard and keeps its own share, so over a network fewer are better
    max_bad_fraction: an epoch with more skipped samples than this is an error
    on_damage:        a shard that its manifest contradicts: "error", or "warn" and count its loss
    allow_pipe:       allow sources "pipe:COMMAND {name}", which run a command
    cache:            keep every decoded sample in memory (small data sets; workers=0)
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
        if self.cache and self.workers:
            raise DataError(
                f"cache=True keeps samples in this process, workers={self.workers} decodes in "
                "others; set workers=0 or cache=False"
            )
        for source in self.sources:
            check_source(source, allow_pipe=self.allow_pipe)

    def open(self) -> ShardStream:
        """The stream of these shards."""
        # Here, since the stream is made of this module's parts.
        from ldm.data.shards import ShardStream

        return ShardStream(self)


class ShardSet:
    """The shards of all sources as one list; reads them and compares them with the manifests."""

    def __init__(self, config: ShardConfig) -> None:
        self.config = config
        self.entries = [(s, e) for s in config.sources for e in read_manifest(s).shards]
        if config.on_damage == "error":
            for source in filter(is_folder, config.sources):
                verify(Path(source), hashes=False)
        self.counts = [e.samples for _, e in self.entries]
        crop = None if config.size is None else Crop(size=config.size)
        self._decoder = Decoder(config.fields, crop, config.pixel_limit, config.require_caption)
        self._cache: dict[_Slot, Decoded] = {}

    def name(self, shard: int) -> str:
        """Where a shard is, for messages."""
        source, entry = self.entries[shard]
        return full_name(source, entry.name)

    def cached(self, slot: _Slot) -> bool:
        """Whether a sample need not be read again."""
        return slot in self._cache

    def read(self, shard: int, wanted: set[int]) -> tuple[dict[int, Raw], str | None]:
        """Raw samples by place, and what is wrong with the shard, if anything."""
        source, entry = self.entries[shard]
        content = read_shard(source, entry.name, wanted)
        if not content.fault and content.found == entry.samples:
            return content.samples, None
        fault = f" ({content.fault})" if content.fault else ""
        damage = (
            f"shard {self.name(shard)} holds {content.found} samples, its manifest says "
            f"{entry.samples}{fault}"
        )
        if self.config.on_damage == "error":
            raise DataError(f"{damage}; fetch it again, or set on_damage='warn' to go on")
        return content.samples, damage

    def decode(self, slot: _Slot, raw: Raw | None) -> Decoded:
        """A sample, from memory if it is kept there."""
        if slot in self._cache:
            return self._cache[slot]
        if raw is None:
            raise DataError("lost in a damaged shard")
        sample = self._decoder(raw)
        if self.config.cache:
            self._cache[slot] = sample
        return sample


class HeldGroup:
    """A group with the raw bytes of those of its samples that are `wanted` (stream positions)."""

    def __init__(self, shards: ShardSet, group: Group, wanted: list[int]) -> None:
        self.shards, self.group = shards, group
        self.events: list[Event] = []
        self._raw: dict[_Slot, Raw] = {}
        self._whole = False
        self._read([self._slot(p) for p in wanted])

    def sample(self, place: int) -> Decoded:
        """The sample at a stream position; DataError tells why it cannot be used."""
        slot = self._slot(place)
        return self.shards.decode(slot, self._raw.get(slot))

    def read_all(self) -> None:
        """Hold every sample of the group: a replacement may be any of them."""
        if not self._whole:
            self._whole = True
            self._read(list(self.group.slots))

    def skip(self, place: int, error: DataError) -> Skip:
        """The record of a sample that cannot be used."""
        shard, index = slot = self._slot(place)
        # What follows the colon differs from sample to sample; what precedes it is counted.
        reason = str(error).partition(":")[0]
        key = self._raw[slot].key if slot in self._raw else f"number {index}"
        return Skip(self.group.epoch, self.shards.name(shard), key, reason)

    def names(self) -> str:
        """The shards of the group, for an error."""
        return ", ".join(self.shards.name(s) for s in sorted({s for s, _ in self.group.slots}))

    def _slot(self, place: int) -> _Slot:
        return self.group.slots[place - self.group.first]

    def _read(self, slots: list[_Slot]) -> None:
        wanted: dict[int, set[int]] = {}
        for shard, index in slots:
            if not self.shards.cached((shard, index)):
                wanted.setdefault(shard, set()).add(index)
        for shard, places in wanted.items():
            samples, damage = self.shards.read(shard, places)
            self._raw.update(((shard, i), raw) for i, raw in samples.items())
            if damage:
                self.events.append(Damage(self.group.epoch, self.shards.name(shard), damage))

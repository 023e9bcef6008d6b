"""What a stream left out, counted by reason."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

logger = logging.getLogger(__name__)


class Skip(NamedTuple):
    """A sample that was left out."""

    epoch: int
    shard: str
    key: str
    reason: str


class Damage(NamedTuple):
    """A shard that does not hold what its manifest says."""

    epoch: int
    shard: str
    text: str


Event = Skip | Damage


@dataclass
class Report:
    """One epoch: samples met (skipped ones included), skips by reason, damaged shards."""

    epoch: int
    samples: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def num_skipped(self) -> int:
        return sum(self.skipped.values())

    def add(self, event: Event) -> None:
        """Count a skipped sample, or note a shard (several workers may tell of one)."""
        if isinstance(event, Damage):
            if event.shard not in self.damaged:
                logger.warning("%s", event.text)
            self.damaged[event.shard] = event.text
            return
        self.skipped[event.reason] += 1
        self.examples.setdefault(event.reason, f"{event.shard}: {event.key}")

    def summary(self) -> str:
        """One line for the log."""
        text = f"epoch {self.epoch}: {self.samples} samples, {self.num_skipped} skipped"
        reasons = (
            f"{count} x {reason} (first: {self.examples[reason]})"
            for reason, count in self.skipped.most_common()
        )
        parts = [text, *reasons]
        if self.damaged:
            parts.append(f"damaged shards: {', '.join(sorted(self.damaged))}")
        return "; ".join(parts)

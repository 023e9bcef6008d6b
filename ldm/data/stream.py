"""What training asks of any data: a stream of batches that resumes by one integer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from ldm.data.batch import Batch


class Stream(Protocol):
    """Batches of one data set."""

    def batches(self, *, start_batch: int = 0) -> Iterator[Batch]:
        """The endless training stream from batch `start_batch` on; the same at each call."""

    def epoch(self) -> Iterator[Batch]:
        """Every sample once, in a fixed order."""

    def encodings(self) -> list[Mapping[str, str]]:
        """Fingerprints of what encoded the data, by part; empty for data as they are."""


class Source(Protocol):
    """Settings from which a stream is opened; a frozen dataclass, one kind for each data set."""

    def open(self) -> Stream: ...


class InMemory(Source, Protocol):
    """A source that is small enough to be held as one batch."""

    def whole(self) -> Batch:
        """Every sample, in a fixed order."""

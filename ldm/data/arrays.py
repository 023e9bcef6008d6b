"""Data sets that fit into memory: one batch of everything, streamed in seeded order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import torch
from torch import Tensor

from ldm.data.batch import Batch, TextFeatures
from ldm.errors import DataError


class ArrayStream:
    """Batches of a whole data set: batch n is a function of (data, seed, n) alone.

    Args:
        whole: every sample.
        batch_size: of each batch, in the training stream; an epoch's last one may be smaller.
        seed: of the order, which differs from epoch to epoch.
    """

    def __init__(self, whole: Batch, *, batch_size: int, seed: int = 0) -> None:
        if not len(whole):
            raise DataError("the data set has no sample; give it one or more")
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}; it must be 1 or more")
        self.whole, self.batch_size, self.seed = whole, batch_size, seed

    def batches(self, *, start_batch: int = 0) -> Iterator[Batch]:
        """The endless stream; an epoch's order follows the last one's without a gap."""
        n, order, known = len(self.whole), torch.empty(0, dtype=torch.int64), -1
        for number in count(start_batch):
            positions = torch.arange(number * self.batch_size, (number + 1) * self.batch_size)
            rows = []
            for epoch in (positions // n).unique().tolist():
                if epoch != known:
                    order, known = self._order(epoch), epoch
                rows.append(order[positions[positions // n == epoch] % n])
            yield rows_of(self.whole, torch.cat(rows))

    def epoch(self) -> Iterator[Batch]:
        """Every sample once, in the order given."""
        for rows in torch.arange(len(self.whole)).split(self.batch_size):
            yield rows_of(self.whole, rows)

    def encodings(self) -> list[Mapping[str, str]]:
        """Nothing encoded these."""
        return []

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.whole), generator=generator)


def rows_of(batch: Batch, rows: Tensor) -> Batch:
    """The samples of a batch at `rows` [m] int64, in that order."""
    parts: dict[str, Any] = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor | TextFeatures):
            parts[field.name] = value[rows]
        elif isinstance(value, tuple):
            parts[field.name] = tuple(value[i] for i in rows.tolist())
        elif value is not None:
            raise DataError(f"{field.name} cannot be kept in memory; leave it out of the batch")
    return batch.replace(**parts)

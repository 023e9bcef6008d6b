"""Features of captions that come again and again in training, computed once each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ldm.data.batch import TextFeatures


class CaptionCache:
    """Captions to features, as a CLIP's `text`, with the features of up to `limit` captions kept.

    The tokens come in bfloat16, whether they were kept or just computed. With a limit of 0 the
    features pass as they are and nothing is kept.
    """

    def __init__(self, text: Callable[[Sequence[str]], TextFeatures], limit: int) -> None:
        self._text, self._limit = text, limit
        self._row: dict[str, int] = {}
        self._kept: TextFeatures | None = None

    def __call__(self, captions: Sequence[str]) -> TextFeatures:
        if not self._limit:
            return self._text(captions)
        new = [c for c in dict.fromkeys(captions) if c not in self._row]
        if len(self._row) + len(new) > self._limit:
            return _halved(self._text(captions))
        if new:
            self._keep(new)
        assert self._kept is not None
        rows = torch.tensor([self._row[c] for c in captions], device=self._kept.mask.device)
        return self._kept[rows]

    def _keep(self, captions: Sequence[str]) -> None:
        features, used = _halved(self._text(captions)), len(self._row)
        self._row.update((caption, used + i) for i, caption in enumerate(captions))
        old = self._kept
        self._kept = TextFeatures(
            _put(None if old is None else old.tokens, features.tokens, used),
            _put(None if old is None else old.pooled, features.pooled, used),
            _put(None if old is None else old.mask, features.mask, used),
        )


def _halved(features: TextFeatures) -> TextFeatures:
    return TextFeatures(features.tokens.bfloat16(), features.pooled, features.mask)


def _put(store: Tensor | None, rows: Tensor, used: int) -> Tensor:
    """The store with `rows` after its first `used`; it doubles when it is full."""
    needed = used + len(rows)
    if store is None or needed > len(store):
        larger = rows.new_empty(max(2 * needed, 1024), *rows.shape[1:])
        if store is not None:
            larger[:used] = store[:used]
        store = larger
    store[used:needed] = rows
    return store

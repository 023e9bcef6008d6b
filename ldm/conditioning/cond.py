"""What a network is told besides x and the time.

b batch; e width of the vector; n tokens; d width of a token; c h w channels and grid
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cond:
    """The conditioning of a batch; a part that the network does not take is None.

    vector: `[b e]` added to the time embedding
    tokens: `[b n d]` cross-attended
    mask:   `[b n]` bool, True where a token is to be attended; None: all are
    concat: `[b c h w]` joined to the input's channels
    """

    vector: Tensor | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    concat: Tensor | None = None

    def __post_init__(self) -> None:
        ranks = {"vector": 2, "tokens": 3, "mask": 2, "concat": 4}
        for name, value in self.parts().items():
            if value.ndim != ranks[name]:
                raise ValueError(
                    f"Cond.{name} has {ranks[name]} dimensions, not shape {list(value.shape)}"
                )
        sizes = {name: len(value) for name, value in self.parts().items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the parts of a Cond have one batch size; these differ: {sizes}")
        if self.mask is not None:
            self._check_mask(self.mask)

    def _check_mask(self, mask: Tensor) -> None:
        wanted = None if self.tokens is None else self.tokens.shape[:2]
        if mask.dtype != torch.bool or mask.shape != wanted:
            raise ValueError(
                f"Cond.mask is bool [b n] like its tokens ({wanted}); "
                f"got {mask.dtype} {list(mask.shape)}"
            )

    def parts(self) -> dict[str, Tensor]:
        """The parts that are there, by name."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def batch_size(self) -> int | None:
        """b; None where there is no part at all, which fits every batch."""
        return next((len(value) for value in self.parts().values()), None)

    def cat(self, other: Cond) -> Cond:
        """This batch followed by another of the same parts and shapes: `[b1 + b2 ...]`."""
        mine, theirs = self._layout(), other._layout()
        if mine != theirs:
            raise ValueError(
                f"two Conds join when their parts agree in all but the batch; one has {mine}, "
                f"the other {theirs}. Make both with the same conditioner"
            )
        parts = other.parts()
        return Cond(**{k: torch.cat([value, parts[k]]) for k, value in self.parts().items()})

    def repeat(self, n: int) -> Cond:
        """Each item n times in a row: a a b b for n = 2."""
        if n < 1:
            raise ValueError(f"repeat takes a number of copies from 1 up, not {n}")
        return self._map(lambda value: value.repeat_interleave(n, dim=0))

    def to(self, device: torch.device | str) -> Cond:
        """The same on another device."""
        return self._map(lambda value: value.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Cond:
        return Cond(**{name: change(value) for name, value in self.parts().items()})

    def _layout(self) -> dict[str, list[int]]:
        return {name: list(value.shape[1:]) for name, value in self.parts().items()}

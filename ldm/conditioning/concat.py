"""The configuration of several conditioners at once."""

from __future__ import annotations

from dataclasses import dataclass

from ldm.conditioning.caption import CaptionConfig
from ldm.conditioning.low_res import LowResConfig
from ldm.conditioning.masked import MaskedConfig
from ldm.conditioning.sources import Concat, LabelsConfig, UnconditionalConfig
from ldm.conditioning.text import TextConditionerConfig, UnclipConditionerConfig

PartConfig = (
    UnconditionalConfig
    | LabelsConfig
    | TextConditionerConfig
    | UnclipConditionerConfig
    | LowResConfig
    | CaptionConfig
    | MaskedConfig
)


@dataclass(frozen=True, kw_only=True)
class ConcatConfig:
    """parts: in the order in which their tokens and channels follow each other."""

    parts: tuple[PartConfig, ...]

    def build(self) -> Concat:
        return Concat([part.build() for part in self.parts])


ConditionerConfig = PartConfig | ConcatConfig
"""Every configuration from which a conditioner is built."""

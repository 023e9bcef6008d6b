"""What a model is told besides x and the time: CLIP features, labels, small pictures.

Training CLIP (`ldm.conditioning.clip_training`) is imported by those who do it.
"""

from ldm.conditioning.clean import CleanPicture, CleanPictureConfig
from ldm.conditioning.clip import Clip
from ldm.conditioning.concat import ConcatConfig, ConditionerConfig
from ldm.conditioning.cond import Cond
from ldm.conditioning.low_res import LowRes, LowResConfig
from ldm.conditioning.sources import (
    Concat,
    Conditioner,
    Labels,
    LabelsConfig,
    Unconditional,
    UnconditionalConfig,
)
from ldm.conditioning.text import (
    TextConditioner,
    TextConditionerConfig,
    UnclipConditioner,
    UnclipConditionerConfig,
)
from ldm.conditioning.text_tower import TextTowerConfig

__all__ = [
    "CleanPicture",
    "CleanPictureConfig",
    "Clip",
    "Concat",
    "ConcatConfig",
    "Cond",
    "Conditioner",
    "ConditionerConfig",
    "Labels",
    "LabelsConfig",
    "LowRes",
    "LowResConfig",
    "TextConditioner",
    "TextConditionerConfig",
    "TextTowerConfig",
    "UnclipConditioner",
    "UnclipConditionerConfig",
    "Unconditional",
    "UnconditionalConfig",
]

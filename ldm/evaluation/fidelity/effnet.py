"""EfficientNet-lite0 as an extractor of torch-fidelity: importing this module registers it.

torch-fidelity's own command line with it:

    python -m ldm.evaluation.fidelity.effnet --cpu --fid --feature-extractor effnet-lite0 \\
        --input1 SAMPLES --input2 REFERENCE

This is the one module that imports torch-fidelity at its head, because a class of it is extended;
nothing imports it before an extractor is asked for.

b pictures; c content features (1280); k classes (1000)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from ldm.errors import RequestError
from ldm.evaluation.features import WIDTH, Extractor, Seen

NAME = "effnet-lite0"
CONTENT, LOGITS = str(WIDTH), "logits"


class EffnetLite0(FeatureExtractorBase):
    """Content features and the logits of the ImageNet classifier."""

    def __init__(
        self,
        name: str,
        features_list: list[str],
        feature_extractor_weights_path: str | None = None,
        **unused: Any,
    ) -> None:
        super().__init__(name, features_list)
        weights = feature_extractor_weights_path
        self._extractor = Extractor(None if weights is None else Path(weights))
        weight, bias = _classifier(self._extractor.path)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """uint8 [b 3 s s] -> [b c] and [b k], those that were asked for."""
        if self._extractor.device != input.device:
            self._extractor = Extractor(self._extractor.path, input.device)
        return self.completed(Seen.parted(self._extractor(input)).content)

    def completed(self, content: Tensor) -> tuple[Tensor, ...]:
        """The features that were asked for, from the content [b c] that all follow from."""
        logits = F.linear(content.to(self.weight.device), self.weight, self.bias)
        found = {CONTENT: content, LOGITS: logits.cpu()}
        return tuple(found[name] for name in self.features_list)

    @property
    def path(self) -> Path:
        """The file of the weights."""
        return self._extractor.path

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return CONTENT, LOGITS

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return LOGITS if metric == "isc" else CONTENT

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 3, 4, 4, dtype=torch.uint8)


def _classifier(path: Path) -> tuple[Tensor, Tensor]:
    """Weight [k c] and bias [k] of the last layer in the published file."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        return state["_fc.weight"], state["_fc.bias"]
    except KeyError as error:
        raise RequestError(f"{path} holds no classifier ({error} is missing)") from error


if NAME not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor(NAME, EffnetLite0)

if __name__ == "__main__":
    from torch_fidelity.fidelity import main

    main()

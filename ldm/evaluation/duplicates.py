"""What is there twice: in the data, among drawn pictures, and in what CLIP was trained on.

n pictures; l training pictures
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.evaluation.audit import thumbs, train_content, train_thumbs
from ldm.evaluation.diversity import content
from ldm.evaluation.features import Extractor
from ldm.evaluation.figures import Figure, mean_figure
from ldm.evaluation.neighbours import mann_whitney_z, nearest
from ldm.evaluation.real import SPLITS
from ldm.evaluation.section import Bench, Section


def evaluate(bench: Bench) -> Section:
    """Equal and nearly equal pictures: held-out ones and drawn ones against the training set."""
    extractor = Extractor(device=bench.pipe.device)
    heldout, train = bench.real.of("heldout"), bench.real.of("train")
    references = F.normalize(train_content(bench, extractor), dim=1)
    drawn = {split: bench.drawn(split) for split in SPLITS}
    asked = drawn["train"].places
    before, after = (
        content(bench, extractor, thumbs(images))
        for images in (bench.originals(asked), bench.reconstructed(asked))
    )
    scale = (1 - F.cosine_similarity(before, after)).median()
    real = bench.originals(heldout)
    seen = content(bench, extractor, thumbs(real))
    rows = {"real held-out pictures": _row(bench, real, seen, references, scale)}
    for split, pictures in drawn.items():
        seen = content(bench, extractor, thumbs(pictures.images))
        rows[f"generated, {split} prompts"] = _row(bench, pictures.images, seen, references, scale)
    return Section(
        title="Duplicates",
        notes=(
            "Equal: every pixel, at the model's size. Near a training picture: its content "
            "features are nearer (1 - cosine) to those of a training picture than those of half "
            f"the training pictures are to their own after the autoencoder ({scale:.4f}).",
            _about_files(bench),
        ),
        protocol={
            "extractor": extractor.identity(),
            **bench.resize,
            "training pictures": len(train),
            "seeds": f"picture i of a split has seed {bench.options.seed} + i",
            "settings": drawn["heldout"].settings,
        },
        rows=rows,
    )


def evaluate_clip(bench: Bench) -> Section:
    """Is CLIP surer of training pairs than of held-out ones, as if it had seen only those?"""
    cosine = {
        split: (bench.image_embeddings(split) * bench.text_embeddings(split)).sum(dim=1)
        for split in SPLITS
    }
    z = mann_whitney_z(cosine["heldout"], cosine["train"])
    return Section(
        title="What CLIP has seen",
        notes=(
            "The folder of a CLIP model does not record which pictures it was trained on, so that "
            "its overlap with the evaluation cannot be read off. What can be measured: a model "
            "pairs what it was trained on more surely. Cosine: of a picture with its own caption. "
            f"Mann-Whitney Z of held-out against train: {z:.1f}; far below 0 where the train pairs "
            "were trained on and the held-out ones were not, near 0 where both or neither were.",
            _about_captions(bench),
        ),
        protocol={"pairs": {split: len(values) for split, values in cosine.items()}},
        subject={"clip": bench.pipe.clip.fingerprint()},
        depends=(),
        rows={
            f"{split} pairs": {"cosine": mean_figure(values)} for split, values in cosine.items()
        },
    )


def equal_to_training(bench: Bench, images: Tensor) -> Tensor:
    """Which of the pictures, uint8 [n 3 s s], a training picture equals in every pixel: bool [n].

    Equal pictures have equal thumbnails: only where those agree is the picture itself decoded.
    """
    train = bench.real.of("train")
    places: dict[bytes, list[int]] = {}
    for place, small in zip(train, train_thumbs(bench), strict=True):
        places.setdefault(_digest(small), []).append(place)
    found = []
    for image, small in zip(images, thumbs(images), strict=True):
        alike = places.get(_digest(small), [])
        found.append(any(torch.equal(bench.originals([i])[0], image) for i in alike))
    return torch.tensor(found)


def equal_to_another(images: Tensor) -> Tensor:
    """Which of the pictures, uint8 [n 3 s s], are there twice or more: bool [n]."""
    digests = [_digest(image) for image in images]
    times = Counter(digests)
    return torch.tensor([times[d] > 1 for d in digests])


def _row(
    bench: Bench, images: Tensor, seen: Tensor, references: Tensor, scale: Tensor
) -> dict[str, Figure]:
    """Shares of pictures [n 3 s s] with content features [n c]."""
    near = nearest(F.normalize(seen, dim=1), references, 1)
    columns = {
        "equal to a training picture": equal_to_training(bench, images),
        "near a training picture": near.distance[:, 0].square() / 2 < scale,
        "equal to another of the row": equal_to_another(images),
    }
    return {name: mean_figure(hit.double(), "%") for name, hit in columns.items()}


def _digest(image: Tensor) -> bytes:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).digest()


def _about_files(bench: Bench) -> str:
    """Held-out pictures whose file a training picture has too."""
    files = {bench.real[i].data for i in bench.real.of("train")}
    heldout = bench.real.of("heldout")
    count = sum(bench.real[i].data in files for i in heldout)
    return f"{count} of {len(heldout)} held-out pictures are a training picture byte for byte."


def _about_captions(bench: Bench) -> str:
    """Held-out captions and pairs that the training pictures have too."""
    train, heldout = bench.real.of("train"), bench.real.of("heldout")

    def shared(what: str, places: Sequence[int]) -> set[object]:
        read = {
            "caption": lambda p: p.caption,
            "pair": lambda p: (p.concept, p.style),
        }[what]
        return {read(bench.real[i]) for i in places}

    told = [
        f"{len(shared(what, train) & shared(what, heldout))} of {len(shared(what, heldout))} "
        f"held-out {name}"
        for what, name in (("caption", "captions"), ("pair", "pairs of concept and style"))
    ]
    return f"{told[0]} and {told[1]} are also those of a training picture."

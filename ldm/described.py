"""Data in memory as a CLIP sees them: embeddings of the pictures, features of the captions.

`scripts/encode_shards.py` writes embeddings beside shards; data of a few thousand samples are
encoded when they are opened. The CLIP is a part of the recipe, as `ldm.first_stage` has its
autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ldm.conditioning.clip import Clip
from ldm.conditioning.clip_training import ClipTaskConfig
from ldm.data.batch import Batch
from ldm.data.stream import InMemory
from ldm.first_stage import EncodedStream


@dataclass(frozen=True, kw_only=True)
class FrozenClip:
    """clip: its sizes. folder: its trained weights; None: as drawn, which shows that a recipe runs
    and no more."""

    clip: ClipTaskConfig
    folder: str | None = None

    def load(self) -> Clip:
        """The CLIP; one that is not trained is drawn alike each time."""
        if self.folder is not None:
            return Clip.load(self.folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.clip.build().clip()


@dataclass(frozen=True, kw_only=True)
class Described:
    """A data set in memory with `image_embedding` and `text` beside its pictures and captions.

    data: what is described; its own batch size and order are not used. clip: what describes it.
    """

    data: InMemory
    clip: FrozenClip
    batch_size: int = 64
    seed: int = 0

    def open(self) -> EncodedStream:
        whole = self.data.whole()
        clip = self.clip.load()
        return EncodedStream(
            described(whole, clip),
            {"clip": clip.fingerprint()},
            batch_size=self.batch_size,
            seed=self.seed,
        )


@torch.no_grad()
def described(batch: Batch, clip: Clip) -> Batch:
    """The batch with what the CLIP says of its pictures and captions."""
    assert batch.image is not None and batch.caption is not None
    pictures = [clip.image(part) for part in batch.image.split(512)]
    return batch.replace(image_embedding=torch.cat(pictures), text=clip.text(batch.caption))

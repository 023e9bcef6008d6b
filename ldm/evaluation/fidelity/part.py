"""The model's pictures against real ones of the same split, as a part of the evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from ldm.data.images import Crop
from ldm.evaluation.cache import cached, digest
from ldm.evaluation.features import Extractor
from ldm.evaluation.fidelity import spread
from ldm.evaluation.fidelity.extractors import Network, load_network
from ldm.evaluation.fidelity.metrics import METRICS, Settings
from ldm.evaluation.fidelity.table import tabulate
from ldm.evaluation.figures import Figure
from ldm.evaluation.pairs import choose
from ldm.evaluation.real import SPLITS
from ldm.evaluation.samples import real_features
from ldm.evaluation.section import Bench, Section

MOST_REAL = 4000
GENERATED = "generated"
RECONSTRUCTED = "real through the autoencoder (rFID, rKID)"
NOTES = (
    "Judged: the model's pictures for the asked pairs; the real pictures of those pairs through "
    "the autoencoder. Against: the real pictures of all pairs of the split that could be asked, of "
    f"more than {MOST_REAL} as many of them, drawn by a hash; the asked ones can be among "
    "them. All are at the model's size.",
)


def evaluate(bench: Bench) -> Section:
    """FID, KID, IS, precision and recall of both splits, with the floor and the autoencoder."""
    options = bench.options
    network = load_network(options.extractor, options.extractor_weights, bench.pipe.device)
    metrics = [m for m in METRICS if m != "isc" or network.classes]
    # The IS of a few hundred pictures in ten splits would be that of a few dozen.
    settings = Settings(isc_splits=1)
    rows: dict[str, dict[str, Figure]] = {}
    notes: dict[str, None] = dict.fromkeys(NOTES)
    numbers = {}
    for split in SPLITS:
        drawn = bench.drawn(split)
        reference = _reference(bench, split)
        table = tabulate(
            network,
            {
                GENERATED: _features(bench, network, drawn.images),
                RECONSTRUCTED: _features(bench, network, bench.reconstructed(drawn.places)),
            },
            _real_features(bench, network, reference),
            metrics,
            settings,
        )
        rows |= {f"{split}: {name}": row for name, row in table.rows.items()}
        notes |= dict.fromkeys(table.notes)
        numbers[split] = {"N": len(drawn.places), "reference": len(reference)}
    return Section(
        title="Fidelity",
        notes=tuple(notes),
        protocol={
            "pictures": numbers,
            "seeds": f"picture i of a split has seed {options.seed} + i",
            "reference": bench.real.digest,
            "resize": Crop(size=bench.pipe.image_size).identity(),
            "network": network.identity(),
            "metrics": settings.told(),
            "bootstrap": spread.PROTOCOL,
            "settings": drawn.settings,
        },
        rows=rows,
    )


def _reference(bench: Bench, split: str) -> list[int]:
    """The places of the real pictures of a split that are compared with, in their order.

    They are of the same kind as the asked ones: one a pair, of concepts in several styles.
    """
    most = min(MOST_REAL, len(bench.real.of(split)))
    return sorted(choose(bench.real, split, most, seed=0))


@torch.inference_mode()
def _real_features(bench: Bench, network: Network, places: list[int]) -> Tensor:
    """Features [m d] of real pictures at the model's size."""
    completed = getattr(network.module, "completed", None)
    if completed is not None:
        # The judge keeps the features of all real images that this network's own follow from.
        judge = Extractor(network.module.path, bench.pipe.device)
        return torch.cat(completed(real_features(bench, judge).content[places]), dim=1)
    identity = {
        "data": bench.real.digest,
        "places": digest(places),
        "size": bench.pipe.image_size,
        **network.identity(),
    }
    return cached(
        bench.options.cache,
        f"fidelity-real-{network.name}",
        identity,
        lambda: bench.batched(
            places, lambda run: network(bench.originals(run)), "features of real pictures"
        ),
    )


def _features(bench: Bench, network: Network, images: Tensor) -> Tensor:
    """Features [n d] of pictures uint8 [n 3 s s]."""
    return bench.over(images, network, "features")

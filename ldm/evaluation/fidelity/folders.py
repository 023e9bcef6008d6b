"""Two sets of pictures, compared: `python scripts/evaluate.py fidelity SAMPLES REFERENCE`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ldm.evaluation.fidelity import spread
from ldm.evaluation.fidelity.extractors import DEFAULT, load_network
from ldm.evaluation.fidelity.inputs import Pictures, open_pictures
from ldm.evaluation.fidelity.metrics import METRICS, Settings, check_metrics
from ldm.evaluation.fidelity.table import features_of, tabulate
from ldm.evaluation.section import Section

logger = logging.getLogger(__name__)

SAMPLES = "samples"


def compare_folders(
    samples: Path | Tensor,
    reference: Path | Tensor,
    metrics: Sequence[str] = METRICS,
    extractor: str = DEFAULT,
    *,
    weights: Path | None = None,
    resize: int | None = None,
    settings: Settings | None = None,
    batch_size: int = 64,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
    quiet: bool = False,
) -> Section:
    """How near are the samples to the reference?

    The figures are those of torch-fidelity's command line for the same folders of opaque 8-bit
    files (beyond 10,000 pictures, with its `--save-cpu-ram`). Transparency is laid on white here
    and dropped there, EXIF orientation is applied here, webp is read here; its own resizing is
    another one.

    Args:
        samples, reference: a folder of pictures, a folder of shards with a manifest, or uint8
            [n 3 h w].
        metrics: of "fid", "kid", "isc", "prc".
        extractor: a name of `extractors.NAMES`; weights: its file where it takes one.
        resize: side of a square that all pictures are resized to; None leaves them as they are.
        cache: folder for the features; None keeps nothing.

    Raises:
        DataError: pictures that cannot be compared; the text names the file.
        RequestError: an unknown name, or weights that cannot be had.
    """
    settings = settings or Settings()
    made, real = open_pictures(samples, resize), open_pictures(reference, resize)
    network = load_network(extractor, weights, device)
    metrics = check_metrics(metrics, network)
    table = tabulate(
        network,
        {SAMPLES: features_of(made, network, cache, batch_size, quiet)},
        features_of(real, network, cache, batch_size, quiet),
        metrics,
        settings,
    )
    return Section(
        title="Fidelity",
        notes=(*table.notes, *_about_files(made, real)),
        protocol={
            "N": len(made),
            "reference": real.identity(),
            "resize": made.identity()["resize"],
            "network": network.identity(),
            "settings": settings.fitted(min(len(made), len(real))).told(),
            "bootstrap": spread.PROTOCOL,
        },
        subject={"samples": made.digest},
        depends=(),
        rows=table.rows,
    )


def _about_files(made: Pictures, real: Pictures) -> list[str]:
    """What the kind of the files does to the figures."""
    notes = [
        f"{p.lossy} of the {len(p)} pictures in {p.where} are of a kind that loses detail, which "
        "moves the figures."
        for p in (made, real)
        if p.lossy
    ]
    if made.size != real.size:
        notes.append(
            f"The samples have {made.size[1]} x {made.size[0]} pixels and the reference has "
            f"{real.size[1]} x {real.size[0]}: what resizing does to them is in the figures."
        )
    for note in notes:
        logger.warning(note)
    return notes

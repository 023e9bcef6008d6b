"""Features of pictures, kept under all that they depend on, and the table of figures from them.

n pictures judged; m real ones; d features
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ldm.evaluation.cache import cached
from ldm.evaluation.fidelity import spread
from ldm.evaluation.fidelity.extractors import Network
from ldm.evaluation.fidelity.inputs import Pictures
from ldm.evaluation.fidelity.metrics import Settings, check_metrics, measure
from ldm.evaluation.figures import Figure

logger = logging.getLogger(__name__)

FLOOR = "real against other real (floor)"
NOTES = (
    "FID, KID, IS, precision and recall are computed by torch-fidelity from the features of the "
    "named network; its name is in each column, and figures of different networks have nothing to "
    "do with each other. Precision: judged pictures within the real ones' manifold; recall the "
    "other way round.",
    spread.NOTE,
)


class Table(NamedTuple):
    """Rows of figures, and what must be said of them."""

    rows: dict[str, dict[str, Figure]]
    notes: tuple[str, ...]


def features_of(
    pictures: Pictures, network: Network, cache: Path | None, batch_size: int, quiet: bool = False
) -> Tensor:
    """Features [n d] in the order of the pictures.

    Kept in `cache` under a name with the hash of data, network, weights and preprocessing; a file
    there that says another thing is computed again, with a warning. No pickle is read or written.
    """
    from tqdm import tqdm

    def compute() -> Tensor:
        parts = []
        with tqdm(total=len(pictures), desc=pictures.where, disable=quiet, leave=False) as bar:
            for batch in pictures.batches(batch_size):
                parts.append(network(batch))
                bar.update(len(batch))
        return torch.cat(parts)

    identity = {**pictures.identity(), **network.identity()}
    return cached(cache, f"fidelity-{network.name}", identity, compute)


def tabulate(
    network: Network,
    judged: Mapping[str, Tensor],
    real: Tensor,
    metrics: Sequence[str],
    settings: Settings,
) -> Table:
    """A row for each set of judged features [n d] against [m d], and the floor at their number.

    The floor: as many real pictures, drawn by the seed, against the other real ones.
    """
    metrics = check_metrics(metrics, network)
    rows = {name: measure(network, made, real, metrics, settings) for name, made in judged.items()}
    notes = list(NOTES)
    asked = max(len(made) for made in judged.values())
    part = min(asked, len(real) // 2)
    if part < max(2, settings.neighbours + 1 if "prc" in metrics else 2):
        notes.append(f"No floor: {len(real)} real pictures cannot be parted into two sets.")
    else:
        rows[FLOOR] = _floor(network, real, part, metrics, settings)
        notes.append(_about_floor(part, asked, len(real)))
    if "fid" in metrics:
        notes += _about_numbers(network, judged, real)
    return Table(rows, tuple(notes))


def _floor(
    network: Network, real: Tensor, part: int, metrics: Sequence[str], settings: Settings
) -> dict[str, Figure]:
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(settings.seed))
    size = settings.kid_subset_size
    fitting = replace(
        settings,
        isc_splits=min(settings.isc_splits, part),
        kid_subset_size=size if size is not None and size <= part else None,
    )
    return measure(network, real[order[:part]], real[order[part:]], metrics, fitting)


def _about_floor(part: int, asked: int, real: int) -> str:
    note = (
        f"Floor: {part} of the {real} real pictures against the other {real - part}. A perfect "
        "model does no better."
    )
    if part < asked:
        note += (
            f" There are too few real pictures for {asked}: FID of more pictures may lie below "
            "this floor."
        )
    return note


def _about_numbers(network: Network, judged: Mapping[str, Tensor], real: Tensor) -> list[str]:
    """What to say, aloud too, of FID where a covariance cannot have full rank."""
    width = network.compared(real).shape[1]
    numbers = {**{name: len(made) for name, made in judged.items()}, "real pictures": len(real)}
    few = {name: n for name, n in numbers.items() if n <= width}
    if not few:
        return []
    told = ", ".join(f"{n} ({name})" for name, n in few.items())
    note = (
        f"{network.column('FID')} of fewer pictures than the {width} features is far too large "
        f"and only comparable at the same numbers: {told}. Beside the floor it can be read; KID "
        "has no such bias."
    )
    logger.warning(note)
    return [note]

"""FID, KID, IS, precision and recall of features, by torch-fidelity's own functions.

n pictures judged; m real ones; d features; k classes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from ldm.errors import DataError, RequestError, suggest
from ldm.evaluation.fidelity import spread
from ldm.evaluation.fidelity.extractors import Network
from ldm.evaluation.figures import Figure

METRICS = ("fid", "kid", "isc", "prc")
STANDARD_SUBSET = 1000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the metrics are computed, torch-fidelity's defaults.

    Attributes:
        isc_splits: parts of the pictures; the IS is the mean of theirs.
        kid_subsets, kid_subset_size: KID is the mean over this many random subsets of this size;
            None takes 1000, or half of the pictures where there are fewer.
        neighbours: the k of precision and recall: radii reach to the k-th nearest other picture.
        seed: of the subsets and of the order of the pictures in the splits.
    """

    isc_splits: int = 10
    kid_subsets: int = 100
    kid_subset_size: int | None = None
    neighbours: int = 3
    seed: int = 2020

    def fitted(self, fewest: int) -> Settings:
        """With a subset size where none is given: `fewest` is the size of the smaller set."""
        if self.kid_subset_size is not None:
            return self
        size = STANDARD_SUBSET if fewest >= STANDARD_SUBSET else max(2, fewest // 2)
        return replace(self, kid_subset_size=size)

    def told(self) -> dict[str, object]:
        """For the protocol."""
        return asdict(self)


def check_metrics(metrics: Sequence[str], network: Network) -> tuple[str, ...]:
    """The metrics in their order.

    Raises:
        RequestError: one is unknown, or is the IS and the network has no classifier.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise RequestError(
                f"no metric {metric!r}.{suggest(metric, METRICS)} There are: {', '.join(METRICS)}"
            )
    if "isc" in metrics and not network.classes:
        raise RequestError(
            f"the Inception score needs the logits of a classifier, which {network.name} has not; "
            "leave isc out or take effnet-lite0 or inception-v3-compat"
        )
    return tuple(m for m in METRICS if m in metrics)


def measure(
    network: Network,
    made: Tensor,
    real: Tensor,
    metrics: Sequence[str],
    settings: Settings,
) -> dict[str, Figure]:
    """A row of the table: features [n d] of the judged pictures against [m d] of real ones.

    Raises:
        DataError, RequestError: too few pictures, or features that are not finite.
    """
    for what, features in (("judged", made), ("real", real)):
        if len(features) < 2:
            raise DataError(f"{len(features)} {what} pictures: at least 2 are needed")
        if not features.isfinite().all():
            raise DataError(f"features of {network.name} of the {what} pictures are not finite")
    x, y, logits = network.compared(made), network.compared(real), network.logits(made)
    row: dict[str, Figure] = {}
    for metric in check_metrics(metrics, network):
        if metric == "fid":
            row[network.column("FID")] = _fid(x, y)
        elif metric == "kid":
            row[network.column("KID")] = _kid(x, y, settings)
        elif metric == "isc":
            row[network.column("IS")] = _isc(logits, settings)
        else:
            for name, figure in zip(("precision", "recall"), _prc(x, y, settings), strict=True):
                row[network.column(name)] = figure
    return row


def _fid(x: Tensor, y: Tensor) -> Figure:
    """Heusel et al. (arXiv 1706.08500), equation 6."""
    from torch_fidelity import metric_fid as tf

    stats = [tf.fid_features_to_statistics(features) for features in (x, y)]
    value = tf.fid_statistics_to_metric(*stats, verbose=False)[tf.KEY_METRIC_FID]
    return _figure(value, spread.of_fid(x, y), len(x), floor=0.0)


def _kid(x: Tensor, y: Tensor, settings: Settings) -> Figure:
    """Bińkowski et al. (arXiv 1801.01401), section 4: unbiased, so that it may be below zero."""
    from torch_fidelity import metric_kid as tf

    used = settings.fitted(min(len(x), len(y)))
    assert used.kid_subset_size is not None
    if not 2 <= used.kid_subset_size <= min(len(x), len(y)):
        raise RequestError(
            f"KID subsets of {used.kid_subset_size} pictures from {len(x)} judged and {len(y)} "
            "real ones: give a size (--kid-subset-size) from 2 to the smaller of them"
        )
    found = tf.kid_features_to_metric(
        x,
        y,
        kid_subsets=used.kid_subsets,
        kid_subset_size=used.kid_subset_size,
        rng_seed=used.seed,
        verbose=False,
    )
    return _figure(found[tf.KEY_METRIC_KID_MEAN], spread.of_kid(x, y), len(x))


def _isc(logits: Tensor, settings: Settings) -> Figure:
    """Salimans et al. (arXiv 1606.03498), section 4: exp of the mean KL to the marginal."""
    from torch_fidelity import metric_isc as tf

    if not 1 <= settings.isc_splits <= len(logits):
        raise RequestError(
            f"{settings.isc_splits} splits of {len(logits)} pictures for the Inception score: "
            "give from 1 to as many as there are pictures (--isc-splits)"
        )

    def score(some: Tensor, splits: int) -> float:
        found = tf.isc_features_to_metric(some, splits, rng_seed=settings.seed)
        return float(found[tf.KEY_METRIC_ISC_MEAN])

    value = score(logits, settings.isc_splits)
    error = spread.of_halves(logits, lambda half: score(half, min(settings.isc_splits, len(half))))
    return _figure(value, error, len(logits), floor=1.0)


def _prc(x: Tensor, y: Tensor, settings: Settings) -> tuple[Figure, Figure]:
    """Kynkäänniemi et al. (arXiv 1904.06991), equations 1 and 2."""
    from torch_fidelity import metric_prc as tf

    k = settings.neighbours
    if k < 1 or min(len(x), len(y)) <= k:
        raise RequestError(
            f"precision and recall with {k} neighbours need at least {k + 1} pictures on each "
            f"side; there are {len(x)} judged and {len(y)} real ones"
        )
    found = tf.prc_features_to_metric(x, y, prc_neighborhood=k, save_cpu_ram=True, verbose=False)
    errors = spread.of_prc(x, y, k)
    values = found[tf.KEY_METRIC_PRECISION], found[tf.KEY_METRIC_RECALL]
    return (
        _figure(values[0], errors[0], len(x), floor=0.0, ceiling=1.0, unit="%"),
        _figure(values[1], errors[1], len(x), floor=0.0, ceiling=1.0, unit="%"),
    )


def _figure(
    value: float,
    error: float | None,
    n: int,
    *,
    floor: float = -torch.inf,
    ceiling: float = torch.inf,
    unit: str = "",
) -> Figure:
    """The value with 1.96 standard errors to both sides, within what is possible."""
    if error is None:
        return Figure(value, None, None, n, unit)
    low, high = value - spread.LEVEL_Z * error, value + spread.LEVEL_Z * error
    return Figure(value, max(low, min(floor, value)), min(high, max(ceiling, value)), n, unit)

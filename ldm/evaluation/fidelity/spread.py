"""How far would the figures move with other pictures of the same model? Standard errors.

Bootstrap resamples hold pictures twice, which these statistics take amiss: a distance to the
nearest neighbour becomes 0, a covariance loses rank, and FID of a resample lies above that of the
pictures themselves. Halves drawn without replacement have no such trouble. For a statistic with a
standard error that falls as 1 / sqrt(n), its standard deviation over halves of n pictures is the
standard error of all n (delete-d jackknife with d = n / 2: Shao and Wu, "A general theory for
jackknife variance estimation", 1989). The real pictures are held fixed. None is said of fewer than
4 pictures.

n pictures judged; m real ones; h pictures of a half; d features
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

HALVES = 50
MOST = 4000
FEWEST = 4
LEVEL_Z = 1.96
PROTOCOL = {
    "kind": "delete-half jackknife, the real pictures fixed",
    "halves": HALVES,
    "of at most": MOST,
    "level": 0.95,
}
NOTE = (
    f"Intervals: {LEVEL_Z} standard errors to both sides, from {HALVES} halves of the judged "
    "pictures drawn without replacement (delete-d jackknife; resamples with replacement would bias "
    f"these statistics), the real pictures fixed; of more than {MOST} pictures from {MOST} of them."
    " They tell what other pictures of the same model would give, not what their small number adds "
    "to FID: that is in the row of the floor."
)


def of_halves(x: Tensor, statistic: Callable[[Tensor], float]) -> float | None:
    """The standard error of `statistic` on x [n d]."""
    few = x[_some(len(x))]
    values = [statistic(few[half]) for half in _halves(len(few))]
    return _error(values, len(few), len(x))


def of_fid(x: Tensor, y: Tensor) -> float | None:
    """Of the Fréchet distance of x [n d] from y [m d].

    tr sqrt(S_x S_y) is the sum of the singular values of X S_y^(1/2) / sqrt(n - 1), X the
    centred features: of the smaller of two Gram matrices only the eigenvalues are needed.
    """
    few = x[_some(len(x))].double()
    mean, root = y.double().mean(dim=0), _root(torch.cov(y.double().T))
    turned = few @ root

    def distance(half: Tensor) -> float:
        at, centred = few[half].mean(dim=0), turned[half] - turned[half].mean(dim=0)
        gram = centred @ centred.T if len(half) < few.shape[1] else centred.T @ centred
        common = torch.linalg.eigvalsh(gram / (len(half) - 1)).clamp_min(0).sqrt().sum()
        own = few[half].var(dim=0).sum()
        return ((at - mean).square().sum() + own - 2 * common).item()

    return _error([distance(half) for half in _halves(len(few))], len(few), len(x))


def of_kid(x: Tensor, y: Tensor) -> float | None:
    """Of the unbiased MMD^2 with the kernel (a.b / d + 1)^3 between x [n d] and y [m d]."""
    few, real = x[_some(len(x))].double(), y[_some(len(y))].double()
    among = (few @ few.T / few.shape[1] + 1) ** 3
    across = ((few @ real.T / few.shape[1] + 1) ** 3).mean(dim=1)

    def moved(half: Tensor) -> float:
        own, h = among[half][:, half], len(half)
        # What the real pictures have among themselves is the same for all halves.
        return ((own.sum() - own.trace()) / (h * (h - 1)) - 2 * across[half].mean()).item()

    return _error([moved(half) for half in _halves(len(few))], len(few), len(x))


def of_prc(x: Tensor, y: Tensor, k: int) -> tuple[float | None, float | None]:
    """Of precision and recall with k neighbours of x [n d] against y [m d]."""
    few, real = x[_some(len(x))], y[_some(len(y))]
    among, across = torch.cdist(few, few), torch.cdist(real, few)
    radii = torch.cdist(real, real).kthvalue(k + 1, dim=1).values
    inside = (across <= radii[:, None]).any(dim=0).double()

    def covered(half: Tensor) -> float:
        near = min(k + 1, len(half))
        reach = among[half][:, half].kthvalue(near, dim=1).values
        return (across[:, half] <= reach).any(dim=1).double().mean().item()

    halves = list(_halves(len(few)))
    precision = [inside[half].mean().item() for half in halves]
    recall = [covered(half) for half in halves]
    return _error(precision, len(few), len(x)), _error(recall, len(few), len(x))


def _error(values: list[float], looked_at: int, n: int) -> float | None:
    """The spread of the halves of `looked_at` pictures, brought to n of them.

    The mean of h of n numbers varies by (n - h) / h times what the mean of all n varies by.
    """
    if looked_at < FEWEST:
        return None
    half = looked_at // 2
    spread = torch.tensor(values, dtype=torch.float64).std(correction=0).item()
    return spread * (half / (looked_at - half)) ** 0.5 * (looked_at / n) ** 0.5


def _halves(n: int) -> Iterator[Tensor]:
    """HALVES times [h] places of n // 2 pictures; none of too few."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(HALVES if n >= FEWEST else 0):
        yield torch.randperm(n, generator=generator)[: n // 2]


def _some(n: int) -> Tensor:
    """Places of at most MOST of n pictures."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(1))[:MOST]


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance [d d]."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T

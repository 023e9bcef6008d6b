"""The judge: is a picture in the asked style, and does it show the asked concept?

Style: a linear probe on style features of real train pictures. Concept: the nearest real picture
of the asked style by content features. n pictures; m real pictures; k concepts; c, d features (see
`Seen`)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.evaluation.features import Seen
from ldm.evaluation.retrieval import chance, ranks

L2 = 1e-2
_TONE = re.compile(r"\b(medium-light|medium-dark|light|medium|dark) skin tone\b|,")
_CONNECTORS = {"with", "and", "between"}


@dataclass(frozen=True)
class StyleProbe:
    """Multinomial logistic regression on standardised features."""

    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> list[str]:
        """The style of each picture, from its features [n d]."""
        logits = F.linear((features - self.mean) / self.std, self.weight, self.bias)
        return [self.classes[i] for i in logits.argmax(dim=1).tolist()]


def fit_probe(features: Tensor, styles: Sequence[str], *, l2: float = L2) -> StyleProbe:
    """Fit features [n d] to their styles: mean cross-entropy + l2/2 |weight|^2, by L-BFGS."""
    classes = tuple(sorted(set(styles)))
    target = torch.tensor([classes.index(s) for s in styles])
    mean, std = features.mean(dim=0), features.std(dim=0)
    # A feature that hardly ever moves here must not decide where it once does.
    std = std.clamp_min(0.1 * std.mean().item())
    x = (features - mean) / std
    weight = torch.zeros(len(classes), x.shape[1], requires_grad=True)
    bias = torch.zeros(len(classes), requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), target)
        loss = loss + l2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return StyleProbe(classes, mean, std, weight.detach(), bias.detach())


@dataclass(frozen=True)
class Verdicts:
    """What the judge says of n pictures.

    style: [n] bool, the probe sees the asked style
    rank:  [n] how many real pictures of other concepts are nearer than the asked one's
    plain_rank: [n] the same where skin tones do not count as a difference
    """

    style: Tensor
    rank: Tensor
    plain_rank: Tensor


class Judge:
    """Compares pictures with real ones by the cosine of their features."""

    def __init__(
        self,
        probe: StyleProbe,
        gallery: Tensor,
        concepts: Sequence[str],
        styles: Sequence[str],
        origin: Tensor | None = None,
    ) -> None:
        """`gallery`: content features [m c] of real pictures, with their concepts and styles.

        `origin` [c] is subtracted from all content features before their cosine.
        """
        self.probe = probe
        self.origin = torch.zeros_like(gallery[0]) if origin is None else origin
        self.gallery = self._directions(gallery)
        self.concepts, self.styles = list(concepts), list(styles)
        self.plain = [without_skin_tone(c) for c in concepts]
        self.names = tuple(sorted(set(self.plain)))
        number = {name: i for i, name in enumerate(self.names)}
        self._numbers = torch.tensor([number[name] for name in self.plain])

    def __call__(self, seen: Seen, concepts: Sequence[str], styles: Sequence[str]) -> Verdicts:
        """Judge pictures that should show `concepts` in `styles`, from their features."""
        style = torch.tensor([a == b for a, b in zip(self.probe(seen.style), styles, strict=True)])
        plain = [without_skin_tone(c) for c in concepts]
        return Verdicts(
            style,
            self._ranks(seen.content, concepts, styles, self.concepts),
            self._ranks(seen.content, plain, styles, self.plain),
        )

    def by_concept(self, content: Tensor) -> Tensor:
        """Cosine [n k] of content features [n c] to the nearest real image of each of `names`.

        Of any style: a concept has one vote, however many images show it.
        """
        similarity = self._directions(content) @ self.gallery.T
        nearest = similarity.new_full((len(content), len(self.names)), -torch.inf)
        return nearest.scatter_reduce_(
            1, self._numbers.expand(len(content), -1), similarity, "amax"
        )

    def chance(
        self, concepts: Sequence[str], styles: Sequence[str], k: int, *, tones: bool = True
    ) -> float:
        """Share of pictures within top-k if the real ones came in random order.

        `tones`: whether skin tones count as a difference.
        """
        names = self.concepts if tones else self.plain
        asked = concepts if tones else [without_skin_tone(c) for c in concepts]
        cases = self._cases(asked, styles, names)
        return torch.cat([chance(right, k) for _, _, right in cases]).mean().item()

    def _directions(self, content: Tensor) -> Tensor:
        return F.normalize(content - self.origin, dim=1)

    def _ranks(
        self, features: Tensor, asked: Sequence[str], styles: Sequence[str], names: Sequence[str]
    ) -> Tensor:
        found = torch.empty(len(features), dtype=torch.long)
        for rows, places, right in self._cases(asked, styles, names):
            similarity = self._directions(features[rows]) @ self.gallery[places].T
            found[rows] = ranks(similarity, right)
        return found

    def _cases(
        self, asked: Sequence[str], styles: Sequence[str], names: Sequence[str]
    ) -> Iterator[tuple[list[int], list[int], Tensor]]:
        """For each style: which pictures ask for it, which real ones are in it, who is right."""
        for style in sorted(set(styles)):
            rows = [i for i, s in enumerate(styles) if s == style]
            places = [j for j, s in enumerate(self.styles) if s == style]
            right = torch.tensor([[names[j] == asked[i] for j in places] for i in rows])
            yield rows, places, right


def without_skin_tone(concept: str) -> str:
    """The words of a concept less skin tones and connectors, for comparison only.

    "kiss between woman, man, dark skin tone and light skin tone" -> "kiss woman man"
    """
    words = _TONE.sub(" ", concept).split()
    return " ".join(w for w in words if w not in _CONNECTORS)

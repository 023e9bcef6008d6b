"""Inpainting of held-out digits whose right half is hidden, measured against two controls.

Two questions are asked of a completion: does a judge see the true digit, and are whole pictures
distributed as digits are. Each control fails one. Beside the average half the judge guesses the
digit from the left, but such pictures are no digits. With another digit's half the cloud of
pictures is as near to digits as any, for its distance does not see whether two halves fit; the
judge does.

n pictures; 8 x 8 pixels in [-1, 1]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.codec import Pixels
from ldm.data.digits import Digits
from ldm.diffusion import Mask
from ldm.papers.findings import Measured, Table
from ldm.papers.measures import DigitJudge, energy_distance

Run = dict[str, tuple[float, float]]
ASKED = (
    "The verdict asks that pictures be nearer to digits than with the average half, and that the "
    "judge see the true digit more often than with another digit's. The other two comparisons say "
    "nothing: beside the average half the judge guesses the digit from the left, and a distance "
    "between clouds of pictures does not see whether two halves fit."
)
"""What a completion has to do, for the page."""


@dataclass(frozen=True)
class Halves:
    """Held-out digits [n 1 8 8], their labels [n], and a judge fitted on the training digits.

    The judge has seen neither these digits nor any that a model made.
    """

    whole: Tensor
    label: Tensor
    judge: DigitJudge

    @classmethod
    def of_test_digits(cls, n: int, seed: int) -> Halves:
        """n of the test digits."""
        from sklearn.svm import SVC

        train, test = Digits().whole(), Digits(part="test").whole()
        assert train.image is not None and train.label is not None
        assert test.image is not None and test.label is not None
        machine = SVC(C=10.0, gamma="scale")
        machine.fit(train.image.flatten(1).float().numpy() / 255, train.label.numpy())
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[:n]
        picture = Pixels().encode(test)[order]
        return cls(picture, test.label[order], DigitJudge(machine))

    @property
    def known(self) -> Mask:
        """The left half."""
        mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        mask[..., :4] = True
        return Mask(mask=mask)

    def filled(self, other: Tensor) -> Tensor:
        """The digits with their right half from `other` [n 1 8 8]."""
        return self.known.replace(other, self.whole)

    def ways(self, inpainted: Tensor) -> dict[str, Tensor]:
        """The digits, inpainted and with the hole filled otherwise, [n 1 8 8] each."""
        average = Pixels().encode(Digits().whole()).mean(0, keepdim=True).expand_as(self.whole)
        return {
            "the digit itself": self.whole,
            "inpainted": inpainted,
            "the average picture's half": self.filled(average),
            "another digit's half": self.filled(self.whole.roll(1, 0)),
        }

    def measured(self, inpainted: Tensor) -> Run:
        """For each way: how often the judge sees the true digit; distance to training digits."""
        real = Pixels().encode(Digits().whole())
        return {
            name: (self.judge.accuracy(x, self.label), energy_distance(x, real))
            for name, x in self.ways(inpainted).items()
        }

    def exact(self, inpainted: Tensor) -> bool:
        """Whether every known pixel is the given one, to the last bit."""
        return torch.equal(self.filled(inpainted), inpainted)


def judged(runs: list[Run], name: str) -> Measured:
    """How often the judge sees the true digit, over runs."""
    return Measured.over([run[name][0] for run in runs])


def distance(runs: list[Run], name: str) -> Measured:
    """Energy distance of whole pictures to training digits, over runs."""
    return Measured.over([run[name][1] for run in runs])


def halves_table(runs: list[Run]) -> Table:
    """Both measures of each way to fill the hole."""
    rows = tuple((name, judged(runs, name), distance(runs, name)) for name in runs[0])
    return Table(("right half", "judged to be the true digit", "energy distance to digits"), rows)


def beats_controls(runs: list[Run]) -> bool:
    """Nearer to digits than with the average half, and seen as the true digit more often than with
    another digit's half."""
    average, other = "the average picture's half", "another digit's half"
    near = distance(runs, "inpainted").below(distance(runs, average))
    return near and judged(runs, other).below(judged(runs, "inpainted"))

"""Inpainting of held-out digits whose right half is hidden, judged against two controls.

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
from ldm.papers.measures import DigitJudge


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

    def accuracies(self, inpainted: Tensor) -> dict[str, float]:
        """How often the judge sees the true digit, inpainted and with the hole filled otherwise."""
        average = Pixels().encode(Digits().whole()).mean(0, keepdim=True).expand_as(self.whole)
        ways = {
            "the digit itself": self.whole,
            "inpainted": inpainted,
            "the average picture's half": self.filled(average),
            "another digit's half": self.filled(self.whole.roll(1, 0)),
        }
        return {name: self.judge.accuracy(x, self.label) for name, x in ways.items()}

    def exact(self, inpainted: Tensor) -> bool:
        """Whether every known pixel is the given one, to the last bit."""
        return torch.equal(self.filled(inpainted), inpainted)


def halves_table(runs: list[dict[str, float]]) -> Table:
    """Accuracy of each way to fill the hole, over runs."""
    rows = tuple((name, Measured.over([run[name] for run in runs])) for name in runs[0])
    return Table(("right half", "judged to be the true digit"), rows)


def beats_controls(runs: list[dict[str, float]]) -> bool:
    """Whether the inpainted half helps the judge more than either control."""
    found = {name: Measured.over([run[name] for run in runs]) for name in runs[0]}
    controls = "the average picture's half", "another digit's half"
    return all(found[control].below(found["inpainted"]) for control in controls)

"""Training on given pairs of data and noise, as reflow does.

Liu et al. 2022 (arXiv 2209.03003) section 2.2. Shapes: b batch, c channels, ... the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ldm.diffusion.objective import Drawn, Mse, Objective, Terms


@dataclass(frozen=True, kw_only=True)
class Coupled(Objective):
    """An objective for x0 and eps that belong together: the data bring both, [b 2c ...].

    The first half of the channels is x0, the second the noise that a flow carries to it. `inner`
    says what is minimised; its times are not used, and no noise but the pair's.
    """

    inner: Objective = field(default_factory=Mse)

    def terms(self, drawn: Drawn, generator: torch.Generator) -> Terms:
        if drawn.x0.shape[1] % 2:
            raise ValueError(
                f"pairs have an even number of channels, data then noise, not "
                f"{drawn.x0.shape[1]}; give the data as ldm.data.pairs writes them"
            )
        x0, eps = drawn.x0.chunk(2, dim=1)
        paired = Drawn(drawn.denoiser, drawn.cond, x0, eps, drawn.t)
        return self.inner.terms(paired, generator)

"""Muon: momentum whose update is made orthogonal, for matrices and kernels; AdamW for the rest.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"
(https://kellerjordan.github.io/posts/muon): the momentum G = U S Vᵀ is replaced by about U Vᵀ, so
that all directions of a layer learn equally fast. The update is scaled to AdamW's usual size, so
that one learning rate serves both: Liu et al. 2025 (arXiv 2502.16982), equation 4.

m n rows and columns; a kernel [o i h w] counts as a matrix [o i*h*w]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# The quintic a x + b x^3 + c x^5 that brings singular values of (0, 1] near 1 in five steps.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
UPDATE_SIZE = 0.2  # root mean square of an entry of AdamW's update


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal: True` are moved by Muon, the others by AdamW.

    A group has `lr`, `weight_decay` (decoupled) and `betas`; Muon's momentum is `momentum`.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        momentum: float = 0.95,
        eps: float = 1e-8,
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "momentum": momentum, "eps": eps,
            "weight_decay": 0.0, "orthogonal": False,
        }  # fmt: skip
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        del closure
        for group in self.param_groups:
            move = self._orthogonal_step if group["orthogonal"] else self._adamw_step
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    move(parameter, parameter.grad, group)

    def _orthogonal_step(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[parameter], group["momentum"]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(grad, 1 - momentum)
        ahead = grad.lerp(state["momentum"], momentum)  # Nesterov's
        update = orthogonalised(ahead.flatten(1))
        size = UPDATE_SIZE * max(update.shape) ** 0.5
        parameter.add_(update.view_as(parameter), alpha=-group["lr"] * size)

    def _adamw_step(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["mean"].lerp_(grad, 1 - beta1)
        state["square"].lerp_(grad.square(), 1 - beta2)
        mean = state["mean"] / (1 - beta1 ** float(state["step"]))
        spread = (state["square"] / (1 - beta2 ** float(state["step"]))).sqrt() + group["eps"]
        parameter.addcdiv_(mean, spread, value=-group["lr"])


def orthogonalised(matrix: Tensor) -> Tensor:
    """About U Vᵀ of `matrix [m n]` = U S Vᵀ, by five Newton-Schulz steps in bfloat16: singular
    values come out between 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).to(matrix.dtype)

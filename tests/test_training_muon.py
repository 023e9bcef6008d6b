"""Muon: orthogonal updates for matrices, AdamW's for the rest."""

from __future__ import annotations

import torch
from torch import nn

from ldm.training import OptimConfig
from ldm.training.checkpoint import optimizer_tensors, restore_optimizer
from ldm.training.muon import UPDATE_SIZE, orthogonalised


def test_singular_values_come_out_near_one_and_vectors_stay() -> None:
    for shape in ((24, 60), (60, 24), (30, 30)):
        matrix = torch.randn(shape) @ torch.diag(torch.logspace(0, -1, shape[1]))
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        result = orthogonalised(matrix)
        values = torch.linalg.svdvals(result)
        assert values.min() > 0.6 and values.max() < 1.3
        assert ((u.T @ result @ vh.T).diagonal() > 0.6).all()


def test_kernels_take_an_update_of_adamws_size_and_vectors_are_adamws() -> None:
    torch.manual_seed(0)
    kernel, bias = (nn.Parameter(torch.zeros(s)) for s in ((32, 16, 3, 3), (32,)))
    other = nn.Parameter(torch.zeros(32))
    config = OptimConfig(method="muon", lr=0.1, weight_decay=0.0)
    muon = config.build([kernel, bias])
    adamw = torch.optim.AdamW([other], lr=0.1, betas=config.betas, weight_decay=0.0)
    for _ in range(3):
        kernel.grad, bias.grad = torch.randn_like(kernel), torch.randn_like(bias)
        other.grad = bias.grad.clone()
        before = kernel.detach().clone()
        muon.step()
        adamw.step()
        size = (kernel.detach() - before).square().mean().sqrt() / 0.1
        assert 0.7 * UPDATE_SIZE < size < 1.2 * UPDATE_SIZE
    assert torch.allclose(bias, other, atol=1e-6)


def test_decay_shrinks_matrices_alone() -> None:
    matrix, bias = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    optimizer = OptimConfig(method="muon", lr=0.1, weight_decay=0.5).build([matrix, bias])
    matrix.grad, bias.grad = torch.zeros(4, 4), torch.zeros(4)
    optimizer.step()
    assert torch.allclose(matrix, torch.full((4, 4), 0.95))
    assert torch.equal(bias, torch.ones(4))


def test_a_restored_optimiser_goes_on_as_the_first() -> None:
    def run(steps: range, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            for p in parameters:
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()

    def fresh() -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
        parameters = [nn.Parameter(torch.ones(6, 4)), nn.Parameter(torch.ones(4))]
        return parameters, OptimConfig(method="muon", lr=0.1).build(parameters)

    straight, whole = fresh()
    run(range(6), straight, whole)
    parameters, first = fresh()
    run(range(3), parameters, first)
    state = {k: v.clone() for k, v in optimizer_tensors(first, "optim").items()}
    again, second = fresh()
    for mine, theirs in zip(again, parameters, strict=True):
        mine.data.copy_(theirs)
    restore_optimizer(second, state, "optim")
    run(range(3, 6), again, second)
    for a, b in zip(straight, again, strict=True):
        assert torch.equal(a, b)

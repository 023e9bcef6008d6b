"""What every network promises, on one table of networks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks_cases import CASES, TOKENS, B, Case, inputs, perturbed

from ldm.conditioning.cond import Cond
from ldm.networks.prior import PriorTransformer


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_answers_zero_of_the_right_shape_when_new(case: Case) -> None:
    y = case.build()(*inputs(case))
    assert y.shape == (B, *case.y)
    assert (y == 0).all()


def test_items_of_a_batch_do_not_see_each_other(case: Case) -> None:
    network, (x, time, cond) = perturbed(case.build()), inputs(case)
    y = network(x, time, cond)
    order = torch.tensor([2, 0, 1])
    shuffled = Cond(**{name: part[order] for name, part in cond.parts().items()})
    torch.testing.assert_close(network(x[order], time[order], shuffled), y[order])
    alone = Cond(**{name: part[:1] for name, part in cond.parts().items()})
    torch.testing.assert_close(network(x[:1], time[:1], alone), y[:1])


def test_everything_given_matters(case: Case) -> None:
    network, (x, time, cond) = perturbed(case.build()), inputs(case)
    y = network(x, time, cond)
    assert y.std() > 1e-3
    changed = [(x + 0.1, time, cond), (x, time + 50, cond)]
    for name, part in cond.parts().items():
        other = ~part if name == "mask" else part + 0.1
        changed.append((x, time, replace(cond, **{name: other})))
    for arguments in changed:
        difference = (network(*arguments) - y).flatten(1).abs().amax(dim=1)
        assert difference[0] > 1e-5, arguments


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "mask" in case.parts])
def test_masked_tokens_have_no_influence(name: str) -> None:
    case = CASES[name]
    network, (x, time, cond) = perturbed(case.build()), inputs(case)
    tokens = torch.where(cond.mask[..., None], cond.tokens, 1e4)
    other = replace(cond, tokens=tokens)
    assert torch.equal(network(x, time, cond), network(x, time, other))


def test_gradients_reach_every_parameter(case: Case) -> None:
    network, (x, time, cond) = perturbed(case.build()), inputs(case)
    network(x, time, cond).square().sum().backward()
    unused = {"positions"} if isinstance(network, PriorTransformer) else set()  # longer texts
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert name in unused or (parameter.grad != 0).any(), name


def test_weights_travel_through_a_state_dict(case: Case) -> None:
    network, other, arguments = perturbed(case.build()), case.build().eval(), inputs(case)
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(*arguments), other(*arguments))


def test_bfloat16_autocast_is_finite_and_near(case: Case) -> None:
    network, arguments = perturbed(case.build()), inputs(case)
    y = network(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(*arguments)
    assert rough.isfinite().all()
    assert (rough.float() - y).square().mean() < 0.02 * y.square().mean()
    rough.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_a_wrong_input_is_refused_in_plain_words(case: Case) -> None:
    network, (x, time, cond) = case.build(), inputs(case)
    with pytest.raises(ValueError, match="takes x"):
        network(torch.cat([x, x], dim=1), time, cond)
    with pytest.raises(ValueError, match=r"time must be .* \[b\]"):
        network(x, time[:, None], cond)
    wrong = {"vector": x.new_zeros(B, 2), "tokens": x.new_zeros(B, TOKENS, 2)}
    wrong["concat"] = x.new_zeros(B, 1, *x.shape[2:]) if x.ndim == 4 else x.new_zeros(B, 1, 1, 1)
    for name, part in wrong.items():
        with pytest.raises(ValueError, match=rf"cond\.{name}"):
            network(x, time, replace(cond, **{name: part}))
        if name in case.parts:
            parts = {key: given for key, given in cond.parts().items() if key not in (name, "mask")}
            with pytest.raises(ValueError, match=rf"cond\.{name}.*got [nN]one"):
                network(x, time, Cond(**parts))

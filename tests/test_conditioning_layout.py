"""The layout: fitted in closed form, joined to the network's input, nulled with the embedding."""

from __future__ import annotations

import torch

from ldm.conditioning import UnclipConditionerConfig
from ldm.conditioning.layout import Layout, LayoutConfig
from ldm.data.batch import Batch

SIZES = LayoutConfig(channels=2, height=3, width=4, hidden=64)


def test_a_fit_finds_what_its_features_can_say() -> None:
    torch.manual_seed(0)
    layout, truth = Layout(SIZES, 5), Layout(SIZES, 5)
    truth.hidden.load_state_dict(layout.hidden.state_dict())
    seen, unseen = torch.randn(2000, 5), torch.randn(100, 5)
    layout.fit(seen, truth(seen), ridge=1e-9)
    with torch.no_grad():
        assert (layout(unseen) - truth(unseen)).abs().max() < 1e-3
        layout.fit(seen, truth(seen), ridge=1e9)  # nothing is left but the mean
        assert torch.allclose(layout(unseen), truth(seen).mean(0).expand(100, 2, 3, 4), atol=1e-3)


def test_the_conditioner_measures_gives_and_drops_it() -> None:
    torch.manual_seed(0)
    config = UnclipConditionerConfig(
        embed_dim=8, text_dim=4, context_length=3, context_dim=6, drop_image=1.0, layout=SIZES
    )
    conditioner = config.build()
    embedding = torch.nn.functional.normalize(torch.randn(500, 8), dim=1)
    x0 = (embedding @ torch.randn(8, 24)).view(500, 2, 3, 4)
    batch = Batch(key=("",) * 500, image_embedding=embedding)
    conditioner.measure([(batch, x0)])
    with torch.no_grad():
        cond, dropped = conditioner(batch), conditioner(batch, generator=torch.Generator())
    assert conditioner.grid == (3, 4) and cond.concat is not None and dropped.concat is not None
    assert (cond.concat - x0).square().mean() < 0.2 * x0.var()
    null = conditioner.null(500).concat
    assert null is not None and torch.equal(dropped.concat, null)


def test_without_a_layout_nothing_is_joined() -> None:
    config = UnclipConditionerConfig(embed_dim=8, text_dim=4, context_length=3, context_dim=6)
    conditioner = config.build()
    assert conditioner.grid is None and conditioner.null(2).concat is None

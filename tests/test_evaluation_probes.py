"""Linear probes: what is there is found, what is not there is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ldm.errors import RequestError
from ldm.evaluation import representation
from ldm.evaluation.figures import mean_figure
from ldm.evaluation.latent_bounds import pictures_of
from ldm.evaluation.probes import class_hits, explained, explained_figure, squares
from ldm.evaluation.real import load_real
from ldm.evaluation.section import Bench, Options
from ldm.pipeline import TextToImage

FIXTURE = Path(__file__).resolve().parent / "fixtures" / "emoji"


def samples(n: int, seed: int) -> torch.Tensor:
    return 3 + 5 * torch.randn(n, 20, generator=torch.Generator().manual_seed(seed))


def test_a_planted_label_is_found_and_a_random_one_is_not() -> None:
    z, z_test = samples(400, 0), samples(300, 1)
    planted = [(v[:, 3] > 3).long() + 2 * (v[:, 7] > 3).long() for v in (z, z_test)]
    found = mean_figure(class_hits(z, planted[0], z_test, planted[1]))
    assert found.low is not None and found.low > 0.85
    draws = torch.Generator().manual_seed(2)
    drawn = [torch.randint(0, 4, (n,), generator=draws) for n in (400, 300)]
    missed = mean_figure(class_hits(z, drawn[0], z_test, drawn[1]))
    assert missed.low is not None and missed.high is not None
    assert missed.low < 1 / 4 < missed.high


def test_a_planted_number_is_explained_and_a_random_one_is_not() -> None:
    z, z_test = samples(400, 0), samples(300, 1)
    weights = torch.randn(20, 3, generator=torch.Generator().manual_seed(2))
    draws = torch.Generator().manual_seed(3)
    y, y_test = (v @ weights + 10 * torch.randn(len(v), 3, generator=draws) for v in (z, z_test))
    share = (25 * weights.square().sum() / (25 * weights.square().sum() + 300)).item()
    figure = explained_figure(*squares(z, y, z_test, y_test))
    assert figure.low is not None and figure.high is not None
    assert figure.low < share < figure.high and figure.high - figure.low < 0.2
    assert figure.value == pytest.approx(explained(z, y, z_test, y_test))
    noise = [torch.randn(n, 3, generator=draws) for n in (400, 300)]
    assert explained_figure(*squares(z, noise[0], z_test, noise[1])).value < 0.02


@pytest.fixture(scope="module")
def bench(tiny_model: Path) -> Bench:
    pipe = TextToImage.from_pretrained(tiny_model)
    options: Any = {"pairs": 12, "batch_size": 16, "quiet": True}
    return Bench(pipe, load_real(FIXTURE), Options(**options))


def test_the_card_has_layers_times_and_controls(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(representation, "TIMES", (0.1, 0.9))
    section = representation.evaluate(bench)
    layers = representation.layers_of(bench.pipe.decoder.denoiser.network)
    assert len(section.rows) == 1 + 3 + 2 * 2 * len(layers) == 1 + 3 + 16
    pixels = section.rows["pixels, 16 x 16"]
    assert pixels["mean colour, R2"].value > 0.9  # a mean is a linear map of pixels
    assert section.rows["most frequent answer"]["mean colour, R2"].value == 0
    assert set(section.grids) == {"probes-style", "probes-skin-tone", "probes-mean-colour"}
    hooks = [m._forward_hooks for m in bench.pipe.decoder.modules()]
    assert not any(hooks)


def test_features_are_those_of_the_layer_the_time_and_the_weights(bench: Bench) -> None:
    few = pictures_of(bench, "heldout", 3)
    decoder = bench.pipe.decoder
    seen = representation.features(bench, decoder, few, 0.2)
    again = representation.features(bench, decoder, few, 0.2)
    later = representation.features(bench, decoder, few, 0.8)
    fresh = representation.features(bench, representation.untrained(bench), few, 0.2)
    for layer, z in seen.items():
        assert z.shape == (3, 2 * 32)
        assert torch.equal(z, again[layer])
        assert not torch.allclose(z, later[layer]) and not torch.allclose(z, fresh[layer])
    x = torch.arange(24.0).view(1, 2, 3, 4)
    wanted = torch.tensor([[5.5, 17.5, x[0, 0].std(correction=0), x[0, 1].std(correction=0)]])
    torch.testing.assert_close(representation.pooled(x), wanted)
    torch.testing.assert_close(representation.pooled(x.flatten(2).transpose(1, 2)), wanted)


def test_a_network_without_known_layers_is_refused() -> None:
    with pytest.raises(RequestError, match="Linear has no layers to probe"):
        representation.layers_of(nn.Linear(2, 2))

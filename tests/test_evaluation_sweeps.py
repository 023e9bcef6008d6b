"""Plots, and the sweeps over guidance, solvers and prompts, on a tiny random model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from ldm.diffusion.grids import UniformGrid
from ldm.diffusion.solvers import Ddim
from ldm.errors import RequestError
from ldm.evaluation import guidance, guides, noised_styles, prompts, steps, sweep
from ldm.evaluation.figures import Figure
from ldm.evaluation.noised_styles import Fit, NoisedStyles
from ldm.evaluation.plots import Point, lines, paths
from ldm.evaluation.real import load_real
from ldm.evaluation.section import Bench, Options, Section
from ldm.pipeline import TextToImage
from ldm.samplers import SOLVERS, Sampler, solver_named

FIXTURE = Path(__file__).parent / "fixtures" / "emoji"
FIT = Fit(pictures=64, steps=60, batch=32, width=32, depth=1)


@pytest.fixture(scope="module")
def bench(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    pipe = TextToImage.from_pretrained(tiny_model)
    pipe.set_progress_bar_config(disable=True)
    cache = tmp_path_factory.mktemp("cache")
    options = Options(pairs=4, batch_size=6, cache=cache, quiet=True, prior_steps=2)
    return Bench(pipe, load_real(FIXTURE), options)


@pytest.fixture(scope="module")
def asked(bench: Bench) -> sweep.Asked:
    return sweep.ask(bench, 4, 2)


@pytest.fixture(scope="module")
def plain(bench: Bench) -> Sampler:
    own = sweep.own_sampler(bench, 4)
    return replace(own, solver=Ddim(), grid=UniformGrid(), guidance=1.0)


def drawn(
    bench: Bench, asked: sweep.Asked, plain: Sampler, way: guides.Way, scale: float
) -> Tensor:
    """Latents under a way, never from the cache: what they are kept under is tested elsewhere."""
    told = guidance._told(bench, asked)
    fresh = replace(bench, options=replace(bench.options, cache=None))
    return sweep.draw(
        fresh, asked, lambda rows: way.sampler(plain, scale, guidance._some(told, rows)), {}
    )


def line(*values: float) -> list[Point]:
    return [Point(i + 1, Figure(v, v - 0.1, v + 0.1, 9), f"{i}") for i, v in enumerate(values)]


def test_plots_have_the_asked_size_and_show_every_line() -> None:
    one = lines({"a": line(0.2, 0.4)}, "x", "y", size=(320, 240))
    two = lines({"a": line(0.2, 0.4), "b": line(0.3, 0.3)}, "x", "y", size=(320, 240))
    assert one.size == two.size == (320, 240) and one.mode == "RGB"
    assert one.getpixel((1, 238)) == (255, 255, 255)
    orange = (213, 94, 0)
    assert orange not in colours(one) and orange in colours(two)
    front = paths({"a": line(1, 2), "b": line(2, 1)}, "x", "y", logx=True, logy=True)
    assert front.size == (800, 520) and orange in colours(front)
    marked = lines({"a": line(0.2, 0.4)}, "x", "y", levels={"floor": 0.3}, size=(320, 240))
    assert marked.tobytes() != one.tobytes()


def colours(image: Image.Image) -> set[Any]:
    return {colour for _, colour in image.getcolors(image.width * image.height) or ()}


def test_plots_of_nothing_or_without_matplotlib_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for empty in ({}, {"a": []}):
        with pytest.raises(RequestError, match="needs points"):
            lines(empty, "x", "y")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RequestError, match=r"pip install 'ldm\[evaluate\]'"):
        paths({"a": line(1)}, "x", "y")


@pytest.fixture
def network_calls(bench: Bench) -> Iterator[list[int]]:
    """The batch sizes with which the decoder's network was called."""
    calls: list[int] = []
    hook = bench.pipe.decoder.denoiser.network.register_forward_pre_hook(
        lambda module, inputs: calls.append(len(inputs[0]))
    )
    yield calls
    hook.remove()


@pytest.mark.parametrize("name", SOLVERS)
def test_evaluations_are_those_of_the_network(
    bench: Bench, asked: sweep.Asked, network_calls: list[int], name: str
) -> None:
    solver, process = solver_named(name), bench.pipe.decoder.denoiser.process
    sampler = Sampler(solver=solver, grid=steps.GRIDS[name], steps=4, guidance=2.0)
    cost = steps.cost_of(sampler, process)
    fresh = replace(bench, options=replace(bench.options, cache=None, batch_size=8))
    steps._drawn(fresh, asked, sampler)
    assert network_calls == [2 * 8] * cost.evaluations
    assert cost.evaluations == (7 if name == "heun" else 4)
    assert (cost.noises == 0) == (name in ("ddim", "euler", "heun", "dpmpp_2m"))
    for most in (1, 6, 9):
        found = steps.within(sampler, process, most)
        assert steps.cost_of(found, process).evaluations <= most
        more = replace(found, steps=found.steps + 1)
        assert steps.cost_of(more, process).evaluations > most


def test_the_sweep_draws_what_the_pipeline_draws(
    bench: Bench, asked: sweep.Asked, plain: Sampler
) -> None:
    way = guides.WAYS["classifier-free"](bench)
    for scale in (1.0, 3.0):
        output = bench.pipe(
            list(asked.captions),
            seed=list(asked.seeds),
            image_embeds=asked.embeddings,
            sampler=replace(plain, guidance=scale),
            output_type="latent",
        )
        found = drawn(bench, asked, plain, way, scale)
        assert (found - output.images).abs().max() < 1e-4
    assert asked.captions[0] == asked.captions[1] and asked.seeds[0] != asked.seeds[1]


def test_scale_one_is_the_plain_model(bench: Bench, asked: sweep.Asked, plain: Sampler) -> None:
    without = drawn(bench, asked, plain, guidance.UNGUIDED, 0.0)
    ways = {name: make(bench) for name, make in guides.WAYS.items() if name != "style classifier"}
    for name, way in ways.items():
        idle = 0.0 if name == "CLIP" else 1.0
        assert torch.allclose(drawn(bench, asked, plain, way, idle), without, atol=1e-5), name
        assert not torch.allclose(drawn(bench, asked, plain, way, 4.0), without, atol=1e-2), name


def test_guidance_acts_within_its_interval_only(
    bench: Bench, asked: sweep.Asked, plain: Sampler
) -> None:
    def within(interval: tuple[float, float] | None) -> Tensor:
        way = guides.classifier_free((4.0,), interval)(bench)
        return drawn(bench, asked, plain, way, 4.0)

    without = drawn(bench, asked, plain, guidance.UNGUIDED, 0.0)
    assert torch.equal(within((1e5, 1e6)), without)
    assert torch.equal(within((0.0, 1e6)), within(None))
    some = within((0.3, 3.0))
    assert not torch.equal(some, without) and not torch.equal(some, within(None))


def test_clip_guidance_raises_the_cosine_that_it_follows(
    bench: Bench, asked: sweep.Asked, plain: Sampler
) -> None:
    way = guides.by_clip(bench)
    text = bench.pipe.clip.text(list(asked.captions)).pooled

    def cosine(scale: float) -> float:
        images = sweep.pictures(bench, drawn(bench, asked, plain, way, scale))
        return float((bench.pipe.clip.image(images) * text).sum(1).mean())

    assert cosine(0.05) > cosine(0.0) > cosine(-0.05)


def test_the_gradient_of_clip_sees_what_clip_sees(bench: Bench) -> None:
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    pixels = images.float().requires_grad_()
    found = bench.pipe.clip.image_with_gradient(pixels)
    assert torch.allclose(found, bench.pipe.clip.image(images), atol=1e-5)
    found[:, 0].sum().backward()
    assert pixels.grad is not None and pixels.grad.abs().sum() > 0


def test_the_style_classifier_learns_and_leads(
    bench: Bench, asked: sweep.Asked, plain: Sampler
) -> None:
    styles, generator = bench.real.styles, torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(40)
    signs = 2.0 * torch.randn(4, 4, 4, 4, generator=generator)[labels]
    moments = torch.cat([signs, torch.full_like(signs, -4)], dim=1)
    network = noised_styles._untrained(bench, 4, FIT)
    weights = noised_styles._trained(network, moments[:120], labels[:120], FIT)
    assert torch.equal(weights, parameters_to_vector(network.parameters()))
    accuracy = noised_styles._accuracy(network.eval(), moments[120:], labels[120:])
    assert accuracy > 0.6
    fitted = NoisedStyles(network, styles, FIT, accuracy)
    told, clean = guidance._told(bench, asked), torch.full((8,), 0.05, dtype=torch.float64)

    def likely(scale: float) -> float:
        latents = drawn(bench, asked, plain, guides.by_styles(fitted), scale)
        return float(fitted.log_prob(told.styles)(latents, clean).detach().mean())

    assert likely(3.0) > likely(0.0)
    with pytest.raises(RequestError, match="no style 'notto'"):
        fitted.log_prob(["notto"])


def test_the_style_classifier_is_fitted_once(bench: Bench) -> None:
    first, again = (NoisedStyles.fitted(bench, FIT) for _ in range(2))
    assert first.styles == tuple(bench.real.styles) and 0 <= first.accuracy <= 1
    for a, b in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b) and not a.requires_grad
    assert len(list(bench.options.cache.glob("noised-styles-*"))) == 1  # type: ignore[union-attr]


def check(section: Section) -> None:
    json.dumps([section.protocol, section.subject])
    columns = [list(row) for row in section.rows.values()]
    assert all(c == columns[0] for c in columns) and section.grids.keys() == section.shown.keys()


def test_the_guidance_section_has_a_row_a_point(bench: Bench) -> None:
    plan = guidance.Plan(captions=3, copies=2, steps=2)
    rescaled = "classifier-free with rescale"
    section = guidance.evaluate(bench, plan, ["CLIP", rescaled])
    check(section)
    assert list(section.rows)[:3] == ["no guidance", f"{rescaled}, 3", f"{rescaled}, 8"]
    assert len(section.rows) == 1 + 2 + 2
    plain = section.rows["no guidance"]
    assert plain["CLIP score"].n == 3 and plain["KID-effnetlite0"].n == 6
    assert 0 < plain[guidance.DISTANCE].value < 1
    assert section.grids["guidance-fidelity"].size == (800, 520)
    assert len(section.shown["guidance-pictures"]) == 3


def test_the_sections_of_steps_measure_what_they_say(bench: Bench) -> None:
    plan = steps.Plan(evaluations=(3, 12), captions=3, fine=12)
    names = ["ddpm", "heun", "ddim"]
    section = steps.evaluate(bench, plan, names)
    check(section)
    assert len(section.rows) == 6
    assert section.rows["heun, at most 12"][steps.EVALUATIONS].value == 11
    solved = steps.evaluate_solutions(bench, plan, names)
    check(solved)
    assert not any(row.startswith("ddpm") for row in solved.rows)
    far = {row: figures[steps.DISTANCE].value for row, figures in solved.rows.items()}
    assert far["ddim, at most 3"] > far["ddim, at most 12"] > 0
    assert far["heun, at most 3"] > far["heun, at most 12"]
    assert section.grids["steps-clip"].size == (800, 520)
    x = torch.ones(2, 3, 4, 4)
    assert steps.relative(torch.stack([x[0], 3 * x[0]]), x).tolist() == [0, 2]


def test_the_prompts_are_shown_with_their_scores(bench: Bench) -> None:
    asked = ("a red apple, noto style", "a crown, fluent style", "a star, fxemoji style")
    section = prompts.evaluate(bench, {"prompts": asked})
    check(section)
    assert list(section.rows) == [*asked, prompts.OTHERS]
    text = bench.pipe.clip.text([asked[1]]).pooled
    made = bench.pipe(asked[1], num_images_per_prompt=4, seed=0, prior_num_inference_steps=2)
    images = [torch.tensor(list(i.getdata()), dtype=torch.uint8) for i in made.images]
    pixels = torch.stack(images).unflatten(1, (32, 32)).movedim(-1, 1)
    score = 100 * (bench.pipe.clip.image(pixels) @ text.T).clamp_min(0).mean()
    assert section.rows[asked[1]]["CLIP score"].value == pytest.approx(float(score), abs=1e-3)
    assert section.grids["prompts"].width == 3 * 34


def test_unknown_names_and_empty_plans_are_refused(bench: Bench) -> None:
    with pytest.raises(RequestError, match=r"no way to guide 'clip'.*CLIP"):
        guidance.evaluate(bench, ways=["clip"])
    with pytest.raises(RequestError, match=r"no solver 'hein'.*heun"):
        steps.evaluate(bench, solvers=["hein"])
    assert steps.GRIDS.keys() == SOLVERS.keys()
    with pytest.raises(RequestError, match="2 pictures"):
        guidance.Plan(copies=1)
    with pytest.raises(RequestError, match="1 evaluation"):
        steps.Plan(evaluations=())
    with pytest.raises(RequestError, match="each of them once"):
        prompts.evaluate(bench, {"prompts": ["a crown", "a crown"]})

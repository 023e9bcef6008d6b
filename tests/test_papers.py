"""Every paper's recipes take a training step and three sampling steps; pages say what was found."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from ldm import config
from ldm.data.groups import ShardConfig
from ldm.data.pairs import Pairs
from ldm.diffusion import Noise
from ldm.errors import ConfigError
from ldm.papers import run
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding, Measured, Table
from ldm.papers.page import write_page
from ldm.recipe import Recipe, load
from ldm.tasks import StageTask
from ldm.training import Trainer

CPU = torch.device("cpu")
FIXTURES = Path(__file__).parent / "fixtures"
EMOJI = FIXTURES / "emoji"
EVERY = [(name, variant) for name in run.names() for variant in run.recipes(name)]


def small(plan: Recipe) -> Recipe:
    """The recipe on four samples a step; shards and pairs are the fixtures'."""
    changes: dict[str, object] = {"batch_size": 4}
    if isinstance(plan.data, ShardConfig):
        changes |= {"sources": (str(EMOJI),), "workers": 0}
    if isinstance(plan.data, Pairs):
        changes["path"] = str(FIXTURES / "pairs" / Path(plan.data.path).name)
    return dataclasses.replace(plan, data=dataclasses.replace(plan.data, **changes))


@pytest.mark.parametrize(("name", "variant"), EVERY, ids=[f"{n}-{v}" for n, v in EVERY])
def test_every_recipe_trains_and_samples(name: str, variant: str) -> None:
    plan = small(run.recipes(name)[variant])
    assert config.from_dict(config.to_dict(plan), Recipe) == plan
    stream = plan.data.open()
    torch.manual_seed(0)
    task = plan.task.build(stream)
    trainer = Trainer(task, plan.optim, plan.loop, device=CPU)
    batch = next(iter(stream.batches()))
    before = {k: v.clone() for k, v in task.module.state_dict().items()}
    values = trainer.step(batch)
    assert all(torch.isfinite(torch.tensor(v)) for v in values.values()), values
    assert any(not torch.equal(before[k], v) for k, v in task.module.state_dict().items())
    if isinstance(task, StageTask):
        sampler = dataclasses.replace(task.config.preview, steps=3)
        few = task.read(batch.take(2))
        with torch.no_grad():
            drawn = task.stage.sample(few, sampler, Noise(range(2)), task.config.shape)
        assert drawn.shape == (2, *task.config.shape)
        assert drawn.isfinite().all()


def test_every_study_says_what_it_is() -> None:
    for name in run.names():
        found = run.study(name)
        assert found.title and found.paper and found.about.strip()


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="dpm_solver"):
        run.study("dpm_solvr")
    with pytest.raises(ConfigError, match=r"papers\.dpm_solver:digits"):
        load("papers.dpm_solver")
    assert load("papers.dpm_solver:digits") == run.recipes("dpm_solver")["digits"]


def test_measured_over_runs() -> None:
    value = Measured.over([1.0, 2.0, 3.0])
    assert value.mean == 2.0 and value.error == pytest.approx(1 / 3**0.5)
    assert str(value) == "2.00 ± 0.58"
    assert Measured.over([1.0]).error is None
    assert value.below(Measured.over([4.0, 5.0, 6.0]))
    assert not value.below(Measured.over([2.5, 3.0, 3.5]))
    half = value.scaled(-0.5)
    assert half.mean == -1.0 and half.error == pytest.approx(0.5 / 3**0.5)
    assert Measured.over([1.0]).scaled(2.0).error is None


def found(bench: Bench) -> list[Finding]:
    figure = bench.pictures("grey", torch.zeros(3, 1, 4, 4, dtype=torch.uint8), columns=2)
    table = Table(("what", "how much"), (("this", Measured(1.0, 0.1, 3)),))
    return [Finding("Less is more", "no figure", "1 is more", True, table, (figure,))]


def test_a_page_a_record_and_a_summary_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[float] = []

    def counted(bench: Bench) -> list[Finding]:
        made.append(bench.scale)
        return found(bench)

    about = Study("Lessness", "A. Nonymous 2020", "About little.", counted)
    monkeypatch.setattr(run, "names", lambda: ["less"])
    monkeypatch.setattr(run, "study", lambda name: about)
    for _ in range(2):
        [page] = run.reproduce(["all"], tmp_path / "results", tmp_path / "runs", scale=0.5)
    assert made == [0.5]  # the second time its page was there
    text = page.read_text()
    assert "1.00 ± 0.10" in text and "**holds**" in text and "rehearsal" in text
    record = json.loads(page.with_suffix(".json").read_text())
    assert record["findings"][0]["table"]["rows"][0][1] == {"mean": 1.0, "error": 0.1, "n": 3}
    assert (page.parent / record["findings"][0]["figures"][0]).exists()
    assert "| Less is more | 1 is more | holds |" in (page.parent / "README.md").read_text()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_trains_nothing_is_refused(tmp_path: Path, scale: float) -> None:
    with pytest.raises(ConfigError, match="scale is a factor above 0"):
        run.reproduce(["dit"], tmp_path / "results", tmp_path / "runs", scale=scale)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seeds", [(), (1,), (1, 1), (0, 1, 1), (-1, 0)])
def test_seeds_that_give_no_standard_error_are_refused(
    tmp_path: Path, seeds: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigError, match="two different numbers or more, from 0 up"):
        run.reproduce(["dit"], tmp_path / "results", tmp_path / "runs", seeds=seeds)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["matplotlib", "sklearn"])
def test_nothing_is_trained_where_a_page_could_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setattr(run, "study", lambda name: Study(name, "A", "About.", found))
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: name != module or None)
    with pytest.raises(ConfigError, match=f"need {run.PACKAGES[module]}, not installed: pip"):
        run.reproduce(["dit"], tmp_path / "results", tmp_path / "runs")
    assert not list(tmp_path.iterdir())


def test_a_rehearsal_does_not_replace_a_measured_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "study", lambda name: Study(name, "A", "About.", found))
    record = json.dumps({"scale": 1.0, "seeds": [0, 1, 2]})
    (tmp_path / "dit.json").write_text(record)
    for other in ({"scale": 0.1}, {"seeds": (0, 1)}):
        with pytest.raises(ConfigError, match="--results FOLDER keeps both"):
            run.reproduce(["vdm", "dit"], tmp_path, tmp_path / "runs", **other)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["dit.json"]
    assert (tmp_path / "dit.json").read_text() == record


def test_a_page_tells_of_trainings_that_had_been_begun(tmp_path: Path) -> None:
    plan = small(run.recipes("edm")[next(iter(run.recipes("edm")))])
    plan = dataclasses.replace(plan, loop=dataclasses.replace(plan.loop, images=8))
    study = Study("Lessness", "A", "About.", found)
    for told in ("1 s on", "1 s and 40 s of training in an earlier start on"):
        bench = Bench("less", tmp_path, tmp_path / "runs")
        for _ in range(2):  # the second one goes on from the first, whose time is in the study's
            bench.train(plan, "plain")
        assert told in write_page(bench, study, found(bench), 1.0).read_text()
        log = bench.runs / "plain-s0-x1" / "log.jsonl"
        log.write_text('{"images": 8, "seconds": 40.0}\n')


def test_a_failed_claim_is_said_to_fail(tmp_path: Path) -> None:
    bench = Bench("less", tmp_path, tmp_path / "runs")
    study = Study("Lessness", "A", "About.", found)
    finding = dataclasses.replace(found(bench)[0], holds=False, if_not="More was more.")
    text = write_page(bench, study, [finding], 1.0).read_text()
    assert "**does not hold here**" in text and "Why it may fail here: More was more." in text
    held = dataclasses.replace(finding, holds=True)
    assert "More was more" not in write_page(bench, study, [held], 1.0).read_text()

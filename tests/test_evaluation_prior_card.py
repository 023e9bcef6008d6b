"""The prior's report card: priors that are known to be good or not, spectra that are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.conditioning import TextConditionerConfig
from ldm.data.batch import Batch, TextFeatures
from ldm.diffusion.noise import Noise
from ldm.diffusion.objective import Mse
from ldm.diffusion.prediction import X0
from ldm.diffusion.process import VPCosine
from ldm.evaluation import prior, spectrum, swap
from ldm.evaluation.figures import median_figure
from ldm.evaluation.real import RealPictures, load_real
from ldm.evaluation.section import Bench, Options
from ldm.networks.prior import PriorConfig
from ldm.pca import principal
from ldm.pipeline import TextToImage
from ldm.samplers import Sampler
from ldm.stage import EmbeddingCodec, Stage, StageConfig

FIXTURE = Path(__file__).resolve().parent / "fixtures" / "emoji"
WIDTH = 12


@pytest.fixture(scope="module")
def real() -> RealPictures:
    """Held-out pictures and those train pictures that show the same concepts."""
    every = load_real(FIXTURE)
    concepts = {every[i].concept for i in every.of("heldout")}
    return RealPictures([p for p in every if p.concept in concepts], every.digest)


class Made:
    """Embeddings made of a picture's colours: the image's are the text's, turned by a rotation."""

    device, image_size, bf16, fingerprint = torch.device("cpu"), 64, False, "made"

    def __init__(self, real: RealPictures) -> None:
        self.picture = {p.caption: real.images([i]) for i, p in enumerate(real)}
        draws = torch.Generator().manual_seed(0)
        self.turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=draws))[0]
        self.clip = SimpleNamespace(image=self.see, text=self.read, fingerprint=lambda: "made")
        self.sampler = Sampler(steps=8)
        self.index = SimpleNamespace(samplers={"prior": self.sampler})
        self.samplers = lambda **given: SimpleNamespace(prior=self.sampler)
        self.prior: Any = None

    def see(self, images: Tensor) -> Tensor:
        return self._colours(images) @ self.turn

    def read(self, captions: list[str]) -> TextFeatures:
        pooled = self._colours(torch.cat([self.picture[c] for c in captions]))
        mask = torch.ones(len(captions), 1, dtype=torch.bool)
        return TextFeatures(pooled[:, None], pooled, mask)

    @torch.no_grad()
    def imagine(self, prompts: list[str], *, seed: list[int], candidates: int, **_: Any) -> Tensor:
        batch = Batch(key=tuple(prompts), text=self.read(prompts))
        drawn = [
            self.prior.sample(batch, self.sampler, Noise([s + 1000 * j for s in seed]), (WIDTH,))
            for j in range(candidates)
        ]
        return self.prior.codec.decode(torch.stack(drawn, dim=1))

    def _colours(self, images: Tensor) -> Tensor:
        small = F.adaptive_avg_pool2d(images.float() / 127.5 - 1, 2).flatten(1)
        return F.normalize(small - small.mean(dim=1, keepdim=True), dim=1)


def trained(made: Made, real: RealPictures, shuffled: bool) -> Stage:
    """A tiny prior after three hundred steps on all pictures but the held-out ones."""
    torch.manual_seed(0)
    stage = StageConfig(
        codec=EmbeddingCodec(width=WIDTH),
        conditioner=TextConditionerConfig(text_dim=WIDTH, embed_dim=WIDTH, context_length=1),
        network=PriorConfig(
            embedding_dim=WIDTH, vector_dim=WIDTH, context_dim=WIDTH, context_length=1,
            width=32, depth=1, head_dim=16,
        ),
        process=VPCosine(),
        prediction=X0(),
        objective=Mse(),
    ).build()  # fmt: skip
    every = load_real(FIXTURE)
    made.picture |= {p.caption: every.images([i]) for i, p in enumerate(every)}
    train = every.of("train")
    image = made.see(every.images(train))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
    text = made.read([every[i].caption for i in train])
    batch = Batch(
        key=("",) * len(train), image_embedding=image[order] if shuffled else image, text=text
    )
    codec: Any = stage.codec
    codec.measure_vectors([image])
    optimiser, draws = torch.optim.Adam(stage.parameters(), lr=3e-3), torch.Generator()
    for _ in range(300):
        optimiser.zero_grad()
        stage.loss(batch, draws)["loss"].mean().backward()
        optimiser.step()
    return stage.eval()


def bench_of(pipe: Any, real: RealPictures, **options: Any) -> Bench:
    given = {"pairs": 12, "batch_size": 16, "grid": 4, "quiet": True} | options
    return Bench(pipe, real, Options(**given))


@pytest.mark.parametrize("shuffled", [False, True], ids=["its own captions", "shuffled captions"])
def test_a_prior_trained_on_shuffled_captions_is_flagged(
    real: RealPictures, shuffled: bool
) -> None:
    made = Made(real)
    made.prior = trained(made, real, shuffled)
    bench = bench_of(made, real)
    section = prior.evaluate(bench)
    assert section.details[0]["tells captions apart"] is not shuffled
    assert section.notes[0].startswith("FLAGGED") is shuffled
    if not shuffled:
        cosine = {name: row["cosine"].value for name, row in section.rows.items()}
        assert cosine[prior.ONE] > 0.5 > cosine["text embedding"]
        rank = {name: row["median rank"].value for name, row in section.rows.items()}
        assert 1 <= rank[prior.ONE] < rank[prior.SHUFFLED]
        best = prior.evaluate_best(bench).rows
        text = [best[f"best of {n}"]["cosine to the text"].value for n in prior.COUNTS]
        assert text[0] < text[1] <= text[2]
        gain = best["gain of 4 over 1"]["cosine to the text"]
        assert gain.low is not None and gain.low > 0
        assert set(spectrum.evaluate(bench).rows) > {prior.ONE, spectrum.OTHERS}


def test_of_several_answers_the_nearest_to_the_text_counts() -> None:
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    truth = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    worst, middle, best = (torch.tensor(v) for v in ([-1.0, 0.0], [0.6, 0.8], [1.0, 0.0]))
    drawn = torch.stack([torch.stack([worst, middle, best, worst])] * 2)
    rows = prior.best_rows(drawn, truth[:1].expand(2, 2), text[:1].expand(2, 2))
    assert [round(rows[f"best of {n}"]["cosine to the text"].value, 4) for n in (1, 2, 4)] == [
        -1, 0.6, 1,
    ]  # fmt: skip
    assert rows["gain of 2 over 1"]["cosine"].value == pytest.approx(0.8)
    assert rows["gain of 4 over 1"]["cosine"].value == pytest.approx(0)


def gaussian(variances: list[float], directions: Tensor, n: int = 400, seed: int = 0) -> Tensor:
    """n points whose sample variances along the columns are exactly these."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(n, len(variances), generator=draws, dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0))[0] * (n - 1) ** 0.5
    return (x * torch.tensor(variances).double().sqrt()) @ directions.T


def test_spectrum_coverage_is_exact_on_gaussians() -> None:
    draws = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=draws, dtype=torch.float64))[0]
    truth = gaussian([4.0, 2.0, 1.0], turn)
    directions = principal(truth).directions
    assert torch.allclose((directions.T @ turn).abs(), torch.eye(3).double(), atol=1e-9)
    torch.testing.assert_close(
        spectrum.variances(truth, directions), torch.tensor([4.0, 2.0, 1.0]).double()
    )
    for given, covered, total in (
        ([4.0, 2.0, 1.0], 1.0, 1.0),
        ([1.0, 2.0, 4.0], 4 / 7, 1.0),
        ([9.0, 0.0, 0.0], 4 / 7, 9 / 7),
        ([0.4, 0.2, 0.1], 0.1, 0.1),
    ):
        row = spectrum.spectrum_row(truth, gaussian(given, turn, seed=1), directions)
        assert row["coverage"].value == pytest.approx(covered)
        assert row["total variance"].value == pytest.approx(total)
        low, high = row["total variance"].low, row["total variance"].high
        assert low is not None and high is not None and low < total < high


def test_median_with_its_interval() -> None:
    figure = median_figure(torch.tensor([1.0, 2.0, 3.0, 100.0]))
    assert figure.value == 2.5 and figure.low == 1 and figure.high == 100
    with pytest.raises(ValueError, match="at least one"):
        median_figure(torch.empty(0))


def test_the_decoder_with_exchanged_embeddings(tiny_model: Path, real: RealPictures) -> None:
    pipe = TextToImage.from_pretrained(tiny_model)
    pipe.set_progress_bar_config(disable=True)
    conditioner = pipe.decoder.conditioner
    bench = bench_of(pipe, real, pairs=3, steps=2, prior_steps=2, guidance=1.0)
    given = swap.null_embedding(bench, 2)
    cond = conditioner(Batch(key=("a", "b"), image_embedding=given))
    for name, part in conditioner.null(2).parts().items():
        torch.testing.assert_close(cond.parts()[name], part)
    section = swap.evaluate(bench)
    assert list(section.rows) == [swap.TRUE, swap.PRIOR, swap.TEXT, swap.NULL]
    score = {name: row["CLIP score"].value for name, row in section.rows.items()}
    assert len(set(score.values())) == 4
    assert section.grids["decoder-swap"].width == 3 * (32 + 2)

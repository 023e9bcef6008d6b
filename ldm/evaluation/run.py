"""The whole evaluation: data and model in, report out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ldm.errors import RequestError, suggest
from ldm.evaluation import (
    audit,
    bits,
    caption,
    clip,
    diversity,
    duplicates,
    guidance,
    plain,
    prior,
    prompts,
    reconstruction,
    report,
    representation,
    samples,
    spectrum,
    steps,
    swap,
)
from ldm.evaluation.fidelity import part as fidelity
from ldm.evaluation.real import load_real
from ldm.evaluation.section import Bench, Options, Section
from ldm.pipeline import DEFAULT_MODEL, TextToImage

logger = logging.getLogger(__name__)

PARTS: dict[str, Callable[[Bench], Section]] = {
    "prompts": prompts.evaluate,
    "reconstruction": reconstruction.evaluate,
    "reconstruction-distribution": reconstruction.evaluate_distribution,
    "clip": clip.evaluate,
    "prior": prior.evaluate,
    "prior-best": prior.evaluate_best,
    "prior-spectrum": spectrum.evaluate,
    "pictures": samples.evaluate,
    "plain-prompts": plain.evaluate,
    "decoder-swap": swap.evaluate,
    "captions": caption.evaluate,
    "fidelity": fidelity.evaluate,
    "diversity": diversity.evaluate,
    "diversity-prompts": diversity.evaluate_prompts,
    "memorisation": audit.evaluate,
    "duplicates": duplicates.evaluate,
    "clip-overlap": duplicates.evaluate_clip,
    "bits": bits.evaluate,
    "bits-levels": bits.evaluate_levels,
    "probes": representation.evaluate,
    "guidance": guidance.evaluate,
    "solvers": steps.evaluate,
    "solutions": steps.evaluate_solutions,
}
"""In the order of the report."""
SUITES: dict[str, tuple[str, ...]] = {
    "default": tuple(PARTS),
    "quick": ("prompts", "reconstruction", "clip", "prior", "pictures", "plain-prompts"),
}


def parts_of(suite: str, only: Sequence[str] = ()) -> list[str]:
    """The parts of a suite, or those named, in the order of `PARTS`.

    Raises:
        RequestError: no such suite or part; the message lists them.
    """
    _known("suite", [suite], SUITES)
    _known("part", only, PARTS)
    return [name for name in PARTS if name in (only or SUITES[suite])]


def _known(what: str, names: Sequence[str], allowed: Mapping[str, object]) -> None:
    for name in names:
        if name not in allowed:
            raise RequestError(
                f"no {what} {name!r} of the evaluation.{suggest(name, allowed)} There are: "
                + ", ".join(allowed)
            )


def evaluate(
    pipe: TextToImage, data: Path, out: Path, options: Options, parts: Sequence[str], command: str
) -> list[Path]:
    """Evaluate the named parts on the pictures in `data`; returns what was written in `out`."""
    if options.pairs < 2 or options.batch_size < 1 or options.grid < 1 or options.seed < 0:
        raise RequestError(
            f"pairs {options.pairs}, batch size {options.batch_size}, grid {options.grid}, seed "
            f"{options.seed}: give at least 2 pairs, 1 a batch, 1 on the grid, and seed 0"
        )
    names = parts_of("default", parts)
    bench = Bench(pipe, load_real(data), options)
    common = {"command": command, "data": bench.real.digest, **bench.made_by}
    written: dict[Path, None] = {}
    for name in names:
        start = time.perf_counter()
        section = PARTS[name](bench)
        logger.info("%s: %.0f s", name, time.perf_counter() - start)
        # Written as soon as it is known: a later part that fails takes nothing with it.
        files = report.write(
            out, data.name, {name: section}, common, list(PARTS), asked=options.asked
        )
        written |= dict.fromkeys(files)
    return list(written)


def load(model: Path | None, device: str, precision: str) -> TextToImage:
    """The model to be evaluated, by default the shipped one."""
    pipe = TextToImage.from_pretrained(
        model or DEFAULT_MODEL,
        device=device,
        precision="bf16" if precision == "bf16" else "float32",
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe

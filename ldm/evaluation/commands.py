"""The commands of scripts/evaluate.py: what each is asked with, and what it does.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

CACHE = Path(".cache/ldm/evaluation")
RESULTS = Path("results")


class Command(NamedTuple):
    """A command: what it is for, its arguments, what runs it (returns the lines to print)."""

    about: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Sequence[object]]


def main(given: Sequence[str]) -> int:
    """Run the command that `given` begins with, `model` where it names none; the exit status."""
    from ldm.errors import LdmError

    name, rest = (
        ("model", given) if not given or given[0] not in COMMANDS else (given[0], given[1:])
    )
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"evaluate.py {name}",
        description=command.about + _others(name),
        formatter_class=argparse.RawTextHelpFormatter,
    )
    command.arguments(parser)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        for line in command.run(parser.parse_args(rest)):
            print(line)
    except LdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _others(name: str) -> str:
    told = [f"  {key:9} {command.about}" for key, command in COMMANDS.items() if key != name]
    return "\n\nother commands (evaluate.py COMMAND --help):\n" + "\n".join(told)


def _device(p: argparse.ArgumentParser) -> None:
    p.add_argument("--device", default=None, help="cpu, cuda, mps (default: cuda if there)")
    p.add_argument("--batch-size", type=int, default=32, help="pictures computed at once")
    p.add_argument("--quiet", action="store_true", help="no progress bars")


def _drawing(p: argparse.ArgumentParser) -> None:
    p.add_argument("--model", type=Path, default=None, help="model folder (default: the shipped)")
    p.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    p.add_argument("--seed", type=int, default=0, help="draws the pairs; seed of the first picture")
    p.add_argument("--steps", type=int, default=None, help="steps of the decoder")
    p.add_argument("--guidance", type=float, default=None, help="guidance of the decoder")
    p.add_argument("--solver", default=None, help="solver of the decoder")
    p.add_argument("--prior-steps", type=int, default=None, help="steps of the prior")
    p.add_argument("--prior-guidance", type=float, default=None, help="guidance of the prior")


def _comparing(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--extractor",
        default="effnet-lite0",
        help="network of FID and its like; an unknown name lists all",
    )
    p.add_argument("--extractor-weights", type=Path, default=None, help="file of its weights")
    p.add_argument("--cache", type=Path, default=CACHE, help="folder for features")
    p.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")


def _model_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--suite", default="default", help="default (everything) or quick")
    p.add_argument("--only", default="", help="parts in place of a suite, such as prior,pictures")
    p.add_argument("--data", type=Path, default=Path("data/emoji"), help="train/ and heldout/")
    p.add_argument("--pairs", type=int, default=256, help="pairs to ask for, of each split")
    p.add_argument("--grid", type=int, default=24, help="pictures on a grid")
    p.add_argument("--clip-model", default=None, help="open_clip model that scores captions")
    _drawing(p)
    _comparing(p)
    _device(p)


def _model(a: argparse.Namespace) -> Sequence[object]:
    from ldm.evaluation import run
    from ldm.evaluation.section import Options

    options = Options(
        pairs=a.pairs,
        seed=a.seed,
        batch_size=a.batch_size,
        cache=a.cache,
        grid=a.grid,
        steps=a.steps,
        guidance=a.guidance,
        solver=a.solver,
        prior_steps=a.prior_steps,
        prior_guidance=a.prior_guidance,
        quiet=a.quiet,
        clip_model=a.clip_model,
        extractor=a.extractor,
        extractor_weights=a.extractor_weights,
    )
    parts = run.parts_of(a.suite, [name for name in a.only.split(",") if name])
    pipe = run.load(a.model, _chosen(a.device), a.precision)
    return run.evaluate(pipe, a.data, a.out, options, parts, _told())


def _fidelity_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("samples", type=Path, help="folder of pictures or of shards")
    p.add_argument("reference", type=Path, help="the same, of real ones")
    p.add_argument("--metrics", default="fid,kid,isc,prc", help="which (default: all four)")
    p.add_argument("--resize", type=int, default=None, help="side in pixels to resize all to")
    p.add_argument("--isc-splits", type=int, default=10, help="parts of which IS is the mean")
    p.add_argument("--kid-subset-size", type=int, default=None, help="pictures in a subset of KID")
    _comparing(p)
    _device(p)


def _fidelity(a: argparse.Namespace) -> Sequence[object]:
    from ldm.evaluation import report
    from ldm.evaluation.fidelity.folders import compare_folders
    from ldm.evaluation.fidelity.metrics import Settings

    section = compare_folders(
        a.samples,
        a.reference,
        tuple(a.metrics.split(",")),
        a.extractor,
        weights=a.extractor_weights,
        resize=a.resize,
        settings=Settings(isc_splits=a.isc_splits, kid_subset_size=a.kid_subset_size),
        batch_size=a.batch_size,
        cache=a.cache,
        device=_chosen(a.device),
        quiet=a.quiet,
    )
    common = {"command": _told(), "model": str(a.samples)}
    return report.write(a.out, "fidelity", {"fidelity": section}, common, ["fidelity"], asked={})


def _draw_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("prompts", type=Path, help="text file, a prompt a line")
    p.add_argument("folder", type=Path, help="for the pictures; what is there stays")
    _drawing(p)
    _device(p)


def _draw(a: argparse.Namespace) -> Sequence[object]:
    from ldm.evaluation import run
    from ldm.evaluation.fidelity.drawing import draw_many, read_prompts

    missing = draw_many(
        run.load(a.model, _chosen(a.device), a.precision),
        read_prompts(a.prompts),
        a.folder,
        seed=a.seed,
        batch_size=a.batch_size,
        quiet=a.quiet,
        num_inference_steps=a.steps,
        guidance_scale=a.guidance,
        solver=a.solver,
        prior_num_inference_steps=a.prior_steps,
        prior_guidance_scale=a.prior_guidance,
    )
    return [
        a.folder,
        *([f"{len(missing)} pictures of other processes are missing"] * bool(missing)),
    ]


def _compare_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("first", type=Path, help="a report's JSON file")
    p.add_argument("second", type=Path, help="another one, made in the same way")


def _compare(a: argparse.Namespace) -> Sequence[object]:
    from ldm.evaluation.compare import compare

    return [compare(a.first, a.second)]


def _readme_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--report", type=Path, default=RESULTS / "emoji.json", help="a report's JSON")
    p.add_argument(
        "pages", type=Path, nargs="*", default=[Path("README.md")], help="Markdown files"
    )


def _readme(a: argparse.Namespace) -> Sequence[object]:
    from ldm.evaluation.readme import update

    for page in a.pages:
        update(page, a.report)
    return a.pages


def _chosen(device: str | None) -> str:
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def _told() -> str:
    return shlex.join(["python", "scripts/evaluate.py", *sys.argv[1:]])


COMMANDS = {
    "model": Command(
        "measure a model on the emoji pictures (the default)", _model_arguments, _model
    ),
    "fidelity": Command(
        "FID, KID, IS, precision and recall of one folder against another",
        _fidelity_arguments,
        _fidelity,
    ),
    "draw": Command(
        "draw many prompts into a folder, resumable, on all processes of torchrun",
        _draw_arguments,
        _draw,
    ),
    "compare": Command("two reports side by side, if made alike", _compare_arguments, _compare),
    "readme": Command("put a report's main figures into pages", _readme_arguments, _readme),
}

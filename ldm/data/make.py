"""What each option of scripts/make_shards.py does."""

from __future__ import annotations

import argparse
import logging

from ldm.data import collect
from ldm.data.make_emoji import EmojiJob, make_emoji
from ldm.data.manifest import load_manifest, verify
from ldm.data.writer import write_shards

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> None:
    """Do what the parsed command line asks. Raises DataError."""
    if args.emoji:
        for name, manifest in make_emoji(_emoji_job(args)).items():
            logger.info("%s: %d samples in %s", name, manifest.samples, args.out / name)
    elif args.write_manifest:
        manifest = collect.scan(args.write_manifest, args.split)
        logger.info("%d samples in %d shards", manifest.samples, len(manifest.shards))
    elif args.verify:
        verify(args.verify)
        logger.info("%d samples, all as written", load_manifest(args.verify).samples)
    else:
        _make_from_files(args)


def _make_from_files(args: argparse.Namespace) -> None:
    if args.table:
        listed = collect.list_table(args.table)
    else:
        listed = collect.list_folder(args.images, caption_from_name=args.caption_from_name)
    samples = collect.read_samples(listed, skip_bad=args.skip_bad)
    folder = args.out / args.split
    manifest = write_shards(samples, folder, split=args.split, per_shard=args.per_shard)
    logger.info("%d of %d pictures written to %s", manifest.samples, len(listed), folder)


def _emoji_job(args: argparse.Namespace) -> EmojiJob:
    return EmojiJob(
        out=args.out,
        cache=args.cache,
        packages=args.packages,
        size=args.size,
        styles=tuple(args.styles),
        limit=args.limit,
        per_shard=args.per_shard,
        workers=args.workers,
    )

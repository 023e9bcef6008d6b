"""Encode shards of pictures once:

    python scripts/encode_shards.py data/emoji/train data/encoded/train

Writes latents (posterior moments) and CLIP image embeddings beside the captions; training of prior
and decoder then reads these instead of pictures.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("source", type=Path, help="folder of shards with pictures")
    p.add_argument("out", type=Path, help="folder to write, empty or new")
    p.add_argument("--autoencoder", default="runs/model/autoencoder", help="autoencoder folder")
    p.add_argument("--clip", default="runs/model/clip", help="CLIP folder, or open_clip name")
    p.add_argument("--size", type=int, help="side of the square in pixels (the autoencoder's)")
    p.add_argument("--device", default="cpu", help="cpu, cuda, mps")
    options = p.parse_intermixed_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from ldm.encoding import encode
    from ldm.errors import LdmError

    try:
        encode(
            options.source,
            options.out,
            options.autoencoder,
            options.clip,
            options.size,
            options.device,
        )
    except LdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

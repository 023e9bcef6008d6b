"""Draw pictures from prompts:  python scripts/txt2img.py "a red apple"

Picture i of a prompt depends on the seed SEED + i alone, not on how many are drawn at once. Each
PNG carries its prompt, seed, settings and the model's fingerprint (see --explain).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("prompt", nargs="*", help="one or more prompts")
    p.add_argument("--from-file", type=Path, help="a text file with one prompt a line")
    p.add_argument("-n", "--num", type=int, default=1, help="pictures for each prompt")
    p.add_argument("--seed", type=int, default=0, help="seed of the first picture of each prompt")
    p.add_argument("--negative", default=None, help="what the picture shall not be like")
    p.add_argument("--steps", type=int, default=None, help="steps of the decoder")
    p.add_argument("--guidance", type=float, default=None, help="guidance scale of the decoder")
    p.add_argument("--prior-steps", type=int, default=None, help="steps of the prior")
    p.add_argument("--prior-guidance", type=float, default=None, help="guidance of the prior")
    p.add_argument("--solver", default=None, help="ddpm, ddim, dpmpp_2m, heun, ... (decoder)")
    p.add_argument("--size", default=None, help="HEIGHTxWIDTH in pixels, for example 128x128")
    p.add_argument("--out", type=Path, default=Path("outputs"), help="folder for the PNG files")
    p.add_argument("--grid", action="store_true", help="also write all pictures on one sheet")
    p.add_argument("--model", type=Path, default=None, help="model folder (default: the shipped)")
    p.add_argument("--device", default=None, help="cpu, cuda, mps (default: cuda if there)")
    p.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    p.add_argument("--batch-size", type=int, default=16, help="pictures drawn at once")
    p.add_argument("--quiet", action="store_true", help="no progress bar, no timing")
    p.add_argument("--explain", type=Path, metavar="PNG", help="print what a PNG says of itself")
    return p.parse_args()


def main() -> int:
    options = arguments()
    start = time.perf_counter()
    from ldm.errors import LdmError

    try:
        from ldm import drawing

        if options.explain is not None:
            print(drawing.explain(options.explain))
            return 0
        for path in drawing.draw(options, started=start):
            print(path)
    except LdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""From runs to a model folder, part by part, then the index:

python scripts/export.py autoencoder runs/emoji_autoencoder model
python scripts/export.py index model decoder.guidance=3
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parts = p.add_subparsers(dest="part", required=True)
    for name in ("autoencoder", "clip", "prior", "decoder"):
        part = parts.add_parser(name, help=f"export the {name}")
        part.add_argument("run", type=Path, help="folder of the training run")
        part.add_argument("out", type=Path, help="model folder")
    index = parts.add_parser("index", help="write manifest.json over the four parts")
    index.add_argument("out", type=Path, help="model folder")
    index.add_argument("--size", type=int, help="side of the images in pixels (the autoencoder's)")
    index.add_argument("settings", nargs="*", help="prior.steps=25 decoder.guidance=3 ...")
    options = p.parse_args()

    from ldm import config, export
    from ldm.errors import LdmError
    from ldm.samplers import Sampler, Samplers

    try:
        if options.part == "index":
            chosen = config.override(Samplers(prior=Sampler(), decoder=Sampler()), options.settings)
            made = export.finish(options.out, options.size, chosen.prior, chosen.decoder)
            print(f"{options.out}: model {made.fingerprint}")
        else:
            print(export.export_part(options.run, options.part, options.out))
    except LdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

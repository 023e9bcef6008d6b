"""Measure a model, or pictures:  python scripts/evaluate.py --suite default

evaluate.py [model] ...                    the shipped model or another one, on the emoji pictures:
                                           writes results/emoji.{json,md,html} and PNG grids
evaluate.py fidelity SAMPLES REFERENCE     FID, KID, IS, precision, recall of folders or shards
evaluate.py draw PROMPTS FOLDER            many prompts into a folder, alone or under torchrun
evaluate.py compare A.json B.json          two reports, refused where they were made differently
evaluate.py readme [PAGE ...]              the main figures between the marks of a page
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from ldm.evaluation.commands import main

    raise SystemExit(main(sys.argv[1:]))

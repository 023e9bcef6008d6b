"""FID, KID, IS, precision and recall of pictures beside real ones, with torch-fidelity."""

from ldm.evaluation.fidelity.drawing import draw_many, read_prompts
from ldm.evaluation.fidelity.folders import compare_folders
from ldm.evaluation.fidelity.metrics import Settings
from ldm.evaluation.fidelity.part import evaluate

__all__ = ["Settings", "compare_folders", "draw_many", "evaluate", "read_prompts"]

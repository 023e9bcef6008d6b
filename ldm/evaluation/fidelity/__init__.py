"""FID, KID, IS, precision and recall of pictures beside real ones, with torch-fidelity."""

from ldm.evaluation.fidelity.drawing import draw_many
from ldm.evaluation.fidelity.folders import compare_folders
from ldm.evaluation.fidelity.part import evaluate

__all__ = ["compare_folders", "draw_many", "evaluate"]

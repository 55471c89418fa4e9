"""Looks inside a policy: what it sees, says, keeps and forgets, step by step.

`inspect_policy` does all of it and writes a folder; the others return numbers.
"""

from xlstm_rl.inspection.erasing import Erasing, ErasingCurve, find_erasing
from xlstm_rl.inspection.inspecting import inspect_policy
from xlstm_rl.inspection.recording import Recording, record
from xlstm_rl.inspection.saliency import Saliency, find_saliency
from xlstm_rl.inspection.trace import trace

__all__ = [
    "Erasing",
    "ErasingCurve",
    "Recording",
    "Saliency",
    "find_erasing",
    "find_saliency",
    "inspect_policy",
    "record",
    "trace",
]

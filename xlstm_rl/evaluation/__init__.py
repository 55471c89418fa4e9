"""Evaluation of a policy on whole episodes: `environments` makes them, `episodes` plays them."""

from xlstm_rl.evaluation.episodes import EvaluationStep, evaluate
from xlstm_rl.evaluation.result import EvaluationResult

__all__ = ["EvaluationResult", "EvaluationStep", "evaluate"]

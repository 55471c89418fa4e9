"""What is called while an agent trains: the base class, and ready ones."""

from typing import TYPE_CHECKING

from xlstm_rl.lazy import lazy_names

if TYPE_CHECKING:
    from xlstm_rl.callbacks.base import Callback, Learner
    from xlstm_rl.callbacks.checkpoint import PeriodicCheckpoint
    from xlstm_rl.callbacks.evaluation import PeriodicEvaluation
    from xlstm_rl.callbacks.stopping import StopAtReturn

__all__ = ["Callback", "Learner", "PeriodicCheckpoint", "PeriodicEvaluation", "StopAtReturn"]

if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, __all__, ("base", "stopping", "checkpoint", "evaluation"))

"""Training on many processes: what they agree on, share and average."""

from xlstm_rl.distributed.process_group import current_ranks
from xlstm_rl.distributed.ranks import ALONE, Moments, Ranks

__all__ = ["ALONE", "Moments", "Ranks", "current_ranks"]

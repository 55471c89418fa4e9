"""The checkpoint that an agent goes on from."""

import sys
from pathlib import Path
from typing import Any

from xlstm_rl.agents.step_budget import StepBudget
from xlstm_rl.collection.collector import Collector
from xlstm_rl.collection.resuming import restore_collector
from xlstm_rl.config import ConfigError
from xlstm_rl.seeding import load_streams


class Origin:
    """What a loaded agent still needs of its checkpoint when it first learns.

    Args:
        checkpoint: its folder.
        state: what `trainer.pt` holds.
        trust_code: read what environments pickled.
    """

    def __init__(self, checkpoint: Path, state: dict[str, Any], trust_code: bool) -> None:
        self.checkpoint = checkpoint
        self._collector = state["collector"]
        self._streams = state["generators"]["global"]
        self._trust_code = trust_code

    def hand_over(self, collector: Collector) -> None:
        """Let a new collector go on where the run stood; else it begins new episodes, and says so.

        The global streams of Python, NumPy and torch go on too: some environments draw from them.
        """
        why = restore_collector(collector, self._collector, self._trust_code)
        if why is not None:
            collector.begin_anew()
            print(f"{self.checkpoint}: new episodes begin: {why}", file=sys.stderr)
        load_streams(self._streams)

    def steps_to_go(self, total: int, done: int, budget: StepBudget) -> int:
        """Return the steps that are left of a training.

        Raises:
            ConfigError: less than a rollout is left.
        """
        if total - done < budget.rollout:
            raise ConfigError(
                f"{self.checkpoint}: finished: {done:,} steps of {total:,} are done, in rollouts "
                f"of {budget.rollout:,}; a larger total_steps (--total-steps) trains on"
            )
        return total - done

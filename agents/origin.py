"""The checkpoint that an agent goes on from."""

from pathlib import Path
from typing import Any

from xlstm_rl.agents.step_budget import StepBudget
from xlstm_rl.collection.collector import Collector
from xlstm_rl.collection.resuming import restore_collector
from xlstm_rl.config import ConfigError
from xlstm_rl.distributed import Ranks
from xlstm_rl.seeding import load_streams
from xlstm_rl.terminal import tell


class Origin:
    """What a loaded agent still needs of its checkpoint when it first learns.

    Args:
        checkpoint: its folder.
        state: what `trainer.pt` holds.
        trust_code: read what environments pickled.
    """

    def __init__(self, checkpoint: Path, state: dict[str, Any], trust_code: bool) -> None:
        self.checkpoint = checkpoint
        first = {"collector": state["collector"], "generators": state["generators"], "rewards": {}}
        self._states: list[dict[str, Any]] = [first, *state.get("ranks", [])]
        self._trust_code = trust_code

    def own_state(self, ranks: Ranks) -> dict[str, Any]:
        """Return what one of several processes has for itself: random streams and episodes.

        Of a process that was not there before, or was not saved, it is empty.
        """
        if ranks.index < len(self._states):
            return self._states[ranks.index]
        return {
            "collector": {"problem": "the checkpoint holds no state of theirs"},
            "generators": {"device": None},
            "rewards": {},
        }

    def hand_over(self, collector: Collector | None, ranks: Ranks) -> None:
        """Let a new collector go on where the run stood; else it begins new episodes, and says so.

        None: actors collect, and begin new episodes. The global streams of Python, NumPy and torch
        go on too: some environments draw from them.
        """
        state = self.own_state(ranks)
        why: str | None = "actors play the environments"
        if collector is not None:
            why = restore_collector(collector, state["collector"], self._trust_code)
            collector.is_cut_off = why is not None  # then the next rollout begins new ones
        if "global" in state["generators"]:
            load_streams(state["generators"]["global"])
        reasons = ranks.gathered(why)
        if ranks.is_first:
            for line in self._told(reasons):
                tell(f"{self.checkpoint}: {line}")

    def _told(self, reasons: list[str | None]) -> list[str]:
        """Return what to say of episodes that do not go on, by process."""
        lines = []
        before, now = len(self._states), len(reasons)
        if before > now:
            lines.append(f"the run had {before} processes and has {now}: the others' episodes end")
        for reason in dict.fromkeys(one for one in reasons if one is not None):
            which = [str(rank) for rank, one in enumerate(reasons) if one == reason]
            where = "" if now == 1 else f" in process {', '.join(which)} of {now}"
            lines.append(f"new episodes begin{where}: {reason}")
        return lines

    def steps_to_go(self, total: int, done: int, budget: StepBudget) -> int:
        """Return the steps that a call must ask for: what the last one left over counts by itself.

        Raises:
            ConfigError: less than a rollout is left.
        """
        if total - done < budget.rollout:
            raise ConfigError(
                f"{self.checkpoint}: finished: {done:,} steps of {total:,} are done, in rollouts "
                f"of {budget.rollout:,}; a larger total_steps (--total-steps) trains on"
            )
        return total - done - budget.left_over

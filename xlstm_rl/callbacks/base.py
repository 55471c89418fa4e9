"""The base of callbacks, and what they see of the agent that trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from xlstm_rl.collection.collector import Rollout
from xlstm_rl.policy.policy import Policy


class _Seeded(Protocol):
    @property
    def seed(self) -> int: ...


class Learner(Protocol):
    """The agent, as a callback sees it. Every `RecurrentAgent` is one."""

    policy: Policy
    steps_done: int

    @property
    def config(self) -> _Seeded:
        """The whole configuration."""
        ...

    @property
    def run_dir(self) -> Path | None:
        """The run folder; None: there is none."""
        ...

    def log(self, values: Mapping[str, Any]) -> None:
        """Add values to the next row of the metrics."""
        ...

    def checkpoint(self) -> bool:
        """Write a checkpoint into the run folder, if there is one, and say whether it is there."""
        ...

    def save_best(self, evaluation: Mapping[str, Any]) -> None:
        """Write `best/` into the run folder, if there is one."""
        ...


class Callback:
    """Called while an agent trains; override what you need.

    In every hook `self.agent` is the agent: its `steps_done`, `policy`, `run_dir`, `config`, and
    `log({...})` for values of your own. A hook that returns False stops training, after saving.
    What a hook raises ends training with a `CallbackError` that names the callback.
    """

    agent: Learner

    def on_training_start(self) -> bool | None:
        """Begin a call of `learn`; the run folder and the logger are open."""

    def on_rollout_end(self, rollout: Rollout) -> bool | None:
        """Look at what was collected, `[B, T]`, before the policy is updated with it."""

    def on_update(self, step: int, metrics: dict[str, float]) -> bool | None:
        """Look at an update before its metrics are logged; what is put into them is logged too.

        Args:
            step: environment steps done, summed over the environments.
            metrics: of this update, by name.
        """

    def on_training_end(self) -> None:
        """End a call of `learn` that was not cut off by an error."""

    def close(self) -> None:
        """Let go of what is open; called last, also after an error."""

"""The base of every agent: collect, update, log, checkpoint."""

import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor
from typing_extensions import Self

from xlstm_rl.agents.action_histograms import action_histograms
from xlstm_rl.agents.config import CheckpointConfig
from xlstm_rl.agents.device import torch_threads
from xlstm_rl.agents.optimization import gradient_step
from xlstm_rl.agents.setup import AgentSetup
from xlstm_rl.closing import Closing
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.config import ConfigError
from xlstm_rl.envs.faults.processes import close
from xlstm_rl.profiling import NO_PROFILE, Profile

_CLOCK_TICK = 1e-9
"""Seconds; on a coarse clock a rollout and its update may seem to take no time."""

OnUpdate = Callable[[int, dict[str, float]], bool | None]


class RecurrentAgent(AgentSetup, Closing):
    """An on-policy agent with a recurrent policy; `AgentSetup` explains the arguments.

    A context manager, which calls `close`.
    """

    _profile: Profile = NO_PROFILE

    @abstractmethod
    def update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Improve the policy on a rollout and return what to log."""

    def learn(
        self,
        total_steps: int | None = None,
        on_update: OnUpdate | None = None,
        *,
        horizon: int | None = None,
        profile: Profile | None = None,
    ) -> Self:
        """Train for `total_steps` more environment steps, in whole rollouts.

        The number of rollouts is rounded down, so that the budget is kept, but is at least one.
        What is left over counts in the next call. Schedules run over the agent's `total_steps`
        (100,000 unless it was made with another number), or to the end of this call where that is
        later. So ten calls of `learn(10_000)` equal one call of `learn(100_000)`, and a shorter
        training that is to reach the end of its schedules says so: `total_steps=` where the agent
        is made, or `horizon=` here. All calls until `close` log to the same place.

        Args:
            total_steps: environment steps, summed over the environments; None: the
                configuration's.
            on_update: called after each update with the steps done and the metrics; if it returns
                False, training is saved and stops.
            horizon: the number of steps done at which schedules reach their end, for this call.
            profile: measures where the time goes; None: nothing is measured.

        Raises:
            ConfigError: a number of steps is not an integer >= 1, or checkpoints are asked for
                and there is no run folder.
            TrainingError: a loss, an observation or a reward is not finite.
        """
        steps = self.config.total_steps if total_steps is None else total_steps
        rollouts = self._budget.start(self.steps_done, steps, horizon)
        self._profile = NO_PROFILE if profile is None else profile
        with torch_threads(self.config.threads):
            self._run.open_logger()
            if self.run_dir is None:
                self._refuse_checkpoints()
            if self._collector is None:
                self._collector = self._make_collector()
            for _ in range(rollouts):
                began = time.perf_counter()
                rollout = self._collector.collect(self._profile)
                self._prepare(rollout)
                metrics = self.update(rollout, self._budget.progress(self.steps_done))
                self.steps_done += self._budget.rollout
                self._episodes.add(rollout)
                metrics = {**self._episodes.metrics(), **metrics}
                elapsed = max(time.perf_counter() - began, _CLOCK_TICK)
                metrics["time/sps"] = self._budget.rollout / elapsed
                metrics |= self._profile.rollout(self._budget.rollout, elapsed)
                with self._profile.part("logging"):
                    if self._run.takes_histograms:
                        shown = action_histograms(self.policy, rollout)
                        self._run.histograms(self.steps_done, shown)
                    self._run.log(self.steps_done, metrics)
                    if self._checkpoint_is_due():
                        self._checkpoint()
                if on_update is not None and _is_false(on_update(self.steps_done, metrics)):
                    break
            self._checkpoint()
        return self

    def _descend(self, loss: Tensor, log: dict[str, Tensor]) -> None:
        """Take one gradient step; `log` holds the loss's parts and gets the gradient's norm."""
        limit = self.algorithm.max_grad_norm
        gradient_step(
            self.optimizer, self.parameters, loss, log, limit, self.steps_done, self._profile
        )

    def _refuse_checkpoints(self) -> None:
        """Refuse to train without the folder that checkpoints were asked for in."""
        every = self.config.checkpoint.every_steps
        if every not in (0, CheckpointConfig().every_steps):
            raise ConfigError(
                f"checkpoint.every_steps={every}: without a run folder no checkpoint is written; "
                "give run_dir, or a logger, which has one"
            )

    def _checkpoint_is_due(self) -> bool:
        """Return whether the last rollout crossed a multiple of `checkpoint.every_steps`."""
        every = self.config.checkpoint.every_steps
        before = self.steps_done - self._budget.rollout
        return bool(every) and self.steps_done // every > before // every

    def _checkpoint(self) -> None:
        if self.run_dir is not None:
            self._run.save(self.run_dir, self.policy, self.trainer_state())

    def _prepare(self, rollout: Rollout) -> None:
        """Scale the rewards and bring the running statistics up to date, after collecting."""
        data = rollout.data
        valid = None if rollout.all_valid() else data["valid"]
        self.policy.update_statistics(rollout.raw_observation, data["reward"], valid)
        if self.reward_normalizer is not None:
            reward = self.reward_normalizer(
                data["reward"].cpu(), data["reset"].cpu(), None if valid is None else valid.cpu()
            )
            data["reward"] = reward.to(self.device)

    @property
    def run_dir(self) -> Path | None:
        """The run folder, once there is one."""
        return self._run.folder

    def open_run(self) -> Path:
        """Make the run folder, unless it is there, and return it.

        `learn` does this by itself where there is a logger or a `run_dir`; without either, it
        writes nothing unless this was called.

        Raises:
            ConfigError: the folder exists; nothing in it is touched.
        """
        return self._run.open()

    def save(self, run_dir: str | Path) -> Path:
        """Write the policy and the trainer's state into a run folder and return it.

        The folder is new or empty, or one that this agent made before.

        Raises:
            ConfigError: the folder holds something else; nothing in it is touched.
        """
        return self._run.save(run_dir, self.policy, self.trainer_state())

    def close(self) -> None:
        """Close the logger and the environments; `learn` would open another logger."""
        try:
            self._run.close()
        finally:
            close(self.env)


def _is_false(answer: object) -> bool:
    """Return whether a callback answered False: NumPy's too, but no other empty value."""
    return isinstance(answer, bool | np.bool_) and not answer

"""The base of every agent: collect, update, log, checkpoint."""

import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

from typing_extensions import Self

from xlstm_rl.agents.device import torch_threads
from xlstm_rl.agents.setup import AgentSetup
from xlstm_rl.collection.collector import Collector, Rollout
from xlstm_rl.config import ConfigError
from xlstm_rl.seeding import reset_seed

OnUpdate = Callable[[int, dict[str, float]], None]


class RecurrentAgent(AgentSetup):
    """An on-policy agent with a recurrent policy; `AgentSetup` explains the arguments."""

    @abstractmethod
    def update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Improve the policy on a rollout and return what to log."""

    def learn(self, total_steps: int | None = None, on_update: OnUpdate | None = None) -> Self:
        """Train for `total_steps` more environment steps, in whole rollouts.

        The number of rollouts is rounded down, so that the budget is kept, but is at least one.

        Args:
            total_steps: environment steps, summed over the environments; None: the
                configuration's.
            on_update: called after each update with the steps done and the metrics.

        Raises:
            TrainingError: a loss, an observation or a reward is not finite.
        """
        total = self.config.total_steps if total_steps is None else total_steps
        if total < 1:
            raise ConfigError(f"total_steps={total}: expected 1 or more")
        try:
            with torch_threads(self.config.threads):
                self._run.open_logger()
                self._learn(total, on_update)
        finally:
            self._run.close()
        return self

    def _learn(self, total: int, on_update: OnUpdate | None) -> None:
        per_rollout = self.algorithm.rollout_steps * self.env.num_envs
        start, updates = self.steps_done, max(1, total // per_rollout)
        every = self.config.checkpoint.every_steps
        if self._collector is None:
            self._collector = self._make_collector()
        for done in range(updates):
            began = time.perf_counter()
            rollout = self._collector.collect()
            self._prepare(rollout)
            metrics = self.update(rollout, done / updates)
            self.steps_done = start + (done + 1) * per_rollout
            self._episodes.add(rollout)
            metrics = {**self._episodes.metrics(), **metrics}
            metrics["time/sps"] = per_rollout / (time.perf_counter() - began)
            self._run.log(self.steps_done, metrics)
            if every and self.steps_done // every > (self.steps_done - per_rollout) // every:
                self._run.save(self.policy, self.trainer_state())
            if on_update is not None:
                on_update(self.steps_done, metrics)
        self._run.save(self.policy, self.trainer_state())

    def _make_collector(self) -> Collector:
        return Collector(
            self.env,
            self.policy,
            self.algorithm.rollout_steps,
            self.algorithm.sequence_steps(),
            reset_seed(self.env, self.config.seed),
            self.sample_generator,
        )

    def _prepare(self, rollout: Rollout) -> None:
        """Scale the rewards and bring the running statistics up to date, after collecting."""
        data = rollout.data
        valid = None if rollout.all_valid() else data["valid"]
        self.policy.update_statistics(rollout.raw_observation, data["reward"], valid)
        if self.reward_normalizer is not None:
            done = data["terminated"] | data["truncated"]
            reward = self.reward_normalizer(
                data["reward"].cpu(), done.cpu(), None if valid is None else valid.cpu()
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
        return self._run.save_to(run_dir, self.policy, self.trainer_state())

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

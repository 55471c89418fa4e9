"""The base of every agent: collect, update, log, checkpoint."""

import time
from abc import abstractmethod
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from typing_extensions import Self

from xlstm_rl.agents.device import learning_threads
from xlstm_rl.agents.histograms import log_histograms
from xlstm_rl.agents.optimization import gradient_step
from xlstm_rl.agents.own_callbacks import own_callbacks
from xlstm_rl.agents.saving import SavingAgent
from xlstm_rl.callbacks.calls import CallbackCalls, Callbacks, OnUpdate, read_metrics
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.distributed.actors import ActorPool
from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.direct import DirectPass, direct_pass
from xlstm_rl.policy.structure import is_own
from xlstm_rl.profiling import NO_PROFILE, Profile
from xlstm_rl.runs.interruption import Interruption

_CLOCK_TICK = 1e-9  # seconds; on a coarse clock an update may seem to take no time


class RecurrentAgent(SavingAgent):
    """An on-policy agent: collects, updates, logs, saves. `AgentSetup` explains the arguments."""

    _profile: Profile = NO_PROFILE

    def __repr__(self) -> str:
        """Say in a few lines what trains, how far it is and where it writes."""
        config, where = self.config, f", run_dir={str(self.run_dir)!r}" if self.run_dir else ""
        return (
            f"{type(self).__name__}({config.env.id!r}, {self.steps_done:,} steps done{where},\n"
            f"    {config.memory}, {config.agent},\n"
            f"    {self.env.num_envs} environments, "
            f"{sum(one.numel() for one in self.parameters):,} weights on {self.device})"
        )

    @abstractmethod
    def update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Improve the policy on a rollout and return what to log."""

    def learn(
        self,
        total_steps: int | None = None,
        on_update: OnUpdate | None = None,
        *,
        callbacks: Callbacks = None,
        progress: bool = False,
        horizon: int | None = None,
        profile: Profile | None = None,
    ) -> Self:
        """Train for `total_steps` more environment steps, in whole rollouts.

        The number of rollouts is rounded down, so that the budget is kept, but is at least one.
        What is left over counts in the next call. Schedules run over the agent's `total_steps`
        (100,000 unless it was made with another number), or to the end of this call where that is
        later. So ten calls of `learn(10_000)` equal one call of `learn(100_000)`, and a shorter
        training that is to reach the end of its schedules says so: `total_steps=` where the agent
        is made, or `horizon=` there or here. All calls until `close` log to the same place.

        Args:
            total_steps: environment steps, summed over the environments; None: the
                configuration's.
            on_update: called after each update with the steps done and the metrics, before they are
                logged; if it returns False, training is saved and stops.
            callbacks: one or several `xlstm_rl.callbacks.Callback`, or functions such as
                `on_update`, which is called behind them.
            progress: show a bar, in a terminal or a notebook.
            horizon: the number of steps done at which schedules reach their end, for this call;
                None: the configuration's, if it has one.
            profile: measures where the time goes; None: nothing is measured.

        Raises:
            CallbackError: a callback raised.
            ConfigError: a number of steps is not an integer >= 1, or checkpoints are asked for
                and there is no run folder.
            TrainingError: a loss, an observation or a reward is not finite.
        """
        steps = self.steps_to_go() if total_steps is None else total_steps
        rollouts = self._budget.start(self.steps_done, steps, horizon)
        self._profile = NO_PROFILE if profile is None else profile
        last = self.steps_done + rollouts * self._budget.rollout
        own = []
        if self.ranks.is_first:
            own = own_callbacks(self.config, self._watch, last if progress else None)
        calls = CallbackCalls(self, own, callbacks, on_update)
        with (
            learning_threads(self.config.threads, self.policy.network),
            self._run.training(self._budget.asked, self._horizon()),
            Interruption() as interruption,
            self._logging_the_rest(),
            self._saved_on_error(interruption),
            calls,
        ):
            self._begin_together()
            if self._collector is None:
                self._collector = self._make_collector()
            continues = not self.ranks.any(not calls.training_start())
            for _ in range(rollouts if continues else 0):
                interruption.begin_update()
                began = time.perf_counter()
                self._is_untrained = True
                rollout = self._collector.collect(self._profile)
                self.ranks.share_episodes(rollout)
                continues = calls.rollout_end(rollout)
                self._prepare(rollout)
                with self.advantage_scale.kept_on_error():
                    metrics = self.update(rollout, self._budget.progress(self.steps_done))
                self.steps_done += self._budget.rollout
                self._is_untrained = False
                self._episodes.add(rollout)
                elapsed = max(time.perf_counter() - began, _CLOCK_TICK)
                speed = {"time/sps": self._budget.rollout / elapsed}
                profiled = self._profile.rollout(self._budget.rollout, elapsed)
                metrics = {**self._episodes.metrics(), **metrics, **speed, **rollout.metrics}
                metrics |= profiled
                number = self.steps_done // self._budget.rollout
                self._row.expect(self.steps_done, ChainMap(self._own_values, metrics), number)
                try:
                    continues = calls.update(self.steps_done, metrics) and continues
                finally:  # what was trained has its row, also where a callback raises
                    with self._profile.part("logging"):
                        step, row = self.steps_done, metrics | self._own_values
                        self._own_values = {}
                        if self._row.add(step, row, number):
                            log_histograms(self._run, step, self.policy, rollout, self._watch)
                            self._log_row()
                        self._save_if_due()
                interruption.end_update()
                if self.ranks.any(not continues or interruption.number is not None):
                    break
            calls.training_end()
            self._save_last()
            interruption.raise_if_asked()
        return self

    def log(self, values: Mapping[str, Any]) -> None:
        """Add values of your own to the metrics of the next update: of this one, in a callback.

        A row is the mean of `agent.log_interval` updates, of those that have the value.

        Args:
            values: numbers, or tensors and arrays of one element, by name, such as `my/score`.

        Raises:
            ValueError: a name is no string or is `step`, or a value is not one number.
        """
        self._own_values |= read_metrics(values)

    def _begin_together(self) -> None:
        """Refuse processes that differ, and checkpoints that were asked for without a folder."""
        self.ranks.refuse_differences(self._run.config)
        if self._collector is None:
            self.ranks.equalize(self.policy.state_dict().values())
        self._has_folder = self.ranks.from_first(self.run_dir is not None)
        if not self._has_folder:
            self.config.checkpoint.refuse_without_folder()

    def _ahead(self, epoch: int) -> None:
        """Tell actors, if there are any, that an epoch of the update begins."""
        if isinstance(self._collector, ActorPool):
            epochs = self.algorithm.epochs
            self._collector.ahead(epoch / epochs, (epoch + 1) / epochs)

    def _direct_pass(
        self, observation: Observation, tensors: StateTensors, reset: Tensor | None
    ) -> DirectPass | None:
        """Run sequences in no graph; None: the loss needs one that reaches to the weights."""
        # a gradient step of somebody's own knows no other way back than torch's
        if not is_own(self, RecurrentAgent, "_descend"):
            return None
        return direct_pass(self.policy.network, observation, tensors, reset)

    def _descend(
        self,
        loss: Tensor,
        log: dict[str, Tensor],
        valid: Tensor | None,
        backward: Callable[[Tensor], None] | None = None,
    ) -> None:
        """Take one gradient step on a minibatch with these valid steps (None: all are).

        `log` holds the loss's parts and gets the gradient's norm. `backward` differentiates a loss
        whose graph, if it has one, does not reach to the weights.
        """
        limit = self.algorithm.max_grad_norm
        gradient_step(
            *(self.optimizer, self.parameters, loss, log, limit, self.steps_done),
            *(self._profile, self.ranks, valid, backward),
        )

    def steps_to_go(self) -> int:
        """Return how many steps a call of `learn` without a number trains for.

        Raises:
            ConfigError: the run that was loaded is finished.
        """
        if self._origin is None:
            return self.config.total_steps
        return self._origin.steps_to_go(self.config.total_steps, self.steps_done, self._budget)

    def _horizon(self) -> int | None:
        """Return what the configuration of this training says of its schedules."""
        return None if self._budget.end == self._budget.asked else self._budget.end

    def _prepare(self, rollout: Rollout) -> None:
        """Scale the rewards and bring the running statistics up to date, after collecting."""
        data = rollout.data
        valid = None if rollout.all_valid() else data["valid"]
        with self.ranks.merging(self.policy, self.reward_normalizer):
            self.policy.update_statistics(rollout.raw_observation, data["reward"], valid)
            if self.reward_normalizer is not None:
                reward = self.reward_normalizer(
                    *(data["reward"].cpu(), data["reset"].cpu()),
                    None if valid is None else valid.cpu(),
                )
                data["reward"] = reward.to(self.device)

"""The base of every agent: collect, update, log, checkpoint."""

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import Self

from xlstm_rl.agents.arguments import TOP_OPTIONS, Environment
from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.agents.device import torch_threads
from xlstm_rl.agents.histograms import log_histograms
from xlstm_rl.agents.optimization import gradient_step
from xlstm_rl.agents.own_callbacks import own_callbacks
from xlstm_rl.agents.resuming import Saved, go_on
from xlstm_rl.agents.setup import AgentSetup
from xlstm_rl.callbacks.calls import CallbackCalls, Callbacks, OnUpdate, read_metrics
from xlstm_rl.closing import Closing, closed_on_error
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.envs.faults.processes import close
from xlstm_rl.errors import NonFiniteLossError
from xlstm_rl.profiling import NO_PROFILE, Profile
from xlstm_rl.runs.interruption import Interruption

_CLOCK_TICK = 1e-9  # seconds; on a coarse clock an update may seem to take no time


class RecurrentAgent(AgentSetup, Closing):
    """An on-policy agent; `AgentSetup` explains the arguments. A context manager, which closes."""

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

    @classmethod
    def load(
        cls,
        run: str | Path,
        environment: Environment = None,
        /,
        *,
        trust_code: bool = False,
        run_dir: str | None = None,
        **options: Any,
    ) -> Self:
        """Return an agent that trains on where a run stood, in the same folder.

        Optimiser, schedules, statistics, counters, random streams, memory states and, where the
        environments can hand over their state, open episodes go on as if nothing had been between:
        on a CPU to the bit. Otherwise new episodes begin, which one line says.

        `learn()` then trains for what is left of the run's `total_steps`.

        Args:
            run: a run folder, whose latest checkpoint is taken, or the folder of one checkpoint.
            environment: the callable or vector environment that the run was trained on, if it was
                one; or other environments with the same spaces.
            trust_code: import what the configuration names of other packages, and read what
                environments pickled: both may run any code.
            run_dir: a new folder for what follows; None: the run's own, where rows of the metrics
                after the checkpoint are dropped.
            options: those of the constructor that shall change, such as
                `agent={"learning_rate": 1e-4}`. Spaces, memory and networks cannot.

        Raises:
            CheckpointError: the checkpoint is missing, damaged, of another version, or names code.
            ConfigError: an option is wrong or cannot change, or the spaces are others.
        """
        saved = Saved.read(run, trust_code)
        top = {name: options.pop(name) for name in TOP_OPTIONS if name in options}
        config = saved.config_with(environment, {**top, "run_dir": run_dir}, options)
        return cls.going_on(saved, config, environment)

    @classmethod
    def going_on(cls, saved: Saved, config: TrainConfig, environment: Environment = None) -> Self:
        """Return an agent with the state of a checkpoint, and a configuration that fits it."""
        saved.check_environment(config, environment)
        agent = cls.__new__(cls)
        agent._setup(config, environment)
        is_ours = agent.env is not environment
        with closed_on_error(agent.close) if is_ours else nullcontext():
            go_on(agent, saved, config.run_dir)
        return agent

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
        is made, or `horizon=` here. All calls until `close` log to the same place.

        Args:
            total_steps: environment steps, summed over the environments; None: the
                configuration's.
            on_update: called after each update with the steps done and the metrics, before they are
                logged; if it returns False, training is saved and stops.
            callbacks: one or several `xlstm_rl.callbacks.Callback`, or functions such as
                `on_update`, which is called behind them.
            progress: show a bar, in a terminal or a notebook.
            horizon: the number of steps done at which schedules reach their end, for this call.
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
        own = own_callbacks(self.config, self._watch, last if progress else None)
        calls = CallbackCalls(self, own, callbacks, on_update)
        with (
            torch_threads(self.config.threads),
            self._run.training(self._budget.asked, self._horizon(horizon)),
            Interruption() as interruption,
            self._saved_on_error(interruption),
            calls,
        ):
            if self.run_dir is None:
                self.config.checkpoint.refuse_without_folder()
            if self._collector is None:
                self._collector = self._make_collector()
            continues = calls.training_start()
            for _ in range(rollouts if continues else 0):
                interruption.begin_update()
                began = time.perf_counter()
                rollout = self._collector.collect(self._profile)
                continues = calls.rollout_end(rollout)
                self._prepare(rollout)
                metrics = self.update(rollout, self._budget.progress(self.steps_done))
                self.steps_done += self._budget.rollout
                self._episodes.add(rollout)
                elapsed = max(time.perf_counter() - began, _CLOCK_TICK)
                speed = {"time/sps": self._budget.rollout / elapsed}
                profiled = self._profile.rollout(self._budget.rollout, elapsed)
                metrics = {**self._episodes.metrics(), **metrics, **speed, **profiled}
                try:
                    continues = calls.update(self.steps_done, metrics) and continues
                finally:  # what was trained has its row, also where a callback raises
                    with self._profile.part("logging"):
                        step = self.steps_done
                        log_histograms(self._run, step, self.policy, rollout, self._watch)
                        self._run.log(self.steps_done, metrics | self._own_values)
                        self._own_values = {}
                        if self._checkpoint_is_due():
                            self._run.save_if_possible(self.policy, self.trainer_state())
                interruption.end_update()
                if not continues or interruption.number is not None:
                    break
            calls.training_end()
            self.checkpoint()
            interruption.raise_if_asked()
        return self

    def log(self, values: Mapping[str, Any]) -> None:
        """Add values of your own to the next row of the metrics: of this update, in a callback.

        Args:
            values: numbers, or tensors and arrays of one element, by name, such as `my/score`.

        Raises:
            ValueError: a name is no string or is `step`, or a value is not one number.
        """
        self._own_values |= read_metrics(values)

    def _descend(self, loss: Tensor, log: dict[str, Tensor]) -> None:
        """Take one gradient step; `log` holds the loss's parts and gets the gradient's norm."""
        limit = self.algorithm.max_grad_norm
        gradient_step(
            self.optimizer, self.parameters, loss, log, limit, self.steps_done, self._profile
        )

    def steps_to_go(self) -> int:
        """Return how many steps a call of `learn` without a number trains for.

        Raises:
            ConfigError: the run that was loaded is finished.
        """
        if self._origin is None:
            return self.config.total_steps
        return self._origin.steps_to_go(self.config.total_steps, self.steps_done, self._budget)

    def _horizon(self, horizon: int | None) -> int | None:
        """Return what the configuration of this training says of its schedules."""
        asked, config = self._budget.asked, self.config
        end = horizon or config.horizon or max(config.total_steps, asked)
        return None if end == asked else int(end)

    @contextmanager
    def _saved_on_error(self, interruption: Interruption) -> Iterator[None]:
        """Save what was trained where the block raises: by an interrupt, a callback, anything."""
        try:
            yield
        except NonFiniteLossError:
            raise  # it would come again from there: what was saved before stays the newest
        except BaseException as error:
            is_asked = isinstance(error, KeyboardInterrupt) or interruption.number is not None
            is_new = self._run.saved_step != self.steps_done
            if is_new and (is_asked or self.steps_done):
                self._run.save_if_possible(self.policy, self.trainer_state())
            interruption.raise_if_asked()  # which ended processes of environments, say
            raise

    def _checkpoint_is_due(self) -> bool:
        """Return whether the last rollout crossed a multiple of `checkpoint.every_steps`."""
        every = self.config.checkpoint.every_steps
        before = self.steps_done - self._budget.rollout
        return bool(every) and self.steps_done // every > before // every

    def checkpoint(self) -> None:
        """Write a checkpoint into the run folder, if there is one."""
        if self.run_dir is not None:
            self._run.save(self.run_dir, self.policy, self.trainer_state())

    def save_best(self, evaluation: Mapping[str, Any]) -> None:
        """Write the policy and the trainer's state into `best/` of the run folder, if there is one.

        Args:
            evaluation: what `best/evaluation.json` says of it.
        """
        self._run.save_best(self.policy, self.trainer_state(), evaluation)

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

    def save(self, run_dir: str | Path, overwrite: bool = False) -> Path:
        """Write the policy and the trainer's state into a run folder and return it.

        Args:
            run_dir: a folder that is new or empty, or one that this agent made before.
            overwrite: replace a run that stands there, once this one is written; nothing but a run
                is ever replaced.

        Raises:
            ConfigError: the folder holds something else; nothing in it is touched.
            TrainingError: it cannot be written.
        """
        return self._run.save(run_dir, self.policy, self.trainer_state(), overwrite)

    def close(self) -> None:
        """Close the logger and the environments; `learn` would open another logger."""
        try:
            self._run.close()
        finally:
            close(self.env)

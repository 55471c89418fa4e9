"""What an agent leaves behind: its run folder, checkpoints, and the agent that goes on from one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from typing_extensions import Self

from xlstm_rl.agents.arguments import TOP_OPTIONS, Environment
from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.agents.resuming import Saved, go_on
from xlstm_rl.agents.setup import AgentSetup
from xlstm_rl.closing import Closing, closed_on_error
from xlstm_rl.distributed.actors import ActorPool
from xlstm_rl.envs.faults.processes import close
from xlstm_rl.errors import NonFiniteLossError, TrainingError
from xlstm_rl.options.arguments import user_path
from xlstm_rl.policy.policy import Policy
from xlstm_rl.runs.interruption import Interruption


class SavingAgent(AgentSetup, Closing):
    """The part of an agent that writes files and comes back from them.

    Of several processes the first one writes; the others hand it their state.
    """

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
            run: a run folder, whose latest checkpoint is taken, or the folder of one checkpoint; or
                `wandb:entity/project/artifact:alias`, which is fetched, with `run_dir`.
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
                # of this process alone: another one may have ended
                self._run.save_if_possible(self.policy, self.trainer_state())
            interruption.raise_if_asked()  # which ended processes of environments, say
            raise

    @contextmanager
    def _logging_the_rest(self) -> Iterator[None]:
        """Log what is gathered of a row where training ends, also by an error.

        A run that goes on from its checkpoint drops this row, and logs it when it is whole.
        """
        try:
            yield
        finally:
            self._log_row()

    def _log_row(self) -> None:
        row = self._row.take()
        if row is not None:
            self._run.log(*row)

    def _checkpoint_is_due(self) -> bool:
        """Return whether the last rollout crossed a multiple of `checkpoint.every_steps`."""
        every = self.config.checkpoint.every_steps
        before = self.steps_done - self._budget.rollout
        return bool(every) and self.steps_done // every > before // every

    def _save_if_due(self) -> None:
        """Write a checkpoint, if it is time; where that fails, say so in a line and go on."""
        if self._has_folder and self._checkpoint_is_due():
            state = self._state_of_all()
            self._run.save_if_possible(self.policy, state)

    def checkpoint(self) -> bool:
        """Write a checkpoint into the run folder, if there is one, and return whether it is there.

        Where it cannot be written, to a full disk, say, a line says so and nothing is raised. With
        several processes it is to be called on all of them.
        """
        return self._checkpoint(self._run.save_if_possible)

    def _save_last(self) -> None:
        """Write the checkpoint of the end.

        Raises:
            TrainingError: it cannot be written; what was saved before stands.
        """
        self._checkpoint(self._run.save_opened)

    def _checkpoint(self, write: Callable[[Policy, dict[str, Any]], bool]) -> bool:
        if not (self._has_folder if self.ranks.size > 1 else self.run_dir):
            return False
        is_written = write(self.policy, self._state_of_all())
        # none goes on before it is written: it may be there to load it
        return self.ranks.any(is_written)

    def _state_of_all(self) -> dict[str, Any]:
        """Return `trainer_state` with what the other processes hold of their own."""
        state = self.trainer_state()
        if self.ranks.size > 1:
            normalizer = self.reward_normalizer
            returns = {} if normalizer is None else normalizer.returns_state()
            own = {**self._streams(), "rewards": returns}
            state["ranks"] = self.ranks.gathered(own)[1:]
        return state

    def save_best(self, evaluation: Mapping[str, Any]) -> None:
        """Write the policy and the trainer's state into `best/` of the run folder, if there is one.

        Args:
            evaluation: what `best/evaluation.json` says of it.
        """
        self._run.save_best(self.policy, self.trainer_state(), evaluation)

    @property
    def run_dir(self) -> Path | None:
        """The run folder, once there is one; of several processes the first one has it."""
        return self._run.folder

    def open_run(self) -> Path:
        """Make the run folder, unless it is there, and return it.

        `learn` does this by itself where there is a logger or a `run_dir`; without either, it
        writes nothing unless this was called.

        Raises:
            ConfigError: the folder exists; nothing in it is touched.
            TrainingError: this process is not the first of several.
        """
        if not self.ranks.is_first:
            raise TrainingError(
                f"process {self.ranks.index} of {self.ranks.size} has no run folder: call open_run "
                "in process 0"
            )
        return self._run.open()

    def save(self, run_dir: str | Path, overwrite: bool = False) -> Path:
        """Write the policy and the trainer's state into a run folder and return it.

        Of several processes the first one writes, and its state alone.

        Args:
            run_dir: a folder that is new or empty, or one that this agent made before.
            overwrite: replace a run that stands there, once this one is written; nothing but a run
                is ever replaced.

        Raises:
            ConfigError: the folder holds something else; nothing in it is touched.
            TrainingError: it cannot be written.
        """
        if not self.ranks.is_first:
            return user_path(run_dir)
        return self._run.save(run_dir, self.policy, self.trainer_state(), overwrite)

    def close(self) -> None:
        """Close logger, environments and actors; `learn` would open another logger."""
        try:
            self._run.close()
        finally:
            if isinstance(self._collector, ActorPool):
                self._collector.close()
                self._collector = None
            close(self.env)

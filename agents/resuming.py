"""From a checkpoint to the agent that goes on from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlstm_rl.agents.arguments import Environment, Section, merged
from xlstm_rl.agents.changes import (
    FIXED_SECTIONS,
    paths_of,
    refuse_changes,
    without_exchanged_kinds,
)
from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.agents.origin import Origin
from xlstm_rl.config import ConfigError, config_from_dict
from xlstm_rl.distributed import current_ranks
from xlstm_rl.envs.config import is_custom
from xlstm_rl.envs.spaces.leaves import space_leaves
from xlstm_rl.envs.spaces.support import same_spaces
from xlstm_rl.errors import CheckpointError
from xlstm_rl.options.arguments import user_path
from xlstm_rl.options.section import accepting_unused, dropping_unused
from xlstm_rl.runs.checkpoint import (
    load_weights,
    read_description,
    refuse_absurd_sizes,
    spaces_of,
)
from xlstm_rl.runs.folder import LATEST, latest_checkpoint, run_of
from xlstm_rl.runs.lock import refuse_running
from xlstm_rl.runs.loggers.wandb_artifacts import local_folder
from xlstm_rl.runs.trainer_state import TRAINER_FILE, read_trainer_state
from xlstm_rl.runs.trust import refuse_foreign_code

if TYPE_CHECKING:
    from xlstm_rl.agents.saving import SavingAgent


_BEFORE_THERE_WERE = {
    "entropy_coef_end": 1.0,
    "advantage_scale_decay": 0.0,
    "log_barrier_coef": 0.0,
    "step_baseline": False,
}
"""Options of algorithms that older runs did not have, and what is like having none.

Their defaults are for new runs: one that goes on keeps the objective that it was trained with."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint with a trainer's state: read, checked, and nothing in it run."""

    checkpoint: Path
    state: dict[str, Any]
    config: dict[str, Any]
    """The configuration it was trained with, as plain data."""
    trust_code: bool

    @classmethod
    def read(cls, run: str | Path, trust_code: bool = False) -> "Saved":
        """Read a checkpoint of a run folder, or one checkpoint's folder, or a W&B artifact.

        Raises:
            CheckpointError: it is missing, damaged, of another version, or names code.
            ConfigError: a process trains in the run folder.
        """
        path = user_path(local_folder(run))
        if path.is_dir() and current_ranks().is_first:  # which holds the lock for all of them
            refuse_running(run_of(path))
        folder = latest_checkpoint(path)
        description = read_description(folder, trust_code)
        refuse_absurd_sizes(description, folder)
        state = read_trainer_state(folder)
        config = state["config"]
        if not isinstance(config, dict) or not isinstance(config.get("env"), dict):
            raise CheckpointError(
                f"{folder / TRAINER_FILE}: holds no configuration; load another checkpoint"
            )
        for section in FIXED_SECTIONS:
            if config.get(section) != description[section]:
                raise CheckpointError(
                    f"{folder}: {TRAINER_FILE} and policy.yaml differ in `{section}`: one of the "
                    "two was altered; load another checkpoint of the run"
                )
        refuse_foreign_code(config, folder / TRAINER_FILE, trust_code)
        if isinstance(config.get("agent"), dict):
            config = {**config, "agent": {**_BEFORE_THERE_WERE, **config["agent"]}}
        return cls(folder, state, {**config, "run_dir": None}, trust_code)

    @property
    def steps_done(self) -> int:
        """The environment steps that were trained for."""
        return int(self.state["steps_done"])

    def config_with(
        self, environment: Environment, top: Mapping[str, Any], sections: Mapping[str, Section]
    ) -> TrainConfig:
        """Return the configuration with other options, given as for an agent's constructor.

        Raises:
            ConfigError: an option is wrong, or one that a trained run cannot change.
            CheckpointError: the saved configuration is not one of this version.
        """
        before = self._read(self.config)
        given = {name: one for name, one in sections.items() if isinstance(one, Mapping)}
        values = merged(without_exchanged_kinds(self.config, given), environment, top, sections)
        asked_for = paths_of(given)
        with dropping_unused(asked_for):
            config = config_from_dict(TrainConfig, values)
        refuse_changes(before, config, asked_for)
        return config

    def trained_config(self) -> TrainConfig:
        """Return the configuration it was trained with."""
        return self._read(self.config)

    def _read(self, config: Mapping[str, Any]) -> TrainConfig:
        try:
            with accepting_unused():
                return config_from_dict(TrainConfig, config)
        except ConfigError as error:
            raise CheckpointError(
                f"{self.checkpoint / TRAINER_FILE}: its configuration is not one of this version: "
                f"{error}"
            ) from error

    def check_environment(self, config: TrainConfig, environment: Environment) -> None:
        """Refuse to go on without the callable that made the environments."""
        if is_custom(config.env.id) and (environment is None or isinstance(environment, str)):
            raise ConfigError(
                f"{self.checkpoint}: trained on {config.env.id}, which is not saved: pass the "
                "callable or the vector environment again, in Python: load(run, environment)"
            )


def go_on(agent: "SavingAgent", saved: Saved, run_dir: str | None) -> None:
    """Bring an agent that was just made into the state of a checkpoint.

    Args:
        agent: with the configuration of the checkpoint, but for what may change.
        saved: the checkpoint.
        run_dir: a new folder for what follows; None: that of the run.

    Raises:
        CheckpointError: the checkpoint does not fit together.
        ConfigError: the environments have other spaces, or the run goes on from a checkpoint that
            is not its newest.
    """
    folder = saved.checkpoint
    spaces = spaces_of(read_description(folder, saved.trust_code), folder)
    for kind, space in spaces.items():
        difference = same_spaces(space, getattr(agent.policy, kind))
        if difference is not None:
            raise ConfigError(
                f"{folder}: the environment's {kind} is not the one of the run (run's against "
                f"environment's): {difference}"
            )
        ours, theirs = (
            [leaf.name for leaf in space_leaves(one)]
            for one in (space, getattr(agent.policy, kind))
        )
        if ours != theirs:  # weights lie in this order
            raise ConfigError(
                f"{folder}: the environment's {kind} has the keys of the run in another order "
                f"({', '.join(theirs)}): give them in the run's, {', '.join(ours)}"
            )
    load_weights(agent.policy, folder)
    try:
        agent.load_trainer_state(saved.state, Origin(folder, saved.state, saved.trust_code))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder / TRAINER_FILE}: does not fit the policy beside it, or was altered "
            f"({type(error).__name__}: {error})"
        ) from error
    if run_dir is None:
        agent.go_on_in(_own_run(folder), saved.state)


def _own_run(checkpoint: Path) -> Path:
    run = run_of(checkpoint)
    if run == checkpoint:
        raise ConfigError(
            f"{checkpoint}: this checkpoint lies in no run folder; give run_dir (--run-dir), a "
            "folder for the rest of the run"
        )
    newest = latest_checkpoint(run)
    if newest != checkpoint.resolve() and not newest.samefile(checkpoint):
        raise ConfigError(
            f"{checkpoint}: the run has a newer checkpoint, {newest.name}; to go on from this one, "
            "give run_dir (--run-dir), a folder of its own"
        )
    pointer = run / LATEST
    if pointer.is_dir():  # found at the first save otherwise, after hours
        raise ConfigError(
            f"{pointer}: is a folder, expected a file that names a checkpoint: move it away"
        )
    return run

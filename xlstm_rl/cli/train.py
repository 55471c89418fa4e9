"""`xlstm-rl train`."""

import dataclasses
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xlstm_rl.agents import TrainConfig, make_agent
from xlstm_rl.cli.options import read_options, refusing_bad_input
from xlstm_rl.cli.pipes import PIPE_CLOSED, say
from xlstm_rl.cli.processes import Processes, started_processes
from xlstm_rl.closing import closed_on_error
from xlstm_rl.config import FLAG_ONLY, ConfigError, config_to_dict, find_config
from xlstm_rl.config.errors import one_line
from xlstm_rl.errors import NonFiniteLossError, TrainingError
from xlstm_rl.runs.announcing import Announcing
from xlstm_rl.runs.signals import Stopped, stopped_once
from xlstm_rl.terminal import tell

if TYPE_CHECKING:
    from xlstm_rl.agents import RecurrentAgent

_STOPPED = {128 + signal.SIGINT: "interrupted; ", 128 + signal.SIGTERM: "terminated; "}

FIRST_PAGE = (
    *("config", "seed", "total_steps", "device", "run_dir"),
    *("env.id", "env.num_envs", "memory.kind", "memory.pattern", "memory.width"),
    *("agent.algo", "agent.rollout_steps", "agent.epochs", "agent.minibatches"),
    *("agent.learning_rate", "agent.gamma", "agent.clip", "agent.entropy_coef"),
    *("logger.kind", "checkpoint.every_steps"),
)
"""The options that `--help` shows; `--help all` shows every one."""


@dataclass(frozen=True)
class TrainOptions(TrainConfig):
    """Train an agent and keep everything about the run in one folder.

    Without options: recurrent PPO with an xLSTM memory on CartPole without velocities. An option
    given here beats the one in --config, which beats the default.
    """

    # No --config means the library's own defaults, not some configuration's: so the same options
    # mean the same run here and in Python, and another --env.id inherits no other task's tuning.
    # A test keeps configs/cartpole_novel.yaml equal to those defaults.
    config: str | None = field(default=None, metadata=FLAG_ONLY)
    """A configuration's name (`xlstm-rl list configs`) or a YAML file."""

    profile: bool = field(default=False, metadata=FLAG_ONLY)
    """Measure where the time goes: a table at the end, and `profile/...` in the metrics."""


def run(args: Sequence[str]) -> int:
    """Train, and say where the run is and how to evaluate it."""
    with started_processes() as processes:
        options = processes.same(
            lambda: read_options(TrainOptions, args, "train", _config_file(args), FIRST_PAGE)
        )
        values = {one.name: getattr(options, one.name) for one in dataclasses.fields(TrainConfig)}
        config = TrainConfig(**values)
        processes.refuse_differences(config)
        backend, agent = processes.same(
            lambda: _make(config, processes), undo=lambda made: made[1].close()
        )
        if not processes.is_first:
            return train_quietly(agent)
        rollout = config.env.num_envs * agent.config.agent.rollout_length * processes.size
        first = f"collecting the first {rollout:,} steps"
        return train(agent, config.total_steps, options.profile, backend, first)


def _make(config: TrainConfig, processes: Processes) -> "tuple[str, RecurrentAgent]":
    """Return a line on the memory's backend, and the agent, which has a run folder."""
    if not processes.is_first:
        with refusing_bad_input():
            return "", make_agent(config)
    with refusing_bad_input():
        with Announcing("loading PyTorch"):
            backend = _memory_backend(config)
        several = "" if processes.size == 1 else f" in each of {processes.size} processes"
        with Announcing(f"making {config.env.num_envs} environments of {config.env.id}{several}"):
            agent = make_agent(config)
        # Whoever trains from the command line wants the policy afterwards, logger or not.
        with closed_on_error(agent.close):
            agent.open_run()
    return backend, agent


def train(
    agent: "RecurrentAgent",
    total_steps: int,
    measured: bool,
    headline: str | None = None,
    first: str = "collecting the first rollout",
) -> int:
    """Train an agent that has a run folder, show how it goes, and say where the run is.

    Args:
        agent: it is closed at the end.
        total_steps: of the whole run.
        measured: print where the time went.
        headline: a line to show first.
        first: what happens before the first update, said where it takes long.

    Returns:
        The exit status.
    """
    from xlstm_rl.cli.slow import slow_images
    from xlstm_rl.profiling import Profile
    from xlstm_rl.runs.progress import TrainingProgress

    status, folder = 0, agent.open_run()
    profile = Profile(agent.device) if measured else None
    try:
        with stopped_once():
            try:
                with TrainingProgress(
                    total_steps,
                    headline=headline,
                    steps_done=agent.steps_done,
                    first=first,
                    advice=partial(slow_images, agent),
                ) as progress:
                    agent.learn(on_update=progress.update, profile=profile)
                if progress.is_unread:
                    status = PIPE_CLOSED
            except KeyboardInterrupt as stop:
                status = _stop_status(stop)
    finally:
        # The signal may have reached the environments' processes too.
        with suppress(Exception) if status else nullcontext():
            agent.close()
    if profile is not None:
        from xlstm_rl.agents.floors import product_floors

        profile.set_floors(product_floors(agent))
        say(profile.table())
    if status:
        say(f"{_STOPPED.get(status, '')}{_where(folder, agent.config, 'resume')}")
    else:
        tell(_where(folder, agent.config), sys.stdout)
    return status


def train_quietly(agent: "RecurrentAgent") -> int:
    """Train in a process that is not the first of several, which says what there is to say."""
    status = 0
    try:
        try:
            with stopped_once():
                agent.learn()
        except KeyboardInterrupt as stop:
            status = _stop_status(stop)
        except NonFiniteLossError:  # of all processes at once: the first one says it
            status = 1
        except TrainingError as error:
            where = f"process {agent.ranks.index} of {agent.ranks.size}: "
            line = one_line(error)
            raise type(error)(line if line.startswith(where) else where + line) from error
    finally:
        with suppress(Exception) if status else nullcontext():
            agent.close()
    return status


def _stop_status(stop: KeyboardInterrupt) -> int:
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


def _config_file(args: Sequence[str]) -> Path | None:
    """The file of the last `--config`, which is needed before the other options can be read."""
    name: str | None = None
    for index, word in enumerate(args):
        if word.startswith("--config="):
            name = word.partition("=")[2]
        elif word == "--config":
            name = args[index + 1] if index + 1 < len(args) else None
    return None if name is None or name.startswith("--") else find_config(name)


def _memory_backend(config: TrainConfig) -> str:
    """Say on which backend the memory runs, and on a CPU why it is not the native one."""
    from xlstm_rl.agents.device import resolve_device, torch_threads
    from xlstm_rl.kernels import backends

    device = resolve_device(config.device)
    with torch_threads(config.threads):
        known = backends(device)
    asked = getattr(config.memory, "backend", None)
    if asked is None:
        return f"memory: {config.memory.kind} on {known['torch'].about}"
    taken = known["auto"].about if asked == "auto" else asked
    if not known[taken].runs:
        raise ConfigError(f"memory.backend={taken} cannot run here: {known[taken].about}")
    line = f"memory: {config.memory.kind} on the {taken} backend ({known[taken].about})"
    if taken == "native" or device.type != "cpu":
        return line
    reason = f"memory.backend={asked}" if known["native"].runs else known["native"].about
    return f"{line}; not native: {reason}"


def _where(folder: Path, config: TrainConfig, command: str = "eval") -> str:
    from xlstm_rl.runs.trust import foreign_names

    trust = " --trust-code" if foreign_names(config_to_dict(config)) else ""
    return f"saved in {folder}; next: xlstm-rl {command} {shlex.quote(str(folder))}{trust}"

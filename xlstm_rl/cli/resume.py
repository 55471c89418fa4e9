"""`xlstm-rl resume`."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from xlstm_rl.agents import TrainConfig, agent_class
from xlstm_rl.agents.changes import paths_of, refuse_changes, without_exchanged_kinds
from xlstm_rl.cli.options import read_options, refusing_bad_input
from xlstm_rl.cli.processes import started_processes
from xlstm_rl.cli.train import train, train_quietly
from xlstm_rl.closing import closed_on_error
from xlstm_rl.config import FLAG_ONLY, config_from_dict, parse_config
from xlstm_rl.config.settings import settings_from_args
from xlstm_rl.options.section import dropping_unused

if TYPE_CHECKING:
    from xlstm_rl.agents import RecurrentAgent


@dataclass(frozen=True, kw_only=True)
class ResumeOptions(TrainConfig):
    """Train on where a run stood, in its folder, as if it had not been interrupted.

    Options that are not given are those of the run. Spaces, memory, networks and seed cannot
    change; a larger --total-steps trains a finished run on.
    """

    run: Annotated[Positional[str], arg(metavar="RUN")] = field(metadata=FLAG_ONLY)
    """A run folder, or its latest checkpoint; with --run-dir any checkpoint."""

    trust_code: bool = field(default=False, metadata=FLAG_ONLY)
    """Import what the run names of other packages (module:Name), and read what its environments
    pickled: both may run any code."""

    profile: bool = field(default=False, metadata=FLAG_ONLY)
    """Measure where the time goes: a table at the end, and `profile/...` in the metrics."""


def run(args: Sequence[str]) -> int:
    """Go on with a run, and say where it is."""
    given = {one.path: one.value for one in settings_from_args(ResumeOptions, args)}
    if ("run",) not in given or {"-h", "--help"} & set(args):
        read_options(ResumeOptions, args, "resume")
    with started_processes() as processes:
        options, agent = processes.same(
            lambda: _load(args, given), undo=lambda made: made[1].close()
        )
        if not processes.is_first:
            return train_quietly(agent)
        return train(agent, agent.config.total_steps, options.profile)


def _load(
    args: Sequence[str], given: dict[tuple[str, ...], Any]
) -> "tuple[ResumeOptions, RecurrentAgent]":
    """Return the options and the agent that goes on, which has a run folder."""
    from xlstm_rl.agents.resuming import Saved  # not needed for the help

    with refusing_bad_input():
        trust_code = given.get(("trust_code",), ["false"]) in ([], ["true"])
        saved = Saved.read(given["run",][0], trust_code)
        before = saved.trained_config()
        options, asked_for = _changed(saved.config, args, given)
        values: dict[str, Any] = {
            one.name: getattr(options, one.name) for one in dataclasses.fields(TrainConfig)
        }
        config = config_from_dict(TrainConfig, values)
        refuse_changes(before, config, asked_for)
        agent = agent_class(config).going_on(saved, config)
        with closed_on_error(agent.close):
            agent.steps_to_go()  # refused before a folder is made, where none is left
            if agent.ranks.is_first:
                agent.open_run()
    return options, agent


def _changed(
    before: Mapping[str, Any], args: Sequence[str], given: Mapping[tuple[str, ...], Any]
) -> tuple[ResumeOptions, set[str]]:
    """Return the options of a run with those that are given, and the paths of these."""
    sections: dict[str, dict[str, Any]] = {}
    for path, words in given.items():
        if len(path) > 1:
            sections.setdefault(path[0], {})[path[1]] = ",".join(words)
    asked_for = paths_of(sections)
    with dropping_unused(asked_for):
        return parse_config(
            ResumeOptions, args, without_exchanged_kinds(before, sections)
        ), asked_for

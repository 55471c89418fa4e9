"""`xlstm-rl compare`."""

import math
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xlstm_rl.agents import TrainConfig
from xlstm_rl.cli.options import read_options, refusing_bad_input
from xlstm_rl.cli.pipes import say
from xlstm_rl.cli.tables import table
from xlstm_rl.config import FLAG_ONLY, ConfigError, find_config, parse_config
from xlstm_rl.config.settings import Setting, as_flag, settings_from_args
from xlstm_rl.options.arguments import user_path
from xlstm_rl.options.fields import Count, Seed, own_fields
from xlstm_rl.terminal import tell, terminal_width

if TYPE_CHECKING:
    from xlstm_rl.comparing.job import Job

FIRST_PAGE = (
    *("config", "memories", "seeds", "out", "match", "jobs", "episodes", "threshold"),
    *("total_steps", "env.id", "memory.width", "agent.gamma"),
)
"""The options that `--help` shows; `--help all` shows every one."""


@dataclass(frozen=True)
class CompareOptions(TrainConfig):
    """Train several memories with several seeds, evaluate them and put them into one table.

    Options of training given here hold for every run. A run that is finished is not repeated: the
    same command goes on where it was stopped.
    """

    config: tuple[str, ...] = field(default=(), metadata=FLAG_ONLY)
    """Configurations, by name or file: each is a case of its own. None: the defaults."""

    memories: tuple[str, ...] = field(default=(), metadata=FLAG_ONLY)
    """Kinds of memory with options, such as `xlstm:pattern=ms,width=64 lstm gru`; the others are
    compared with the first. None: the one of the configuration."""

    seeds: Count = field(default=3, metadata=FLAG_ONLY)
    """Runs of each memory, with the seeds from --seed on."""

    out: str | None = field(default=None, metadata=FLAG_ONLY)
    """Folder of the runs and of the tables."""

    match: Literal["parameters"] | None = field(default=None, metadata=FLAG_ONLY)
    """parameters: each memory gets the width at which the policy has as many weights as with the
    first one."""

    jobs: Count | None = field(default=None, metadata=FLAG_ONLY)
    """Runs at once. None: as many as there are processors."""

    episodes: Count = field(default=100, metadata=FLAG_ONLY)
    """Episodes that each policy is evaluated in."""

    evaluation_seed: Seed = field(default=0, metadata=FLAG_ONLY)
    """Seed of those episodes."""

    stochastic: bool = field(default=False, metadata=FLAG_ONLY)
    """Evaluate with sampled actions instead of the most probable ones."""

    threshold: float | None = field(default=None, metadata=FLAG_ONLY)
    """Return whose steps are looked for. None: the one that the environment is registered with."""


@dataclass(frozen=True)
class Prepared:
    """A comparison that was checked, and not begun."""

    options: CompareOptions
    jobs: "list[Job]"
    out: Path
    thresholds: dict[str, float | None]


def run(args: Sequence[str]) -> int:
    """Run the comparison, print its table and say where the rest is."""
    if {"-h", "--help"} & set(args):
        read_options(CompareOptions, args, "compare", None, FIRST_PAGE)
    prepared = prepare(args)
    from xlstm_rl.comparing.compare import compare, is_complete, write_report

    try:
        report = compare(prepared.jobs, prepared.out, prepared.options.jobs, prepared.thresholds)
    except KeyboardInterrupt as stop:
        say("interrupted; the runs are saved, and the same command goes on")
        return 128 + getattr(stop, "number", signal.SIGINT)
    try:
        print(table(*report.table(), left=2, width=terminal_width()), flush=True)
        for line in [*report.notes, *report.missing]:
            say(line)
    finally:  # written also where nobody reads the table, shown also where it cannot be written
        written = write_report(report, prepared.out)
    tell(f"wrote {written[-1]}", sys.stdout)
    return 0 if is_complete(report) else 1


def prepare(args: Sequence[str]) -> Prepared:
    """Read the words of the command and make its runs, without starting one.

    Raises:
        ConfigError: they are wrong, or do not fit what stands in the folder.
    """
    own, training = _apart(args)
    options = read_options(CompareOptions, own, "compare")
    if options.out is None:
        raise ConfigError("--out is missing: give the folder of the comparison")
    from xlstm_rl.comparing.contenders import configured, read_contenders
    from xlstm_rl.comparing.plan import Case, make_jobs, threshold_of

    cases = [Case(name, config) for name, config in _cases(options.config, training)]
    own_memories = [configured(case.config.memory.kind for case in cases)]
    contenders = read_contenders(options.memories) or own_memories
    given = options.threshold
    if given is not None and not math.isfinite(given):
        raise ConfigError(f"--threshold {given:g}: expected a finite number")
    if given is not None and len(cases) > 1:
        raise ConfigError(f"--threshold {given:g}: expected one configuration, got {len(cases)}")
    first = cases[0].config.seed
    evaluation = {
        "episodes": options.episodes,
        "seed": options.evaluation_seed,
        "deterministic": not options.stochastic,
    }
    seeds = range(first, first + options.seeds)
    out = user_path(options.out)
    with refusing_bad_input():
        jobs = make_jobs(cases, contenders, seeds, out, evaluation, options.match)
    thresholds = {
        case.name: threshold_of(case.config.env) if given is None else given for case in cases
    }
    return Prepared(options, jobs, out, thresholds)


def _apart(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of the options of `compare`, and those of the options of training."""
    shared = own_fields(TrainConfig)
    own: list[str] = []
    training: list[str] = []
    for one in settings_from_args(CompareOptions, args):
        if one.path == ("run_dir",):
            raise ConfigError("--run-dir: leave it out, every run gets a folder in --out")
        # what is not known here may be an option of a kind that is imported when it is read
        (training if one.path[0] in shared else own).extend(_words(one))
    return own, training


def _words(setting: Setting) -> list[str]:
    return [as_flag(".".join(setting.path)), *setting.value]


def _cases(names: Sequence[str], training: Sequence[str]) -> list[tuple[str, TrainConfig]]:
    if not names:
        config = parse_config(TrainConfig, training)
        return [(config.env.id.rpartition("/")[2], _logged(config))]
    files = [find_config(name) for name in names]
    stems = [file.stem for file in files]
    for name, stem in zip(names, stems, strict=True):
        if stems.count(stem) > 1:
            raise ConfigError(f"--config {name}: another file is named {stem} too: rename one")
    configs = [parse_config(TrainConfig, training, file) for file in files]
    return list(zip(stems, map(_logged, configs), strict=True))


def _logged(config: TrainConfig) -> TrainConfig:
    """Keep the metrics of runs, which the table is made of, in no folder of another run."""
    config = replace(config, run_dir=None)  # a run's own configuration names its folder
    if config.logger.kind != "none":
        return config
    from xlstm_rl.runs.loggers.config import LoggerConfig

    return replace(config, logger=LoggerConfig(kind="csv"))

"""Which runs a comparison is made of, and whether they fit what stands in its folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.agents.device import resolve_device
from xlstm_rl.comparing.contenders import Contender
from xlstm_rl.comparing.job import Job
from xlstm_rl.comparing.sizes import PolicySizes, matching_width
from xlstm_rl.config import ConfigError, config_to_dict
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.registration import find_spec

Match = Literal["parameters"]


@dataclass(frozen=True)
class Case:
    """What is learned: a name and a configuration."""

    name: str
    config: TrainConfig


def make_jobs(
    cases: Sequence[Case],
    contenders: Sequence[Contender],
    seeds: Sequence[int],
    out: Path,
    evaluation: dict[str, Any],
    match: Match | None = None,
) -> list[Job]:
    """Return a job for each case, contender and seed: of every one the first seed, then the next.

    So what is interrupted has about as many seeds of each.

    Args:
        cases: what is learned.
        contenders: with which memory.
        seeds: of the runs.
        out: the folder `<case>/<memory>/seed<n>` is made in.
        evaluation: arguments of `evaluate`.
        match: `parameters`: every memory gets the width at which the policy has about as many
            weights as with the first one.

    Raises:
        ConfigError: an option does not fit a memory, there is no such device, an environment
            cannot be made, or another run stands in the folder of one.
    """
    jobs = []
    for case in cases:
        resolve_device(case.config.device)  # refused here, not in each of the processes
        try:
            sizes = PolicySizes(case.config.env)
        except ValueError as error:
            raise ConfigError(f"{case.name}: {error}") from error
        target: int | None = None
        for contender in contenders:
            memory = contender.memory(case.config.memory)
            if match is not None and target is not None:
                if "width" in contender.options:
                    raise ConfigError(
                        f"--memories {contender.text}: its width follows from --match {match}: "
                        "leave one of the two out"
                    )
                width = _matched(case, contender, sizes, target)
                memory = contender.memory(case.config.memory, width)
            config = sizes.resolved(replace(case.config, memory=memory))
            weights = sizes.count(config)
            target = weights if target is None else target
            for seed in seeds:
                folder = out / case.name / contender.folder / f"seed{seed}"
                one = replace(config, seed=seed, run_dir=str(folder))
                plain = config_to_dict(one)
                names = case.name, contender.text
                jobs.append(Job(*names, seed, folder, plain, evaluation, memory.width, weights))
    for job in jobs:
        difference = job.difference()
        if difference is not None:
            raise ConfigError(
                f"{job.folder}: holds a run with other options ({difference}); choose another "
                "--out, or give the options of that run"
            )
    return sorted(jobs, key=lambda job: seeds.index(job.seed))  # stable: else in their order


def _matched(case: Case, contender: Contender, sizes: PolicySizes, target: int) -> int:
    own = case.config.memory

    def count(width: int) -> int | None:
        try:
            memory = contender.memory(own, width)
        except ConfigError:  # heads do not divide it, say
            return None
        return sizes.count(replace(case.config, memory=memory))

    try:
        return matching_width(count, target)
    except ConfigError as error:
        raise ConfigError(f"--match parameters: {contender.text}: {error}") from None


def threshold_of(env: EnvConfig) -> float | None:
    """Return the return at which an environment counts as solved; None: nobody says."""
    try:
        return find_spec(env.id).reward_threshold
    except ValueError:  # an id of EnvPool, say
        return None

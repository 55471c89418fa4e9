"""`xlstm-rl eval`."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from xlstm_rl.cli.options import read_options, refusing_bad_input
from xlstm_rl.cli.pipes import say
from xlstm_rl.cli.tables import table
from xlstm_rl.config import ConfigError
from xlstm_rl.files import replacing
from xlstm_rl.options.arguments import user_path
from xlstm_rl.runs.folder import latest_checkpoint, run_of
from xlstm_rl.runs.loggers.wandb_artifacts import local_folder
from xlstm_rl.terminal import terminal_width, wrapped

if TYPE_CHECKING:
    from xlstm_rl.evaluation import EvaluationResult
    from xlstm_rl.policy import Policy

    Played = tuple[dict[str, Any], EvaluationResult]
    """What is written down of an evaluation, and the evaluation."""


@dataclass(frozen=True)
class EvalEnvironment:
    """Where the policy is evaluated."""

    id: str | None = None
    """Gymnasium id; none: the environment that it was trained on."""


@dataclass(frozen=True)
class EvalOptions:
    """Play whole episodes with trained policies and report their returns.

    One run gives a line, several a table. The result is also written to eval.json in each run
    folder.
    """

    run: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN...")]
    """Run folders, or single checkpoints in them."""

    episodes: int = 20
    """How many episodes."""

    seed: int = 0
    """Seed of the episodes, which are none of training's."""

    max_episode_steps: int | None = None
    """Truncate episodes after so many steps, counted below training's wrappers; none: the limit of
    training, or the registered one."""

    stochastic: bool = False
    """Sample actions instead of taking the most probable one."""

    both: bool = False
    """Play with the most probable actions, and again with sampled ones."""

    video: str | None = None
    """Folder for a video (mp4) of every episode (needs the extra `video`)."""

    wandb: bool = False
    """Add the result, and the videos, to the W&B run that the training was logged in, or to a new
    one."""

    json: bool = False
    """Print JSON and nothing else: an object, or a list of them where there are several results."""

    trust_code: bool = False
    """Import what the run names of other packages (module:Name), which may run any code."""

    env: EvalEnvironment = field(default_factory=EvalEnvironment)


def run(args: Sequence[str]) -> int:
    """Evaluate, print the results and write them into the run folders."""
    options = read_options(EvalOptions, args, "eval")
    if options.both and options.stochastic:
        raise ConfigError("--both with --stochastic: give one of the two")
    checkpoints = [latest_checkpoint(local_folder(name)) for name in options.run]
    modes = (True, False) if options.both else (not options.stochastic,)
    many = len(checkpoints) * len(modes) > 1
    played: list[tuple[str, Played]] = []
    unwritten: list[str] = []
    with refusing_bad_input(), redirect_stdout(sys.stderr):
        policies = _load(options, checkpoints)
    try:
        for number, (checkpoint, policy) in enumerate(zip(checkpoints, policies, strict=True)):
            name = options.run[number]
            if len(checkpoints) > 1 and sys.stderr.isatty():
                say(f"{name} ({number + 1} of {len(checkpoints)})", sys.stderr)
            found: list[Played] = []
            # Video writers and environments print; --json promises to print nothing but the result.
            with refusing_bad_input(), redirect_stdout(sys.stderr):
                for one in _evaluate(options, number, checkpoint, policy, modes):
                    found.append(one)
                    played.append((name, one))
            try:
                with replacing(run_of(checkpoint) / "eval.json") as draft:
                    draft.write_text(f"{_as_json(found, len(modes) > 1)}\n", encoding="utf-8")
            except OSError as error:
                unwritten.append(f"{run_of(checkpoint) / 'eval.json'}: {error.strerror}")
    finally:  # hours may have gone into them before a later one fails
        if played:
            _print(options, played, many)
    if unwritten:
        raise ConfigError(f"cannot be written: {'; '.join(unwritten)}")
    return 0


def _load(options: EvalOptions, checkpoints: Sequence[Path]) -> "list[Policy]":
    """Load every policy, and make each environment once where several are to be played.

    So a mistake in the last run is found before hours go into the first.
    """
    from xlstm_rl import load_policy  # not needed for the help
    from xlstm_rl.evaluation.environments import find_source
    from xlstm_rl.evaluation.fitting import check_fits

    policies = [load_policy(one, trust_code=options.trust_code) for one in checkpoints]
    if len(policies) > 1:
        for policy in policies:
            check_fits(policy, find_source(policy, options.env.id, options.max_episode_steps))
    return policies


def _print(options: EvalOptions, played: "list[tuple[str, Played]]", many: bool) -> None:
    if options.json:
        print(_as_json([one for _, one in played], many))
    elif many:
        print(_table(options, played))
    else:
        report, result = played[0][1]
        print(wrapped(f"{report['env']}: {result}", terminal_width()))


def _as_json(played: "list[Played]", many: bool) -> str:
    reports = [report for report, _ in played]
    return json.dumps(reports if many else reports[0])


def _evaluate(
    options: EvalOptions,
    number: int,
    checkpoint: Path,
    policy: "Policy",
    modes: tuple[bool, ...],
) -> "Iterator[Played]":
    from xlstm_rl import evaluate  # not needed for the help
    from xlstm_rl.evaluation.wandb_report import log_evaluation

    for deterministic in modes:
        result = evaluate(
            policy,
            options.env.id,
            episodes=options.episodes,
            seed=options.seed,
            deterministic=deterministic,
            video_dir=_video_folder(options, number, deterministic),
            max_episode_steps=options.max_episode_steps,
        )
        if options.wandb:
            log_evaluation(checkpoint, result, _video_folder(options, number, deterministic))
        trained_on = None if policy.env_config is None else policy.env_config.id
        report = {
            "env": options.env.id or trained_on,
            "episodes": options.episodes,
            "seed": options.seed,
            "deterministic": deterministic,
            "max_episode_steps": options.max_episode_steps,
            "mean": result.mean,
            "std": result.std,
            "interval": result.interval(),
            "min": min(result.returns),
            "max": max(result.returns),
            "success_rate": result.success_rate,
            "returns": result.returns,
            "lengths": result.lengths,
            "checkpoint": str(checkpoint),
        }
        yield report, result


def _video_folder(options: EvalOptions, number: int, deterministic: bool) -> Path | None:
    """Where the videos go: into a folder of their own for each run and each way to act."""
    if options.video is None:
        return None
    folder = user_path(options.video)
    if len(options.run) > 1:
        folder /= f"{number + 1}-{user_path(options.run[number]).resolve().name}"
    if options.both:
        folder /= "most_probable" if deterministic else "sampled"
    return folder


def _table(options: EvalOptions, played: "list[tuple[str, Played]]") -> str:
    envs = {str(report["env"]) for _, (report, _) in played}
    head = ["run", "actions", "return", "95 % interval", "success", "length"]
    rows = []
    for name, (report, result) in played:
        ends, success = result.interval(), result.success_rate
        rows.append(
            [
                name if len(envs) == 1 else f"{name} ({report['env']})",
                result.actions,
                f"{result.mean:.2f}",
                "-" if ends is None else f"[{ends[0]:.2f}, {ends[1]:.2f}]",
                "-" if success is None else f"{success:.2f}",
                f"{result.mean_length:.1f}",
            ]
        )
    where = f"{envs.pop()}: " if len(envs) == 1 else ""
    caption = f"{where}{options.episodes} episodes each, seed {options.seed}"
    width = terminal_width()
    return f"{wrapped(caption, width)}\n{table(head, rows, left=2, width=width)}"

"""`xlstm-rl eval`."""

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from xlstm_rl.cli.options import read_options, refusing_bad_input
from xlstm_rl.files import replacing
from xlstm_rl.runs.folder import latest_checkpoint, run_of


@dataclass(frozen=True)
class EvalEnvironment:
    """Where the policy is evaluated."""

    id: str | None = None
    """Gymnasium id; none: the environment that it was trained on."""


@dataclass(frozen=True)
class EvalOptions:
    """Play whole episodes with a trained policy and report its return.

    The result is also written to eval.json in the run folder.
    """

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, or one checkpoint in it."""

    episodes: int = 20
    """How many episodes."""

    seed: int = 0
    """Seed of the episodes: each has one of its own from it, which is none of training's."""

    max_episode_steps: int | None = None
    """Truncate episodes after so many steps; none: the limit of training, or the registered one."""

    stochastic: bool = False
    """Sample actions instead of taking the most probable one."""

    video: str | None = None
    """Folder for a video of every episode (needs the extra `video`)."""

    json: bool = False
    """Print one JSON object and nothing else."""

    trust_code: bool = False
    """Import what the run names of other packages (module:Name), which may run any code."""

    env: EvalEnvironment = field(default_factory=EvalEnvironment)


def run(args: Sequence[str]) -> int:
    """Evaluate, print the result and write it into the run folder."""
    options = read_options(EvalOptions, args, "eval")
    # Video writers and environments print; --json promises to print nothing but the result.
    with refusing_bad_input(), redirect_stdout(sys.stderr):
        report = _evaluate(options)
    text = json.dumps(report)
    folder = run_of(Path(report["checkpoint"]))
    with replacing(folder / "eval.json") as draft:
        draft.write_text(f"{text}\n", encoding="utf-8")
    print(text if options.json else _sentence(report))
    return 0


def _evaluate(options: EvalOptions) -> dict[str, Any]:
    from xlstm_rl import evaluate, load_policy  # not needed for the help

    checkpoint = latest_checkpoint(options.run)
    policy = load_policy(checkpoint, trust_code=options.trust_code)
    result = evaluate(
        policy,
        options.env.id,
        episodes=options.episodes,
        seed=options.seed,
        deterministic=not options.stochastic,
        video_dir=options.video,
        max_episode_steps=options.max_episode_steps,
    )
    trained_on = None if policy.env_config is None else policy.env_config.id
    return {
        "env": options.env.id or trained_on,
        "episodes": options.episodes,
        "seed": options.seed,
        "deterministic": not options.stochastic,
        "max_episode_steps": options.max_episode_steps,
        "mean": result.mean,
        "std": result.std,
        "min": min(result.returns),
        "max": max(result.returns),
        "success_rate": result.success_rate,
        "returns": result.returns,
        "lengths": result.lengths,
        "checkpoint": str(checkpoint),
    }


def _sentence(report: dict[str, Any]) -> str:
    lengths, success = report["lengths"], report["success_rate"]
    told = "" if success is None else f", success rate {success:.2f}"
    return (
        f"{report['env']}: return {report['mean']:.2f} ± {report['std']:.2f} over "
        f"{report['episodes']} episodes (min {report['min']:.2f}, max {report['max']:.2f}), "
        f"length {sum(lengths) / len(lengths):.1f} on average{told}"
    )

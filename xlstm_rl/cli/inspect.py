"""`xlstm-rl inspect`."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg

from xlstm_rl.cli.options import read_options, refusing_bad_input
from xlstm_rl.cli.pipes import say
from xlstm_rl.options.arguments import user_path
from xlstm_rl.runs.folder import latest_checkpoint
from xlstm_rl.runs.loggers.wandb_artifacts import local_folder
from xlstm_rl.terminal import tell


@dataclass(frozen=True)
class InspectEnvironment:
    """Where the policy plays."""

    id: str | None = None
    """Gymnasium id; none: the environment that it was trained on."""


@dataclass(frozen=True)
class InspectOptions:
    """Play episodes of a policy and write a page of what goes on inside it, pictures and tables.

    Two runs stand side by side.
    """

    run: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN...")]
    """Run folders, or single checkpoints in them."""

    out: str
    """The folder: new, or empty."""

    episodes: int = 1
    """How many episodes; those of `eval` with the same seed."""

    seed: int = 0
    """Seed of the episodes, which are none of training's."""

    max_steps: int = 500
    """Cut an episode after so many steps."""

    stochastic: bool = False
    """Sample actions instead of taking the most probable one."""

    no_frames: bool = False
    """Do not draw the environment."""

    saliency_steps: int = 200
    """For how many actions of an episode saliency is found, evenly spaced; 0: none."""

    integrated: int = 8
    """Points of integrated gradients, each as costly as the gradient; 0: gradient times input."""

    erase: int = 0
    """Episodes for each point of the erasing curves: what the return loses where a part of the
    state is erased before a step; 0: no curves."""

    overwrite: bool = False
    """Replace the files of an earlier inspection."""

    trust_code: bool = False
    """Import what the run names of other packages (module:Name), which may run any code."""

    env: InspectEnvironment = field(default_factory=InspectEnvironment)


def run(args: Sequence[str]) -> int:
    """Write the folder and say where its page is."""
    options = read_options(InspectOptions, args, "inspect")
    from xlstm_rl import load_policy  # not needed for the help
    from xlstm_rl.inspection import inspect_policy

    # Environments print; what this prints is where the page is.
    with refusing_bad_input(), redirect_stdout(sys.stderr):
        checkpoints = [latest_checkpoint(local_folder(name)) for name in options.run]
        policies = [load_policy(one, trust_code=options.trust_code) for one in checkpoints]
        page = inspect_policy(
            dict(zip(_names(options.run), policies, strict=True)),
            options.out,
            options.env.id,
            episodes=options.episodes,
            seed=options.seed,
            deterministic=not options.stochastic,
            max_steps=options.max_steps,
            frames=not options.no_frames,
            saliency_steps=options.saliency_steps,
            integrated=options.integrated,
            erase=options.erase,
            overwrite=options.overwrite,
            say=(lambda what: say(what, sys.stderr)) if sys.stderr.isatty() else None,
        )
    tell(f"wrote {page}", sys.stdout)
    return 0


def _names(runs: Sequence[str]) -> list[str]:
    """Return the names of the folders, or where they are alike what was given, told apart."""
    names = [user_path(run).resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = list(runs)
    return [
        f"{name} ({names[: place + 1].count(name)})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]

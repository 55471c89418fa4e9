"""Inspects policies and writes what it finds into a folder."""

from collections.abc import Callable, Mapping
from pathlib import Path

from xlstm_rl.config import ConfigError
from xlstm_rl.evaluation.environments import Environment
from xlstm_rl.inspection import tables
from xlstm_rl.inspection.erasing import find_erasing
from xlstm_rl.inspection.figures import draw_episode, draw_erasing
from xlstm_rl.inspection.output import whole_folder
from xlstm_rl.inspection.page import PAGE, write_page
from xlstm_rl.inspection.parts import blocks_of
from xlstm_rl.inspection.recording import NeverDrawn, record
from xlstm_rl.inspection.results import Inspected, InspectedEpisode
from xlstm_rl.inspection.saliency import find_saliency
from xlstm_rl.inspection.trace import trace
from xlstm_rl.options.arguments import check_whole
from xlstm_rl.policy.policy import Policy

Say = Callable[[str], object]
"""Called with what is being done."""


def inspect_policy(
    policy: Policy | Mapping[str, Policy],
    out: str | Path,
    env: Environment = None,
    *,
    episodes: int = 1,
    seed: int = 0,
    deterministic: bool = True,
    max_steps: int = 500,
    frames: bool = True,
    saliency_steps: int = 200,
    integrated: int = 8,
    erase: int = 0,
    overwrite: bool = False,
    say: Say | None = None,
) -> Path:
    """Play episodes of a policy and write pictures, tables and a page of what goes on inside it.

    The folder has `index.html`, `episode_<n>.png`, `steps.csv` and `saliency.csv`; with `erase`
    also `erasing.png` and `erasing.csv`. It is there when all of it is.

    Args:
        policy: that acts; several by name stand side by side.
        out: the folder: new, or empty.
        env: as for `evaluate`.
        episodes: how many.
        seed: of the episodes, which are those of `evaluate` with it.
        deterministic: take the most probable action instead of a sample.
        max_steps: cut an episode after so many steps.
        frames: draw the environment.
        saliency_steps: for how many actions of an episode saliency is found, evenly spaced; 0:
            none.
        integrated: points of integrated gradients; 0: gradient times input.
        erase: episodes for each point of the erasing curves; 0: no curves.
        overwrite: replace the files of an earlier inspection.
        say: is told what is being done.

    Returns:
        The page.

    Raises:
        EnvError: an environment raised, or answered what cannot be used.
        ValueError: an option is wrong, something is in the way, or the environment cannot be made.
    """
    policies = {"policy": policy} if isinstance(policy, Policy) else dict(policy)
    if not policies:
        raise ConfigError("no policy to inspect: pass one, or several by name")
    for name, value, least in (
        ("episodes", episodes, 1),
        ("max_steps", max_steps, 1),
        ("saliency_steps", saliency_steps, 0),
        ("integrated", integrated, 0),
        ("erase", erase, 0),
    ):
        check_whole(name, value, least, ConfigError)
    tell = say or (lambda _: None)
    with whole_folder(out, overwrite) as folder:
        runs = []
        for name, one in policies.items():
            tell(f"{name}: playing {episodes} episode{'s' * (episodes > 1)}")
            recorded, problem = record(one, env, episodes, seed, deterministic, max_steps, frames)
            if isinstance(problem, NeverDrawn):
                raise ConfigError(f"it cannot be drawn: {problem}; --no-frames leaves pictures out")
            notes = _notes(one, problem)
            found = []
            for recording in recorded:
                read = recording.read_by(one)
                saliency = None
                if saliency_steps:
                    tell(f"{name}: saliency of episode {recording.number}")
                    saliency = find_saliency(one, read, saliency_steps, integrated)
                    for blind in saliency.blind:
                        notes.add(f"No saliency of {blind}: its encoder takes integers.")
                columns = trace(one, recording, read)
                found.append(InspectedEpisode(recording, columns, saliency))
            erasing = None
            if erase:
                tell(f"{name}: erasing, {erase} episodes a point")
                erasing = find_erasing(one, env, erase, seed, deterministic, max_steps)
            runs.append(Inspected(name, _about(one), found, sorted(notes), erasing))
        tell("drawing")
        _write(folder, runs)
    return Path(out).expanduser() / PAGE


def _write(folder: Path, runs: list[Inspected]) -> None:
    played = [(run.name, one) for run in runs for one in run.episodes]
    numbered = [(name, one.recording.number, one) for name, one in played]
    tables.write_steps(folder, [(name, number, one.columns) for name, number, one in numbered])
    weighed = [(name, n, one.saliency) for name, n, one in numbered if one.saliency is not None]
    if weighed:
        tables.write_saliency(folder, weighed)
    for number in range(len(runs[0].episodes)):
        draw_episode(folder / f"episode_{number}.png", runs, number)
    erased = [(run.name, run.erasing) for run in runs if run.erasing is not None]
    if erased:
        tables.write_erasing(folder, erased)
        draw_erasing(folder / "erasing.png", erased)
    write_page(folder / PAGE, runs)


def _about(policy: Policy) -> str:
    env = "" if policy.env_config is None else f"{policy.env_config.id}, "
    config = policy.memory_config
    pattern = f" {pattern}" if (pattern := getattr(config, "pattern", "")) else ""
    return f"{env}memory {config.kind}{pattern}, width {config.width}"


def _notes(policy: Policy, problem: str | None) -> set[str]:
    """Return what is left out of a policy's pictures, and why."""
    notes = set()
    if problem is not None:
        notes.add(f"No frames: {problem}")
    kind = policy.memory_config.kind
    for memory in policy.network.memories().values():
        if not memory.state_keys:
            notes.add(f"No gates, ages and norms: the memory {kind} has no state.")
        elif not any(block.heads for block in blocks_of(memory)):
            notes.add(f"No gates, lengths and ages: the memory {kind} does not tell its gates.")
    return notes

"""A run of a comparison that was stopped: where it goes on, and where it begins afresh."""

import shutil
import sys
from pathlib import Path

from xlstm_rl.agents import RecurrentAgent, TrainConfig, agent_class
from xlstm_rl.agents.resuming import Saved
from xlstm_rl.errors import CheckpointError
from xlstm_rl.files import replacing
from xlstm_rl.runs.folder import CONFIG_FILE, LATEST, checkpoint_steps, find_checkpoint
from xlstm_rl.runs.lock import refuse_running, run_locked


def half_run(config: TrainConfig, folder: Path) -> RecurrentAgent | None:
    """Return the agent of a run that stood still, to go on; None: begin afresh.

    Checkpoints that cannot be read are set aside where there is an older one that can.

    Raises:
        CheckpointError: no checkpoint can be read; nothing was changed.
        ConfigError: a process trains in the folder.
    """
    if not (folder / CONFIG_FILE).is_file():
        return None
    refuse_running(folder)
    steps = checkpoint_steps(folder)
    if not steps:
        _say("begins afresh: the run was stopped before its first checkpoint")
        with run_locked(folder):
            shutil.rmtree(folder)
        return None
    readable = _newest_readable(folder, steps)
    if readable != steps[-1]:
        _go_back_to(readable, folder, steps)
    return agent_class(config).load(
        folder,
        trust_code=True,
        # what may differ from one call of a comparison to the next
        device=config.device,
        threads=config.threads,
        logger=config.logger,
        checkpoint=config.checkpoint,
    )


def _newest_readable(folder: Path, steps: list[int]) -> int:
    newest: CheckpointError | None = None
    for step in reversed(steps):
        try:
            Saved.read(find_checkpoint(folder, step), trust_code=True)
        except CheckpointError as error:
            newest = newest or error
        else:
            return step
    assert newest is not None
    raise newest


def _go_back_to(step: int, folder: Path, steps: list[int]) -> None:
    """Make a checkpoint the latest; those behind it keep their files under another name."""
    for later in steps[steps.index(step) + 1 :]:
        checkpoint = find_checkpoint(folder, later)
        aside = checkpoint.with_name(f"{later}.unread")
        while aside.exists():
            aside = aside.with_name(f"{aside.name}+")
        checkpoint.rename(aside)
        _say(f"{aside}: cannot be read; goes on from {step} steps")
    with replacing(folder / LATEST) as pointer:
        pointer.write_text(f"{step}\n", encoding="utf-8")


def _say(line: str) -> None:
    print(line, file=sys.stderr)

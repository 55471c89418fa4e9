"""Run folders that stand already: a configuration that changed, and a run that is replaced."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xlstm_rl.config import ConfigError, load_yaml, save_yaml
from xlstm_rl.files import replacing
from xlstm_rl.runs.folder import CONFIG_FILE, OLD, replaced_runs
from xlstm_rl.runs.lock import run_locked
from xlstm_rl.runs.signals import signals_held


def write_config(run: Path, config: Mapping[str, Any], changed_at: int | None = None) -> None:
    """Write the resolved configuration of a run anew.

    Args:
        run: The run folder.
        config: As `config_to_dict` gives it.
        changed_at: The step at which a run was resumed: where options other than the number of
            steps have changed, those before stay in `config.before-<step>.yaml`.

    Raises:
        ConfigError: It cannot be written.
    """
    path = run / CONFIG_FILE
    try:
        if changed_at is not None and path.is_file() and _options_differ(load_yaml(path), config):
            with replacing(run / f"config.before-{changed_at}.yaml") as draft:
                shutil.copyfile(path, draft)
        with replacing(path) as draft:
            save_yaml(config, draft)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def _options_differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    lengths = {"total_steps", "horizon", "run_dir"}
    keys = (one.keys() | other.keys()) - lengths
    return any(one.get(key) != other.get(key) for key in keys)


@contextmanager
def replacing_run(folder: Path) -> Iterator[Path]:
    """A place to make a run in, which takes the place of the one in `folder` when it is complete.

    A kill in between leaves the old run, which `find_checkpoint` finds under the folder's name.

    Raises:
        ConfigError: The folder is not one of a run, holds files that no run has, or a process
            trains in it; nothing in it was touched.
    """
    names = set(os.listdir(folder))
    foreign = sorted(name for name in names if not _OF_A_RUN.fullmatch(name))
    if names and (foreign or CONFIG_FILE not in names):
        what = f"holds {foreign[0]!r}" if foreign else f"has no {CONFIG_FILE}"
        raise ConfigError(
            f"run folder {folder}: {what}: only a run of xlstm_rl is replaced; choose another "
            "folder"
        )
    draft, old = (
        folder.with_name(f".{folder.name}.{os.getpid()}{word}") for word in (".part", OLD)
    )
    try:
        yield draft
        with run_locked(folder), signals_held():
            # A folder cannot be replaced at once: until the next line readers take this one.
            folder.rename(old)
            draft.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(draft, ignore_errors=True)
    for rubbish in replaced_runs(folder):
        shutil.rmtree(rubbish, ignore_errors=True)


_OF_A_RUN = re.compile(
    r"config(\.before-\d+)?\.yaml|metrics\.csv|episodes\.csv|.*\.jsonl|checkpoints|latest|best"
    r"|lock|eval\.json|videos|plots|tensorboard|wandb|\..*\.(part|old).*|\.latest\..*"
)
"""The names of all that a run folder may hold."""

"""The folder of a run: who makes it, where its checkpoints lie, which is the latest.

    config.yaml    metrics.csv    checkpoints/<step>/    latest    eval.json    videos/    plots/

A checkpoint appears under its name only when it is complete, and `latest` names it only then,
so that a run killed at any moment leaves a folder that loads.
"""

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xlstm_rl.config import ConfigError, save_yaml
from xlstm_rl.errors import CheckpointError

CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.csv"
POLICY_FILE = "policy.safetensors"
_CHECKPOINTS = "checkpoints"
_LATEST = "latest"


def create_run_folder(
    run_dir: str | Path | None,
    config: Mapping[str, Any],
    *,
    env: str,
    memory: str,
    seed: int,
    root: str | Path = "runs",
) -> Path:
    """A new run folder with the resolved configuration in its `config.yaml`.

    Args:
        run_dir: Where it shall be: nothing, or an empty folder, stands there. None: a fresh
            `<root>/<env>-<memory>-seed<seed>-<time>`.
        config: The resolved configuration, as `config_to_dict` gives it.
        env: Name of the environment; a namespace such as `ALE/` is left out of the folder's name.
        memory: Name of the memory.
        seed: Seed of the run.
        root: Parent of the folders that get a fresh name.

    Raises:
        ConfigError: Something stands there already, or the folder cannot be made.
    """
    try:
        if run_dir is None:
            folder = _fresh_folder(Path(root), f"{env.rpartition('/')[2]}-{memory}-seed{seed}")
        else:
            folder = Path(run_dir)
            _claim(folder)
        save_yaml(config, folder / CONFIG_FILE)
    except OSError as error:
        raise ConfigError(
            f"run folder {run_dir or root}: cannot be made: {error.strerror}"
        ) from None
    return folder


def _claim(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        what = "a folder that is not empty" if folder.is_dir() else "a file"
        raise ConfigError(
            f"run folder {folder}: {what} stands there already; nothing was changed, "
            "choose another --run-dir"
        ) from None


def _fresh_folder(root: Path, label: str) -> Path:
    name = re.sub(r"[^\w.-]+", "_", label) + time.strftime("-%Y%m%d-%H%M%S")
    root.mkdir(parents=True, exist_ok=True)
    attempt = 1
    while True:
        folder = root / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir()  # of several runs started in the same second, one gets this name
            return folder
        except FileExistsError:
            attempt += 1


@contextmanager
def new_checkpoint(run: str | Path, step: int, keep: int | None = None) -> Iterator[Path]:
    """A folder to write a checkpoint into, which becomes `checkpoints/<step>` and `latest`.

    On leaving without an error the folder gets its name, `latest` is moved to it, and all but
    the newest `keep` checkpoints are removed (None: all stay). On an error nothing changes.
    """
    parent = Path(run) / _CHECKPOINTS
    final, draft = parent / str(step), parent / f".{step}.part"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        if final.exists():
            shutil.rmtree(final)
        draft.replace(final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    pointer = Path(run) / f".{_LATEST}.part"
    pointer.write_text(f"{step}\n", encoding="utf-8")
    os.replace(pointer, Path(run) / _LATEST)
    if keep is not None:
        prune_checkpoints(run, keep)


def checkpoint_steps(run: str | Path) -> list[int]:
    """The steps at which a run has checkpoints, ascending."""
    parent = Path(run) / _CHECKPOINTS
    if not parent.is_dir():
        return []
    return sorted(int(path.name) for path in parent.iterdir() if path.name.isdecimal())


def prune_checkpoints(run: str | Path, keep: int) -> None:
    """Remove all checkpoints of a run but the newest `keep`, and never the one in `latest`."""
    latest = _read_latest(Path(run))
    steps = checkpoint_steps(run)
    for step in steps[: max(0, len(steps) - keep)]:
        if step != latest:
            shutil.rmtree(Path(run) / _CHECKPOINTS / str(step))


def latest_checkpoint(run: str | Path) -> Path:
    """The newest checkpoint of a run folder; a checkpoint folder is its own.

    Raises:
        CheckpointError: There is no such folder, or it is neither, or has no checkpoint yet.
    """
    folder = Path(run)
    if not folder.is_dir():
        problem = "a file, not a folder" if folder.exists() else "no such folder"
        raise CheckpointError(f"{folder}: {problem}; expected a run folder or a checkpoint in one")
    if (folder / POLICY_FILE).is_file():
        return folder
    step = _read_latest(folder)
    if step is None:
        if (folder / CONFIG_FILE).is_file():
            raise CheckpointError(f"{folder}: this run has no checkpoint yet")
        raise CheckpointError(
            f"{folder}: not a run folder (it has no `{_LATEST}` and no {POLICY_FILE})"
        )
    checkpoint = folder / _CHECKPOINTS / str(step)
    if not (checkpoint / POLICY_FILE).is_file():
        others = ", ".join(str(other) for other in checkpoint_steps(folder) if other != step)
        advice = f"; name one of its checkpoints instead: {others}" if others else ""
        raise CheckpointError(
            f"{checkpoint}: has no {POLICY_FILE}, though it is the latest{advice}"
        )
    return checkpoint


def run_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in; the checkpoint itself, if it lies in none."""
    run = checkpoint.parent.parent
    return run if (run / CONFIG_FILE).is_file() else checkpoint


def _read_latest(folder: Path) -> int | None:
    try:
        text = (folder / _LATEST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not text.isdecimal():
        raise CheckpointError(
            f"{folder / _LATEST}: expected a step such as 10000, got {text[:40]!r}"
        )
    return int(text)

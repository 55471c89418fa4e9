"""The folder of a run: who makes it, where its checkpoints lie, which is the latest.

    config.yaml  metrics.csv  checkpoints/<step>/  latest  best/  eval.json  videos/  plots/

A checkpoint appears under its name only when it is complete, and `latest` names it only then,
so that a run killed at any moment leaves a folder that loads.
"""

import filecmp
import glob
import json
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
from xlstm_rl.files import is_draft, replacing, step_in
from xlstm_rl.options.arguments import user_path

CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.csv"
POLICY_FILE = "policy.safetensors"
EVALUATION_FILE = "evaluation.json"
_CHECKPOINTS = "checkpoints"
LATEST = "latest"
_BEST = "best"
_PART = ".part"  # a checkpoint that is being written, or removed
OLD = ".old"  # a whole one, while another of the same step takes its place


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
            folder = user_path(run_dir)
            _claim(folder)
        with replacing(folder / CONFIG_FILE) as draft:
            save_yaml(config, draft)
    except OSError as error:
        raise ConfigError(
            f"run folder {run_dir or root}: cannot be made: {error.strerror}"
        ) from None
    return folder


def _claim(folder: Path) -> None:
    # killed before it had its configuration, a run leaves a draft of that and nothing else
    if folder.is_dir() and all(is_draft(one) for one in folder.iterdir()):
        return
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        what = "a folder that is not empty" if folder.is_dir() else "a file"
        raise ConfigError(
            f"run folder {folder}: {what} is there already; nothing was changed, "
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
    the newest `keep` checkpoints are removed (None: all stay). On an error nothing changes, and
    neither does a checkpoint of this step with the very same files.
    """
    parent = user_path(run) / _CHECKPOINTS
    parent.mkdir(parents=True, exist_ok=True)
    for pointer in user_path(run).glob(f".{LATEST}.*"):
        pointer.unlink()
    _tidy(parent)
    with _becoming(parent / str(step)) as draft:
        yield draft
    with replacing(user_path(run) / LATEST) as pointer:
        pointer.write_text(f"{step}\n", encoding="utf-8")
    if keep is not None:
        prune_checkpoints(run, keep)


@contextmanager
def new_best(run: str | Path) -> Iterator[Path]:
    """A folder to write a checkpoint into, which becomes `best`; on an error nothing changes."""
    with _becoming(user_path(run) / _BEST) as draft:
        yield draft


@contextmanager
def _becoming(final: Path) -> Iterator[Path]:
    """A new folder that gets the name `final`, in place of what has it, once it is complete."""
    if final.exists():
        os.listdir(final)  # a file of somebody is not replaced by a folder
    name, parent, draft = final.name, final.parent, final.with_name(f".{final.name}{_PART}")
    _tidy(parent, name)
    draft.mkdir()
    try:
        yield draft
        if not _holds_the_same(draft, final):
            if final.exists():
                # A folder cannot be replaced at once: until the next line readers take this one.
                final.rename(parent / f".{name}{OLD}")
            draft.rename(final)
    finally:
        _tidy(parent, name)


def _holds_the_same(draft: Path, final: Path) -> bool:
    """Whether every file of a draft lies in a checkpoint too, byte for byte."""
    names = os.listdir(draft)
    return final.is_dir() and filecmp.cmpfiles(draft, final, names, shallow=False)[0] == names


def _tidy(parent: Path, names: str = "*") -> None:
    """Finish what an interrupted save left: give back a whole checkpoint its name, drop parts."""
    for old in parent.glob(f".{names}{OLD}"):
        final = parent / old.name[1 : -len(OLD)]
        if final.exists():
            _remove(old)
        else:
            old.rename(final)
    for draft in parent.glob(f".{names}{_PART}"):
        shutil.rmtree(draft, ignore_errors=True)


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint; one that is half removed no longer has its name."""
    step = checkpoint.name.lstrip(".").removesuffix(OLD)
    rubbish = checkpoint.with_name(f".{step}{_PART}")
    checkpoint.rename(rubbish)
    shutil.rmtree(rubbish)


def checkpoint_steps(run: str | Path) -> list[int]:
    """The steps at which a run has checkpoints, ascending."""
    parent = user_path(run) / _CHECKPOINTS
    names = {path.name for path in parent.iterdir()} if parent.is_dir() else set()
    names |= {name[1 : -len(OLD)] for name in names if name.endswith(OLD)}
    return sorted(step for name in names if (step := step_in(name)) is not None)


def prune_checkpoints(run: str | Path, keep: int) -> None:
    """Remove all checkpoints of a run but the newest `keep`, and never the one in `latest`."""
    latest = _read_latest(user_path(run))
    for step in checkpoint_steps(run)[:-keep]:
        if step != latest:
            _remove(user_path(run) / _CHECKPOINTS / str(step))


def latest_checkpoint(run: str | Path) -> Path:
    """The newest checkpoint of a run folder; a checkpoint folder is its own.

    Raises:
        CheckpointError: There is no such folder, or it is neither, or has no checkpoint yet.
    """
    folder = _standing(user_path(run))
    if not folder.is_dir():
        problem = "a file, not a folder" if folder.exists() else "no such folder"
        raise CheckpointError(f"{folder}: {problem}; expected a run folder or a checkpoint in one")
    if (folder / POLICY_FILE).is_file():
        return folder
    steps = checkpoint_steps(folder)
    step = _read_latest(folder)
    if step is None and steps:  # killed before the first `latest`
        step = steps[-1]
    if step is None:
        if (folder / CONFIG_FILE).is_file():
            raise CheckpointError(f"{folder}: this run has no checkpoint yet")
        raise CheckpointError(
            f"{folder}: not a run folder (it has no `{LATEST}` and no {POLICY_FILE})"
        )
    checkpoint = _by_its_name(folder / _CHECKPOINTS / str(step))
    if not (checkpoint / POLICY_FILE).is_file():
        others = ", ".join(str(other) for other in steps if other != step)
        advice = f"; name one of its checkpoints instead: {others}" if others else ""
        raise CheckpointError(
            f"{checkpoint}: has no {POLICY_FILE}, though it is the latest{advice}"
        )
    return checkpoint


def find_checkpoint(run: str | Path, which: object = LATEST) -> Path:
    """The folder of a checkpoint of a run: the `latest`, the `best`, or that of a step.

    A checkpoint folder is its own latest.

    Raises:
        CheckpointError: There is none.
    """
    name, folder = str(which), _standing(user_path(run))
    if name == LATEST:
        return latest_checkpoint(folder)
    if name == _BEST:
        best = _by_its_name(folder / _BEST)
        if (best / POLICY_FILE).is_file():
            return best
        raise CheckpointError(
            f"{folder}: has no {_BEST}/; training with evaluation.every_steps keeps one"
        )
    if step_in(name) is None:
        raise CheckpointError(
            f"checkpoint={name[:40]!r}: expected latest, best or the steps of a checkpoint; a "
            "device is given by name, device=..."
        )
    checkpoint = _by_its_name(folder / _CHECKPOINTS / name)
    if (checkpoint / POLICY_FILE).is_file():
        return checkpoint
    steps = ", ".join(map(str, checkpoint_steps(folder)))
    raise CheckpointError(
        f"{folder}: has no checkpoint of {name} steps" + (f"; it has {steps}" if steps else "")
    )


def replaced_runs(folder: Path) -> list[Path]:
    """The runs that were to make room for another one in a run folder, and are still there."""
    return list(folder.parent.glob(f".{glob.escape(folder.name)}.*{OLD}"))


def _standing(folder: Path) -> Path:
    """The run folder; the one that was to make room for it, if a kill came in between."""
    if folder.exists():
        return folder
    return max(replaced_runs(folder), key=os.path.getmtime, default=folder)


def _by_its_name(checkpoint: Path) -> Path:
    """The checkpoint; the one that was to make room for it, if a kill came in between."""
    old = checkpoint.with_name(f".{checkpoint.name}{OLD}")
    return old if old.exists() and not checkpoint.exists() else checkpoint


def best_evaluation(run: str | Path) -> dict[str, Any]:
    """What was written about the evaluation of the best policy so far; empty: there is none."""
    try:
        folder = find_checkpoint(run, _BEST)
        found = json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8"))
    except (CheckpointError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def run_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in; the checkpoint itself, if it lies in none."""
    for run in (checkpoint.parent, checkpoint.parent.parent):
        if (run / CONFIG_FILE).is_file():
            return run
    return checkpoint


def _read_latest(folder: Path) -> int | None:
    try:
        text = (folder / LATEST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    step = step_in(text)
    if step is None:
        raise CheckpointError(
            f"{folder / LATEST}: expected a step such as 10000, got {text[:40]!r}"
        )
    return step

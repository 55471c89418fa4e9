"""Checkpoints as versions of a W&B artifact, written and fetched."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xlstm_rl.config.errors import one_line
from xlstm_rl.errors import CheckpointError
from xlstm_rl.options.arguments import user_path
from xlstm_rl.runs.loggers.wandb_account import has_wandb_key
from xlstm_rl.runs.loggers.wandb_note import note, read_note

_PREFIX = "wandb:"
_REFERENCE = re.compile(r"wandb:(\w[\w.-]*)/(\w[\w.-]*)/(\w[\w.-]*)(?::(\w[\w.-]*))?")
_SCORES = ("evaluation/return", "episode/return")
"""What makes a checkpoint the best one: the first of these that is logged."""


class CheckpointArtifact:
    """The versions of a run's policy: `policy-<id of the run>`, of the type `model`.

    Aliases are `latest`, `step-<step>`, and `best` for the one with the highest return when it was
    saved. Whoever names a `best` himself is not contradicted.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._scores: dict[str, float] = {}
        self._names_best = True

    def see(self, metrics: Mapping[str, float]) -> None:
        """Remember the latest scores."""
        self._scores |= {key: metrics[key] for key in _SCORES if key in metrics}

    def add(self, run: Any, step: int, checkpoint: Path, aliases: Sequence[str]) -> None:
        """Log the files of a checkpoint as one version more."""
        import wandb

        self._names_best = self._names_best and "best" not in aliases
        artifact = wandb.Artifact(
            f"policy-{run.id}", "model", metadata={"step": step, **self._finite_scores()}
        )
        with _staging_in(self._folder):
            for file in sorted(checkpoint.iterdir()):  # `add_dir` writes on the terminal
                artifact.add_file(str(file), skip_cache=True)
        names = ["latest", f"step-{step}", *aliases, *self._best()]
        run.log_artifact(artifact, aliases=list(dict.fromkeys(names)))

    def _finite_scores(self) -> dict[str, float]:
        return {key: score for key, score in self._scores.items() if math.isfinite(score)}

    def _best(self) -> list[str]:
        scores = self._finite_scores()
        key = next((one for one in _SCORES if one in self._scores), None)
        if not self._names_best or key not in scores:
            return []
        before = read_note(self._folder).get("best", {})
        if before.get("metric") == key and before.get("score", -math.inf) >= scores[key]:
            return []
        note(self._folder, best={"metric": key, "score": scores[key]})
        return ["best"]


@contextmanager
def _staging_in(folder: Path) -> Iterator[None]:
    """Have W&B keep copies of files, which wait for the upload, in the run folder."""
    before = os.environ.get("WANDB_DATA_DIR")
    if before is None:
        os.environ["WANDB_DATA_DIR"] = str((folder / "wandb").absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]


def local_folder(path: str | Path) -> Path:
    """Return a folder, or the one that an artifact, `wandb:entity/project/artifact:alias`, is in.

    Raises:
        CheckpointError: the artifact is not there, or cannot be fetched.
    """
    return fetch_artifact(path) if str(path).startswith(_PREFIX) else Path(path)


def fetch_artifact(reference: str | Path) -> Path:
    """Fetch the files of an artifact and return their folder, in W&B's cache or in the user's.

    Args:
        reference: `wandb:entity/project/artifact:alias`; without an alias, the latest version.

    Raises:
        CheckpointError: it is written otherwise, is not there, or cannot be fetched.
    """
    text = str(reference)
    parts = _REFERENCE.fullmatch(text)
    if parts is None:
        raise CheckpointError(f"{text}: expected wandb:entity/project/artifact:alias")
    entity, project, name, alias = parts.groups(default="latest")
    if not has_wandb_key():
        raise CheckpointError(f"{text}: no API key; run `wandb login`, or set WANDB_API_KEY")
    import wandb

    root = user_path(os.environ.get("WANDB_ARTIFACT_DIR") or "~/.cache/xlstm_rl/artifacts")
    try:
        artifact = wandb.Api().artifact(f"{entity}/{project}/{name}:{alias}")
        folder = root / entity / project / f"{name}-{artifact.version}"
        return Path(artifact.download(root=str(folder)))
    except Exception as error:  # whatever W&B, the network or the disk make of it
        raise CheckpointError(f"{text}: cannot be fetched: {one_line(error)}") from error

"""`trainer.pt`: what training needs beyond the policy, as tensors, numbers and text alone."""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from xlstm_rl.errors import CheckpointError
from xlstm_rl.files import torch_file

TRAINER_FILE = "trainer.pt"
_FORMAT = "xlstm_rl trainer 2"
_KEYS = {
    "config",
    "steps_done",
    "budget",
    "optimizer",
    "reward_normalizer",
    "generators",
    "recent_episodes",
    "collector",
}


def write_trainer_state(folder: Path, state: Mapping[str, Any], beside: list[str]) -> None:
    """Write `trainer.pt`.

    Args:
        folder: of the checkpoint.
        state: tensors and plain values, as `torch.load(weights_only=True)` accepts them.
        beside: the other files of the checkpoint, by whose hashes a mixed one is found out.
    """
    hashes = {name: file_hash(folder / name) for name in beside}
    with torch_file(folder / TRAINER_FILE) as file:
        torch.save({"format": _FORMAT, "files": hashes, **state}, file)


def read_trainer_state(checkpoint: Path) -> dict[str, Any]:
    """Return what `write_trainer_state` wrote; whatever the file is, nothing in it is run.

    Raises:
        CheckpointError: it is missing, damaged, of another version or not of this checkpoint.
    """
    path = checkpoint / TRAINER_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file: this checkpoint holds a policy alone, which load_policy loads"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle's protocol: one line follows, not three
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and tensors each fail in ways of their own
        raise CheckpointError(
            f"{path}: damaged, or not written by xlstm_rl ({type(error).__name__}): it does not "
            "hold tensors and plain values alone, and was not read further; load another "
            "checkpoint of the run"
        ) from error
    found = state.get("format") if isinstance(state, dict) else None
    if found is None and isinstance(state, dict) and {"steps_done", "optimizer"} <= state.keys():
        raise CheckpointError(
            f"{path}: written by version 0.1, which kept less than going on needs; load_policy "
            "loads its policy"
        )
    if found != _FORMAT:
        raise CheckpointError(
            f"{path}: has format {found!r}, expected {_FORMAT!r}; load_policy may load its policy"
        )
    missing = sorted(_KEYS - state.keys())
    if missing:
        raise CheckpointError(
            f"{path}: lacks {', '.join(missing)}: it was altered; load another checkpoint"
        )
    _check_files(checkpoint, state.get("files"))
    return dict(state)


def _check_files(checkpoint: Path, hashes: Any) -> None:
    for name, expected in dict(hashes or {}).items():
        if "/" in name or "\\" in name or name.startswith("."):
            raise CheckpointError(
                f"{checkpoint / TRAINER_FILE}: names a file {name!r} outside of its "
                "folder; load another checkpoint of the run"
            )
        try:
            found = file_hash(checkpoint / name)
        except OSError as error:
            raise CheckpointError(
                f"{checkpoint / name}: cannot be read: {error.strerror}"
            ) from None
        if found != expected:
            raise CheckpointError(
                f"{checkpoint / name}: is not the file that {TRAINER_FILE} beside it was saved "
                "with: it was altered or damaged; load another checkpoint of the run"
            )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()

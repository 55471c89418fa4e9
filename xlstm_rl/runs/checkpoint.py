"""Checkpoints: `policy.safetensors`, `policy.yaml` and `trainer.pt` in one folder.

The first two are the whole policy, and nothing in them can run code when it is read: weights and
statistics as safetensors, configuration and spaces as YAML. `trainer.pt` holds what training
needs beyond them and is readable with `weights_only=True`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from xlstm_rl.config import ConfigError, config_from_dict, config_to_dict, load_yaml, save_yaml
from xlstm_rl.config.errors import one_line
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.spaces.serialization import space_from_dict, space_to_dict
from xlstm_rl.errors import CheckpointError
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.options.section import accepting_unused
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.encoders.scaled_sum import older_scales
from xlstm_rl.policy.policy import Policy
from xlstm_rl.runs.folder import POLICY_FILE, find_checkpoint
from xlstm_rl.runs.loggers.wandb_artifacts import local_folder
from xlstm_rl.runs.trainer_state import file_hash, write_trainer_state
from xlstm_rl.runs.trust import refuse_foreign_code
from xlstm_rl.runs.weights import network_dtype, plain_weights, todays_weights
from xlstm_rl.seeding import torch_stream_restored

_DESCRIPTION = "policy.yaml"
_FORMAT = "xlstm_rl policy 1"
_SPACES = ("observation_space", "action_space")
_SECTIONS = ("memory", "policy", "normalization", "env")
_KEYS = {"format", *_SPACES, *_SECTIONS}
_HASH = "sha256"
"""Of the weights' file. Policies of before have none, and whoever alters weights takes it out."""

_MARGIN = 100
"""How many times the weights of its file a description may have until nothing is made of it; what
differs by less is compared weight by weight."""

_SMALL = 4096
"""Bytes; a file of weights may be smaller than some option of a small policy."""


def write_checkpoint(folder: Path, policy: Policy, trainer_state: Mapping[str, Any]) -> None:
    """Write the three files of a checkpoint into a folder.

    Args:
        folder: an empty folder, such as `run_folder.new_checkpoint` hands out.
        policy: the policy.
        trainer_state: tensors and plain values, as `torch.load(weights_only=True)` accepts them.
    """
    save_file(plain_weights(policy), folder / POLICY_FILE)
    hashes = {_HASH: file_hash(folder / POLICY_FILE)}
    save_yaml(_description(policy) | hashes, folder / _DESCRIPTION)
    write_trainer_state(folder, trainer_state, beside=[POLICY_FILE, _DESCRIPTION])


def _description(policy: Policy) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "observation_space": space_to_dict(policy.observation_space),
        "action_space": space_to_dict(policy.action_space),
        "memory": config_to_dict(policy.memory_config),
        "policy": config_to_dict(policy.policy_config),
        "normalization": config_to_dict(policy.normalization_config),
        "env": None if policy.env_config is None else config_to_dict(policy.env_config),
    }


def load_policy(
    path: str | Path,
    checkpoint: str | int = "latest",
    *,
    device: str | torch.device = "cpu",
    trust_code: bool = False,
) -> Policy:
    """Load a policy for acting: weights and configuration alone, in the dtype they were saved in.

    Args:
        path: a run folder, or one checkpoint's folder; or `wandb:entity/project/artifact:alias`,
            which is fetched.
        checkpoint: of the run folder: `latest`, `best` (where training evaluated), or the steps of
            one.
        device: where the weights go; any device, whichever the policy was trained on.
        trust_code: import what the configuration names of other packages (`module:Name`), which
            runs it. Without it only what this process itself trained with is imported.

    Raises:
        CheckpointError: the folder is missing, damaged, not one of this library's, or names code.
    """
    folder = find_checkpoint(local_folder(path), checkpoint)
    description, weights = read_description(folder, trust_code), _read_weights(folder)
    policy = _build(folder, description, weights)
    _fill(policy, weights, folder)
    _check_hash(folder, description)
    return policy.to(device).eval()


def read_description(folder: Path, trust_code: bool = False) -> dict[str, Any]:
    """Return what `policy.yaml` of a checkpoint says, as plain data.

    Raises:
        CheckpointError: it is missing, damaged, of another version, or names code.
    """
    path = folder / _DESCRIPTION
    try:
        found = load_yaml(path)
    except (OSError, ConfigError) as error:
        raise CheckpointError(f"{error}; expected a checkpoint of xlstm_rl") from error
    if found.get("format") != _FORMAT or set(found) - {_HASH} != _KEYS:
        raise CheckpointError(
            f"{path} has format {found.get('format')!r} and keys {sorted(map(str, found))}, "
            f"expected {_FORMAT!r} with {sorted(_KEYS)}: this is not a policy that this version "
            "can load"
        )
    refuse_foreign_code({name: found[name] for name in _SECTIONS}, path, trust_code)
    return found


def spaces_of(description: Mapping[str, Any], folder: Path) -> dict[str, gymnasium.Space[Any]]:
    """Return the spaces, by name, that a policy was trained in.

    Raises:
        CheckpointError: they are not spaces.
    """
    try:
        return {name: space_from_dict(description[name]) for name in _SPACES}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        path = folder / _DESCRIPTION
        raise CheckpointError(f"{path} does not describe a policy: {error}") from error


def _build(folder: Path, found: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> Policy:
    """Return the policy that `policy.yaml` describes, with fresh weights."""
    path = folder / _DESCRIPTION
    try:
        with accepting_unused():
            make = partial(
                Policy,
                space_from_dict(found["observation_space"]),
                space_from_dict(found["action_space"]),
                config_from_dict(MemoryConfig, found["memory"]),
                config_from_dict(PolicyConfig, found["policy"]),
                config_from_dict(NormalizationConfig, found["normalization"]),
                None if found["env"] is None else config_from_dict(EnvConfig, found["env"]),
            )
            refuse_absurd_sizes(found, folder)
            # Initial weights are drawn only to be overwritten; the user's random state is kept.
            with torch_stream_restored():
                _refuse_more_weights_than_saved(make, weights, folder)
                return make()
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, MemoryError) as error:
        raise CheckpointError(
            f"{path} does not describe a policy: {one_line(error) or type(error).__name__}"
        ) from error


def refuse_absurd_sizes(found: Mapping[str, Any], folder: Path) -> None:
    """Refuse a description of more than its file of weights can hold, before room is made for it.

    Raises:
        CheckpointError: there is no such file, or too little in it.
    """
    path = folder / POLICY_FILE
    try:
        size = max(path.stat().st_size, _SMALL)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): it is missing") from None
    for name in ("memory", "policy"):
        for option, number in _integers(found[name], name):
            if number > size:
                raise CheckpointError(
                    f"{folder / _DESCRIPTION}: {option}={number} is more than {POLICY_FILE} of "
                    f"{size:,} bytes has room for: one of the two was altered"
                )


def _refuse_more_weights_than_saved(
    make: Callable[[], Policy], weights: Mapping[str, torch.Tensor], folder: Path
) -> None:
    saved = sum(one.numel() for one in weights.values())
    count = 0
    # There are shapes alone on this device. What it cannot make is judged where it is made.
    with suppress(Exception), torch.device("meta"):
        count = sum(one.numel() for one in make().network.parameters())
    if count > _MARGIN * saved:
        raise CheckpointError(
            f"{folder / _DESCRIPTION}: describes {count:,} weights, and {POLICY_FILE} beside it "
            f"has {saved:,}: one of the two was altered"
        )


def _integers(value: Any, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, int):
        yield path, value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _integers(one, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _integers(one, path)


def load_weights(policy: Policy, folder: Path) -> None:
    """Give a policy the weights and statistics of a checkpoint, in the dtype of their file.

    Raises:
        CheckpointError: the file is missing or damaged, or does not fit the policy.
    """
    _fill(policy, _read_weights(folder), folder)


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(folder / POLICY_FILE)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / POLICY_FILE} cannot be read ({error}): the file is missing or "
            "damaged; load another checkpoint of the run"
        ) from error


def _check_hash(folder: Path, description: Mapping[str, Any]) -> None:
    path = folder / POLICY_FILE
    if description.get(_HASH, found := file_hash(path)) != found:
        raise CheckpointError(
            f"{path}: is not the file that {_DESCRIPTION} beside it was saved with: it was altered "
            f"or damaged; load another checkpoint, or take {_HASH} out of {_DESCRIPTION} if you "
            "altered it"
        )


def _fill(policy: Policy, weights: dict[str, torch.Tensor], folder: Path) -> None:
    expected = policy.state_dict()
    weights = older_scales(policy) | todays_weights(weights, expected)
    missing, unknown = sorted(expected.keys() - weights), sorted(weights.keys() - expected)
    misshapen = [
        f"{key} {list(weights[key].shape)} for {list(expected[key].shape)}"
        for key in sorted(expected.keys() & weights)
        if weights[key].shape != expected[key].shape
    ]
    if missing or unknown or misshapen:
        raise CheckpointError(
            f"{folder / POLICY_FILE} does not fit {_DESCRIPTION} beside it: "
            f"missing {missing[:3]}, unknown {unknown[:3]}, of other shapes {misshapen[:3]}"
        )
    policy.to(network_dtype(weights)).load_state_dict(weights)

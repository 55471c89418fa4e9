"""Checkpoints: `policy.safetensors`, `policy.yaml` and `trainer.pt` in one folder.

The first two are the whole policy, and nothing in them can run code when it is read: weights and
statistics as safetensors, configuration and spaces as YAML. `trainer.pt` holds what training
needs beyond them and is readable with `weights_only=True`.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from xlstm_rl.config import ConfigError, config_from_dict, config_to_dict, load_yaml, save_yaml
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.spaces.serialization import space_from_dict, space_to_dict
from xlstm_rl.errors import CheckpointError
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.options.section import accepting_unused
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.policy import Policy
from xlstm_rl.runs.folder import latest_checkpoint
from xlstm_rl.runs.loggers.wandb_artifacts import local_folder
from xlstm_rl.runs.weights import network_dtype, plain_weights, todays_weights

_FORMAT = "xlstm_rl policy 1"
_KEYS = {
    "format",
    "observation_space",
    "action_space",
    "memory",
    "policy",
    "normalization",
    "env",
}


def write_checkpoint(folder: Path, policy: Policy, trainer_state: dict[str, Any]) -> None:
    """Write the three files of a checkpoint into a folder.

    Args:
        folder: an empty folder, such as `run_folder.new_checkpoint` hands out.
        policy: the policy.
        trainer_state: tensors and plain values, as `torch.load(weights_only=True)` accepts them.
    """
    save_file(plain_weights(policy), folder / "policy.safetensors")
    save_yaml(_description(policy), folder / "policy.yaml")
    torch.save(trainer_state, folder / "trainer.pt")


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


def load_policy(path: str | Path, device: str | torch.device = "cpu") -> Policy:
    """Load a policy for acting: weights and configuration alone, in the dtype they were saved in.

    Args:
        path: a run folder, whose latest checkpoint is taken, or one checkpoint's folder; or
            `wandb:entity/project/artifact:alias`, which is fetched.
        device: where the weights go; any device, whichever the policy was trained on.

    Raises:
        CheckpointError: the folder is missing, damaged, or not one of this library's.
    """
    folder = latest_checkpoint(local_folder(path))
    policy = _build(folder)
    try:
        weights = load_file(folder / "policy.safetensors")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / 'policy.safetensors'} cannot be read ({error}): the file is missing or "
            "damaged; load another checkpoint of the run"
        ) from error
    _load_weights(policy, weights, folder)
    return policy.to(device).eval()


def _build(folder: Path) -> Policy:
    """Return the policy that `policy.yaml` describes, with fresh weights."""
    path = folder / "policy.yaml"
    try:
        found = load_yaml(path)
    except (OSError, ConfigError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): expected a checkpoint of xlstm_rl"
        ) from error
    if found.get("format") != _FORMAT or set(found) != _KEYS:
        raise CheckpointError(
            f"{path} has format {found.get('format')!r} and keys {sorted(found)}, expected "
            f"{_FORMAT!r} with {sorted(_KEYS)}: this is not a policy that this version can load"
        )
    try:
        # Initial weights are drawn only to be overwritten; the user's random state is kept.
        with torch.random.fork_rng(devices=[]), accepting_unused():
            return Policy(
                space_from_dict(found["observation_space"]),
                space_from_dict(found["action_space"]),
                config_from_dict(MemoryConfig, found["memory"]),
                config_from_dict(PolicyConfig, found["policy"]),
                config_from_dict(NormalizationConfig, found["normalization"]),
                None if found["env"] is None else config_from_dict(EnvConfig, found["env"]),
            )
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} does not describe a policy: {error}") from error


def _load_weights(policy: Policy, weights: dict[str, torch.Tensor], folder: Path) -> None:
    expected = policy.state_dict()
    weights = todays_weights(weights, expected)
    missing, unknown = sorted(expected.keys() - weights), sorted(weights.keys() - expected)
    misshapen = [
        f"{key} {list(weights[key].shape)} for {list(expected[key].shape)}"
        for key in sorted(expected.keys() & weights)
        if weights[key].shape != expected[key].shape
    ]
    if missing or unknown or misshapen:
        raise CheckpointError(
            f"{folder / 'policy.safetensors'} does not fit policy.yaml beside it: "
            f"missing {missing[:3]}, unknown {unknown[:3]}, of other shapes {misshapen[:3]}"
        )
    policy.to(network_dtype(weights)).load_state_dict(weights)

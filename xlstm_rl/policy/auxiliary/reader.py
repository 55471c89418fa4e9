"""Reads what stands beside an observation: the last reward, and the action mask."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import build, space_leaves
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.actions.mask import ActionMask
from xlstm_rl.policy.arrays import as_tensor
from xlstm_rl.policy.auxiliary.inputs import AuxiliaryInputs
from xlstm_rl.policy.config import PolicyConfig

AuxiliaryValues = tuple[Tensor | None, Tensor | None]
"""The last reward `[B]` and the flags of an action mask `[B, num_outputs]`, where there are any."""


class AuxiliaryReader:
    """Turns rewards and action masks, as callers have them, into what `AuxiliaryInputs.join` takes.

    Args:
        observation_space: of one environment.
        mask: reads the masks of the action space.
        auxiliary: says what the policy reads.
        config: says where the masks are.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        mask: ActionMask,
        auxiliary: AuxiliaryInputs,
        config: PolicyConfig,
    ) -> None:
        self.mask = mask
        self.source = config.action_mask
        self._reads_reward = auxiliary.reads_reward
        key = config.mask_in_observation
        if key is not None and isinstance(observation_space, gymnasium.spaces.Dict):
            leaves = space_leaves(observation_space)
            self._mask_space = observation_space[key]
            self._mask_names = [leaf.name for leaf in leaves if leaf.path[0] == key]

    def read(  # one call, so that no way of acting can forget one
        self,
        raw: Observation,
        batch_size: int,
        reward: Any,
        action_mask: Any,
        fresh: bool,
        device: torch.device,
    ) -> AuxiliaryValues:
        """Return the last reward `[B]` and the flags of the action mask, on a device.

        Args:
            raw: the observation, as `ObservationReader.read` returns it.
            batch_size: number of environments B.
            reward: as for `Policy.act`.
            action_mask: as for `Policy.act`.
            fresh: every episode begins here, so that there is no reward yet.
            device: where the results go.

        Raises:
            ValueError: the policy needs one of them and it is missing, or its shape does not fit,
                or a mask allows no action.
        """
        if self.source == "observation" and isinstance(raw, dict):
            action_mask = self.mask_in(raw)
        if (action_mask is None) != (self.source == "none"):
            given = "no action mask" if action_mask is None else "an action mask"
            raise ValueError(
                f"the policy has policy.action_mask={self.source!r} and was given {given}: pass "
                "action_mask=info['action_mask'] where it is 'info', and only there"
            )
        flags = None if action_mask is None else self._flags(action_mask, batch_size, device)
        return self.read_reward(reward, batch_size, fresh, device), flags

    def mask_in(self, raw: dict[str, Any]) -> Any:
        """Return the action mask that is part of an observation, nested as it was.

        Args:
            raw: tensors or arrays by the leaf's name.
        """
        return build(self._mask_space, iter([raw[name] for name in self._mask_names]))

    def read_reward(
        self, reward: Any, batch_size: int, fresh: bool, device: torch.device
    ) -> Tensor | None:
        """Return the last reward `[B]`; arguments and errors are those of `read`."""
        if not self._reads_reward:
            return None
        if reward is None:
            if fresh:
                return None
            raise ValueError(
                "this policy reads the previous reward: pass reward=, what the environment "
                "answered to the last action"
            )
        found = as_tensor(reward, "reward")
        if found.numel() != batch_size:
            raise ValueError(
                f"reward has shape {list(found.shape)}, expected [{batch_size}]: one for each "
                "environment"
            )
        if not isinstance(reward, Tensor) and not bool(found.isfinite().all()):
            raise ValueError(f"reward is {reward}: NaN or infinite, on which no policy is trained")
        return found.to(device).reshape(batch_size)

    def _flags(self, mask: Any, batch_size: int, device: torch.device) -> Tensor:
        shape = (batch_size, self.mask.width)
        if isinstance(mask, Tensor) and mask.device.type != "cpu":  # a look would wait for it
            if tuple(mask.shape) != shape or mask.is_floating_point():
                raise ValueError(
                    f"action_mask has shape {list(mask.shape)} and dtype {mask.dtype}, expected "
                    f"bools {list(shape)} of a tensor on {mask.device}: one for each output"
                )
            return mask.bool()
        if isinstance(mask, Tensor) and mask.dtype == torch.bool and tuple(mask.shape) == shape:
            flags = mask.numpy()
        else:
            flags = self.mask.read(_on_cpu(mask), batch_size)
        nothing = self.mask.all_false(flags)
        if nothing is not None:
            raise ValueError(
                f"the action mask of environment {nothing[0]} allows no action{nothing[1]}"
            )
        return torch.from_numpy(flags).to(device)


def _on_cpu(mask: Any) -> Any:
    """Return a mask with arrays for tensors, wherever in it they are."""
    if isinstance(mask, Tensor):
        return mask.detach().cpu().numpy()
    if isinstance(mask, Mapping):
        return {key: _on_cpu(part) for key, part in mask.items()}
    if isinstance(mask, tuple | list):
        return [_on_cpu(part) for part in mask]
    if isinstance(mask, np.ndarray) and mask.dtype == object:
        found = np.empty(len(mask), dtype=object)
        for row, one in enumerate(mask):
            found[row] = _on_cpu(one)
        return found
    return mask


def is_set(flags: Tensor | None) -> bool:
    """Return whether every flag is known to be set, without waiting for a GPU."""
    return flags is not None and flags.device.type == "cpu" and bool(flags.all())


def check_mask_key(space: gymnasium.Space[Any], key: str | None) -> None:
    """Refuse observations that have no mask where the configuration looks for one.

    Raises:
        ValueError: the space is not a Dict with that key and at least one other.
    """
    if key is None:
        return
    if not isinstance(space, gymnasium.spaces.Dict) or key not in space.spaces or len(space) == 1:
        raise ValueError(
            f"policy.action_mask='observation' needs Dict observations with the key {key!r} and "
            f"another one, got {space}: set policy.action_mask_key"
        )

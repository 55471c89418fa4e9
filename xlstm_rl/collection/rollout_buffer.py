"""Where a rollout is written while it is collected: rows `[B]` of one step after another."""

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from xlstm_rl.collection.answers import Array
from xlstm_rl.collection.env_adapter import Answers, Transition, VectorEnvAdapter
from xlstm_rl.collection.values import Values
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.encoders.observations import map_observation
from xlstm_rl.policy.policy import Policy


class RolloutBuffer:
    """Bare tensors `[T, B, ...]`, so that a step writes whole contiguous rows.

    Args:
        policy: that acts.
        adapter: where the environments' answers come from. They stay of its kind, arrays in host
            memory or tensors on the device, until `to_device` moves them, once per rollout.
        steps: T.
        num_envs: B.
    """

    def __init__(
        self, policy: Policy, adapter: VectorEnvAdapter, steps: int, num_envs: int
    ) -> None:
        lead, device = (steps, num_envs), policy.device
        self.raw: Observation = torch.empty(0)
        self.observation: Observation = torch.empty(0)
        self.params = self.action = torch.empty(0)
        self._lead, self._device, self._adapter = lead, device, adapter
        self.reward: Answers = adapter.allocate(lead, float)
        self.flags: dict[str, Answers] = {
            name: adapter.allocate(lead, bool)
            for name in ("terminated", "truncated", "reset", "invalid")
        }
        self.success: Answers | None = None
        """`[T, B]`, as in `Transition`, NaN where an episode goes on; None: no episode said it."""
        self.said: dict[str, Answers] = {}
        """The same by keyword."""

    def write_action(
        self,
        t: int,
        raw: Observation,
        x: Observation,
        params: Tensor,
        action: Tensor,
        reset: Answers,
        autoreset: Answers,
    ) -> None:
        """Write what was seen and chosen at step t; the first row says what else will come."""
        if t == 0:
            self.raw, self.observation = self._like(raw), self._like(x)
            self.params, self.action = self._room(params), self._room(action)
        _write(self.raw, t, raw)
        _write(self.observation, t, x)
        self.params[t] = params
        self.action[t] = action
        self.flags["reset"][t] = reset
        self.flags["invalid"][t] = autoreset

    def _like(self, row: Observation) -> Observation:
        return map_observation(self._room, row)

    def _room(self, x: Tensor) -> Tensor:
        shape = (*self._lead, *x.shape[1:])
        return torch.empty(shape, dtype=x.dtype, device=self._device)

    def write_outcome(self, t: int, transition: Transition) -> None:
        """Write what the environments answered at step t."""
        self.reward[t] = transition.reward
        self.flags["terminated"][t] = transition.terminated
        self.flags["truncated"][t] = transition.truncated
        if transition.success is not None:
            if self.success is None:
                self.success = self._nothing()
            self.success[t] = transition.success
        for key, values in transition.said.items():
            if key not in self.said:
                self.said[key] = self._nothing()
            self.said[key][t] = values

    def _nothing(self) -> Answers:
        room = self._adapter.allocate(self._lead, float)
        room[:] = torch.nan
        return room

    def to_device(self) -> None:
        """Move the environments' answers to the policy's device."""
        self.reward = self._adapter.tensor(self.reward).to(self.params.dtype)
        self.flags = {name: self._adapter.tensor(flag) for name, flag in self.flags.items()}

    def drop_episodes(self, t: int, rows: Array) -> None:
        """Mark episodes that end at step t in some environments as invalid from their start on.

        Steps of theirs in rollouts before this one have been trained on.
        """
        for row in np.flatnonzero(rows):
            starts = np.flatnonzero(self.flags["reset"][: t + 1, row])
            first = int(starts[-1]) if len(starts) else 0
            self.flags["invalid"][first : t + 1, row] = True

    def to_tensordict(self, distribution: Any, values: Values) -> TensorDict:
        """Return the columns of `Rollout.data`, after `to_device`.

        Args:
            distribution: of the actions.
            values: what the critic says of the rollout.
        """
        # One pass over the whole rollout costs less than a log-probability at every step.
        log_prob, _ = distribution.log_prob_and_entropy(self.params, self.action)
        next_value = torch.cat((values.value[1:], values.last_value.unsqueeze(0)))
        flags = self.flags
        if values.final_value is not None:
            next_value = torch.where(flags["truncated"], values.final_value, next_value)
        columns = {
            "action": self.action,
            "log_prob": log_prob,
            "value": values.value,
            "next_value": next_value,
            "reward": self.reward,
            "terminated": flags["terminated"],
            "truncated": flags["truncated"],
            "reset": flags["reset"],
            "valid": ~flags["invalid"],
        }
        steps, num_envs = self._lead
        return TensorDict(
            {
                "observation": batch_first(self.observation, num_envs, steps),
                **{name: column.transpose(0, 1).contiguous() for name, column in columns.items()},
            },
            batch_size=(num_envs, steps),
        )


def _write(buffer: Observation, t: int, row: Observation) -> None:
    if isinstance(buffer, Tensor) and isinstance(row, Tensor):
        buffer[t] = row
    elif isinstance(buffer, dict) and isinstance(row, dict):
        for name, part in row.items():
            buffer[name][t] = part


def batch_first(buffer: Observation, num_envs: int, steps: int) -> Any:
    """Return `[T, B, ...]` as `[B, T, ...]`: a tensor, or a TensorDict by the leaf's name."""
    if isinstance(buffer, Tensor):
        return buffer.transpose(0, 1).contiguous()
    parts = {name: part.transpose(0, 1).contiguous() for name, part in buffer.items()}
    return TensorDict(parts, batch_size=(num_envs, steps))

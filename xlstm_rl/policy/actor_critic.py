"""The network: encoder, memory and heads, the same modules for acting and for training."""

from functools import partial
from typing import Any, Protocol

import gymnasium
import torch
from torch import Tensor, nn

from xlstm_rl.memory import Memory, MemoryConfig, make_memory
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.actions.categorical import MASKED_LOGIT
from xlstm_rl.policy.actions.distributions import make_distribution
from xlstm_rl.policy.auxiliary.inputs import ACTION_MASK, context_sizes
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.encoders.encoder import make_encoder, make_mlp, orthogonal

Leaves = tuple[Tensor, ...]


class Trunk(nn.Module):
    """Encoder and memory: observations in, features `[..., D]` out."""

    def __init__(
        self,
        space: gymnasium.Space[Any],
        memory: MemoryConfig,
        policy: PolicyConfig,
        beside: dict[str, int] | None,
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(space, memory.width, policy, beside)
        self.memory: Memory = make_memory(memory)


class Head(nn.Module):
    """Hidden layers and a last projection with a small gain, so that it starts near zero."""

    def __init__(self, width: int, outputs: int, policy: PolicyConfig, gain: float) -> None:
        super().__init__()
        sizes = [width] + [policy.head_width] * policy.head_layers
        self.hidden = make_mlp(sizes, policy.activation)
        self.output = orthogonal(nn.Linear(sizes[-1], outputs), gain)

    def forward(self, features: Tensor) -> Tensor:
        """Return `[..., outputs]` for features `[..., D]`."""
        out: Tensor = self.output(self.hidden(features))
        return out


class _Run(Protocol):
    def __call__(
        self, memory: Memory, x: Tensor, leaves: Leaves, reset: Tensor | None
    ) -> tuple[Tensor, Leaves]: ...


def _run_sequence(
    memory: Memory, x: Tensor, leaves: Leaves, reset: Tensor | None
) -> tuple[Tensor, Leaves]:
    return memory.forward_leaves(x, leaves, reset)


def _run_step(
    memory: Memory, x: Tensor, leaves: Leaves, reset: Tensor | None
) -> tuple[Tensor, Leaves]:
    return memory.step_leaves(x, leaves, reset)


def _run_step_in_place(
    memory: Memory, x: Tensor, leaves: Leaves, reset: Tensor | None
) -> tuple[Tensor, Leaves]:
    return memory.step_leaves(x, leaves, reset, inplace=True)


class ActorCritic(nn.Module):
    """Action-distribution parameters and values, from observations and a memory state.

    The memory state is a flat tuple of tensors with the batch first: those of the actor's memory
    and, with `policy.critic="separate"`, those of the critic's behind them.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        memory: MemoryConfig,
        policy: PolicyConfig,
    ) -> None:
        super().__init__()
        self.distribution = make_distribution(action_space, policy)
        beside = context_sizes(self.distribution, policy)
        bare = not beside and policy.action_mask == "none"
        trunk = partial(Trunk, observation_space, memory, policy, None if bare else beside)
        self.actor = trunk()
        self.critic = trunk() if policy.critic == "separate" else None
        num_outputs, num_free = self.distribution.num_outputs, self.distribution.num_free
        self.log_std: nn.Parameter | None = None
        if num_free:
            self.log_std = nn.Parameter(torch.full((num_free,), policy.initial_log_std))
        self.action_head = Head(memory.width, num_outputs, policy, gain=0.01)
        self.value_head = Head(memory.width, 1, policy, gain=1.0)

    def memories(self, critic: bool = True) -> dict[str, Memory]:
        """Return the memories by name, in the order of their leaves in the state.

        Args:
            critic: with the critic's, where it has its own.
        """
        found = {"actor": self.actor.memory}
        if critic and self.critic is not None:
            found["critic"] = self.critic.memory
        return found

    def initial_leaves(
        self, batch_size: int, device: torch.device | None = None, critic: bool = True
    ) -> Leaves:
        """Return the state of a fresh episode: all zeros; `critic` as for `memories`."""
        leaves: Leaves = ()
        for memory in self.memories(critic).values():
            leaves += memory.initial_leaves(batch_size, device)
        return leaves

    def forward(
        self, observation: Observation, leaves: Leaves, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, Leaves]:
        """Run whole sequences.

        Args:
            observation: `[B, T, ...]`, normalised; of a Dict or Tuple space a mapping from the
                names of its leaves to such tensors, and beside them what `Context.join` adds.
            leaves: the state before the first step.
            reset: `[B, T]`, true where a step is the first of an episode; None: nowhere.

        Returns:
            Distribution parameters `[B, T, num_params]`, values `[B, T]` and the state after the
            last step.
        """
        return self._evaluate(_run_sequence, observation, leaves, reset)

    def step(
        self, observation: Observation, leaves: Leaves, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, Leaves]:
        """Run one step: the same as `forward` without the time axis."""
        return self._evaluate(_run_step, observation, leaves, reset)

    def decide(
        self, observation: Observation, leaves: Leaves, reset: Tensor | None, inplace: bool = False
    ) -> tuple[Tensor, Leaves]:
        """Run one step for the action alone: `step` without the values.

        Args:
            observation: `[B, ...]`, normalised.
            leaves: the state of the actor's memory; that of a separate critic's may stand behind
                it, and is then carried along.
            reset: `[B]`, true where the step is the first of an episode; None: nowhere.
            inplace: overwrite the leaves and hand them back; without gradients.

        Returns:
            Distribution parameters `[B, num_params]` and the state after the step, of as many
            memories as came in.
        """
        run = _run_step_in_place if inplace else _run_step
        params, _, after, critic_leaves = self._act(run, observation, leaves, reset)
        if critic_leaves and self.critic is not None:
            x = self.critic.encoder(observation)
            after += run(self.critic.memory, x, critic_leaves, reset)[1]
        return params, after

    def _evaluate(
        self, run: _Run, observation: Observation, leaves: Leaves, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, Leaves]:
        params, features, after, critic_leaves = self._act(run, observation, leaves, reset)
        if self.critic is not None:
            x = self.critic.encoder(observation)
            features, critic_after = run(self.critic.memory, x, critic_leaves, reset)
            after += critic_after
        return params, self.value_head(features).squeeze(-1), after

    def _act(
        self, run: _Run, observation: Observation, leaves: Leaves, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, Leaves, Leaves]:
        """Run the actor's branch: distribution parameters, its features, its state, the rest."""
        split = len(self.actor.memory.state_keys)
        features, after = run(
            self.actor.memory, self.actor.encoder(observation), leaves[:split], reset
        )
        params = self.action_head(features)
        mask = None if isinstance(observation, Tensor) else observation.get(ACTION_MASK)
        if mask is not None:
            params = params.masked_fill(~mask, MASKED_LOGIT)
        if self.log_std is not None:
            params = torch.cat((params, self.log_std.expand(*params.shape[:-1], -1)), -1)
        return params, features, after, leaves[split:]

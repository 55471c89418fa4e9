"""The network: encoder, memory and heads, the same modules for acting and for training."""

from functools import partial
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from xlstm_rl.memory import Memory, MemoryConfig, StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.actions.categorical import LEAST_LOGIT, MASKED_LOGIT
from xlstm_rl.policy.actions.distributions import make_distribution
from xlstm_rl.policy.auxiliary.inputs import ACTION_MASK, auxiliary_sizes
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.encoders.encoder import make_encoder
from xlstm_rl.policy.exploration import StateDependentNoise
from xlstm_rl.policy.native_sequences import NativeSequences
from xlstm_rl.policy.native_step import NativeStep, RawInput
from xlstm_rl.policy.trunk import Head, Run, Trunk, run_sequence, run_step, run_step_in_place

MEMORY, CRITIC_MEMORY = "memory", "critic_memory"
"""Keys of the memories in a policy's state; the second where the critic has a memory of its own."""

RENAMED_MEMORIES = {"actor": MEMORY, "critic": CRITIC_MEMORY}
"""Keys of version 0.1, and what they are called today."""


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
        auxiliary = auxiliary_sizes(self.distribution, policy)
        bare = not auxiliary and policy.action_mask == "none"
        encoder = partial(
            make_encoder, observation_space, memory.width, policy, None if bare else auxiliary
        )
        self.trunk = Trunk(encoder(), memory)
        self.critic_trunk: Trunk | None = None
        if policy.critic == "separate":
            self.critic_trunk = Trunk(None if policy.share_encoder else encoder(), memory)
        num_outputs, num_free = self.distribution.num_outputs, self.distribution.num_free
        self.log_std: nn.Parameter | None = None
        self.exploration: StateDependentNoise | None = None
        if self.distribution.resample_steps is not None:
            start = float(self.distribution.initial_free()[0])
            self.exploration = StateDependentNoise(memory.width, num_free, start)
        elif num_free:
            self.log_std = nn.Parameter(self.distribution.initial_free())
        self.action_head = Head(memory.width, num_outputs, policy, gain=0.01)
        self.value_head = Head(memory.width, 1, policy, gain=1.0)
        self._native_step, self._native_sequences = NativeStep(), NativeSequences()

    @property
    def any_weight(self) -> Tensor:
        """Return one of the weights: they say on which device and in which type all of it runs."""
        try:  # a module looks long for its attributes, and every step comes by
            output = self._modules["action_head"]._modules["output"]  # type: ignore[union-attr]
            weight = output._parameters["weight"]  # type: ignore[union-attr]
        except KeyError:  # computed, as parametrizations do, or another head
            weight = None
        return next(self.parameters()) if weight is None else weight

    def memories(self, critic: bool = True) -> dict[str, Memory]:
        """Return the memories by name, in the order of their tensors in the state.

        Args:
            critic: with the critic's, where it has its own.
        """
        found = {MEMORY: self.trunk.memory}
        if critic and self.critic_trunk is not None:
            found[CRITIC_MEMORY] = self.critic_trunk.memory
        return found

    def initial_tensors(
        self, batch_size: int, device: torch.device | None = None, critic: bool = True
    ) -> StateTensors:
        """Return the state of a fresh episode: all zeros; `critic` as for `memories`."""
        tensors: StateTensors = ()
        for memory in self.memories(critic).values():
            tensors += memory.initial_tensors(batch_size, device)
        return tensors

    def forward(
        self, observation: Observation, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, StateTensors]:
        """Run whole sequences.

        Args:
            observation: `[B, T, ...]`, normalised; of a Dict or Tuple space a mapping from the
                names of its leaves to such tensors, and what `AuxiliaryInputs.join` adds.
            tensors: the state before the first step.
            reset: `[B, T]`, true where a step is the first of an episode; None: nowhere.

        Returns:
            Distribution parameters `[B, T, num_params]`, values `[B, T]` and the state after the
            last step.
        """
        return self._evaluate(run_sequence, observation, tensors, reset)

    def for_loss(
        self, observation: Observation, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run whole sequences for a loss that is differentiated once, and no more.

        Arguments are those of `forward`. Where all of the network runs in C, a call costs less.

        Returns:
            Distribution parameters `[B, T, num_params]` and values `[B, T]`.
        """
        found = self._native_sequences(self, observation, tensors, reset)
        if found is None:
            params, value, _ = self(observation, tensors, reset)
            return params, value
        outputs, value, features = found
        return self._distribution_params(outputs, observation, features), value

    def step(
        self, observation: Observation, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, StateTensors]:
        """Run one step: the same as `forward` without the time axis."""
        return self._evaluate(run_step, observation, tensors, reset)

    def action_step(
        self,
        observation: Observation,
        tensors: StateTensors,
        reset: Tensor | None,
        inplace: bool = False,
        raw: RawInput | None = None,
    ) -> tuple[Tensor, StateTensors]:
        """Run one step for the action alone: `step` without the values.

        Args:
            observation: `[B, ...]`, normalised, or as `raw` says.
            tensors: the state of the actor's memory; that of a separate critic's may stand behind
                it, and is then carried along.
            reset: `[B]`, true where the step is the first of an episode; None: nowhere.
            inplace: overwrite the tensors and hand them back; without gradients.
            raw: how a raw observation becomes one, which may then run in one go with the network.

        Returns:
            Distribution parameters `[B, num_params]` and the state after the step, of as many
            memories as came in.
        """
        run = run_step_in_place if inplace else run_step
        trunk = self.trunk
        split = len(trunk.memory.state_keys)
        own, critic_tensors = tensors[:split], tensors[split:]
        found = self._native_step(
            *(trunk, self.action_head, observation, own, reset, inplace, raw),
            features=self.exploration is not None,
        )
        if raw is not None and (found is None or critic_tensors):
            observation = raw.read(observation)
        if found is None:
            found = self._act_by_modules(run, observation, own, reset)
        params, after = self._distribution_params(found[0], observation, found[1]), found[2]
        if critic_tensors and self.critic_trunk is not None:
            x = self._critic_input(observation)
            after += run(self.critic_trunk.memory, x, critic_tensors, reset)[1]
        return params, after

    def actor_step(
        self,
        observation: Observation,
        tensors: StateTensors,
        reset: Tensor | None,
        inplace: bool = False,
    ) -> tuple[Tensor, Tensor, StateTensors]:
        """Run one step of the actor: distribution parameters, features `[B, D]`, its state."""
        run = run_step_in_place if inplace else run_step
        params, features, after, _ = self._act(run, observation, tensors, reset)
        return params, features, after

    def value(self, features: Tensor) -> Tensor:
        """Return values `[...]` of what the critic's memory made, `[..., D]`."""
        return _at_least_float32(self.value_head(features)).squeeze(-1)

    def critic_initial_tensors(
        self, batch_size: int, device: torch.device | None = None
    ) -> StateTensors:
        """Return the fresh state of a separate critic's memory, all zeros."""
        return self._critic_trunk().memory.initial_tensors(batch_size, device)

    def critic_step(
        self, observation: Observation, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        """Run one step of a separate critic alone: values `[B]` and its state."""
        return self._criticize(run_step, self._critic_input(observation), tensors, reset)

    def critic_sequence(
        self, observation: Observation, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        """Run a separate critic alone over sequences: values `[B, T]` and its state."""
        x = self._critic_input(observation)
        return self._criticize(run_sequence, x, tensors, reset)

    def _critic_trunk(self) -> Trunk:
        if self.critic_trunk is None:
            raise RuntimeError('policy.critic is "shared": the critic has no memory of its own')
        return self.critic_trunk

    def _critic_input(self, observation: Observation) -> Tensor:
        """Return what a separate critic's memory reads."""
        encoder = self._critic_trunk().encoder
        x: Tensor = (self.trunk.encoder if encoder is None else encoder)(observation)
        return x

    def _criticize(
        self, run: Run, x: Tensor, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        features, after = run(self._critic_trunk().memory, x, tensors, reset)
        return self.value(features), after

    def _evaluate(
        self, run: Run, observation: Observation, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, StateTensors]:
        critic, x = self.critic_trunk, None
        if critic is not None and critic.encoder is None:
            x = self.trunk.encoder(observation)  # once for both
        params, features, after, critic_tensors = self._act(run, observation, tensors, reset, x)
        if critic is None:
            return params, self.value(features), after
        x = self._critic_input(observation) if x is None else x
        value, critic_after = self._criticize(run, x, critic_tensors, reset)
        return params, value, after + critic_after

    def _act(
        self,
        run: Run,
        observation: Observation,
        tensors: StateTensors,
        reset: Tensor | None,
        x: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, StateTensors, StateTensors]:
        """Run the actor's branch: distribution parameters, its features, its state, the rest.

        `x` is what the encoder made of the observation, where that is known.
        """
        split = len(self.trunk.memory.state_keys)
        own, found = tensors[:split], None
        if run is not run_sequence and x is None:
            inplace = run is run_step_in_place
            found = self._native_step(
                self.trunk, self.action_head, observation, own, reset, inplace
            )
        if found is None:
            found = self._act_by_modules(run, observation, own, reset, x)
        params, features, after = found
        params = self._distribution_params(params, observation, features)
        return params, features, after, tensors[split:]

    def _act_by_modules(
        self,
        run: Run,
        observation: Observation,
        tensors: StateTensors,
        reset: Tensor | None,
        x: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, StateTensors]:
        """Return the head's outputs, features and state after; `x` as for `_act`."""
        x = self.trunk.encoder(observation) if x is None else x
        features, after = run(self.trunk.memory, x, tensors, reset)
        return _at_least_float32(self.action_head(features)), features, after

    def _distribution_params(
        self, outputs: Tensor, observation: Observation, features: Tensor
    ) -> Tensor:
        """Return `[..., num_params]`: what is masked, and what the head does not say, joins it."""
        mask = None if isinstance(observation, Tensor) else observation.get(ACTION_MASK)
        if mask is not None:
            outputs = outputs.clamp(min=LEAST_LOGIT).masked_fill(~mask, MASKED_LOGIT)
        if self.exploration is not None:
            outputs = torch.cat((outputs, self.exploration.log_std(features)), -1)
        elif self.log_std is not None:
            outputs = torch.cat((outputs, self.log_std.expand(*outputs.shape[:-1], -1)), -1)
        return outputs


def _at_least_float32(x: Tensor) -> Tensor:
    """Widen halves, which could neither hold a masked logit nor tell small probabilities apart."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

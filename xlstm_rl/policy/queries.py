"""What a policy says of observations and actions: values, log-probabilities, entropies."""

from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import build, take
from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.actor_critic import CRITIC_MEMORY
from xlstm_rl.policy.arrays import as_tensor
from xlstm_rl.policy.auxiliary.reader import AuxiliaryValues, is_set
from xlstm_rl.policy.encoders.observations import ObservationReader, map_observation
from xlstm_rl.policy.policy_module import PolicyModule, with_todays_names


class ActionEvaluation(NamedTuple):
    """What a policy says of sequences of actions; all but the state with gradients."""

    log_prob: Tensor
    """Log-probabilities `[B, T]`, in nats; densities are in the policy's units."""

    entropy: Tensor
    """Entropies `[B, T]` of the distributions, in nats."""

    value: Tensor
    """Values `[B, T]` of the observations."""

    state: TensorDict
    """The memory state after the last step, batch size `[B]`."""


class Sequences(NamedTuple):
    """Whole sequences as the network reads them."""

    observation: Observation
    """Normalised, with all that stands beside it, `[B, T, ...]`."""

    action: Tensor
    """In the policy's units, `[B, T, ...]`."""

    tensors: StateTensors
    """The state of the memories before the first step."""

    auxiliary: StateTensors
    """The state of the auxiliary inputs after the last step."""

    reset: Tensor | None
    """`[B, T]`."""


class PolicyQueries(PolicyModule):
    """Values and evaluations of actions, for losses and searches of your own."""

    @torch.no_grad()
    def value(
        self, obs: Any, state: TensorDict | None = None, reset: Any = None, reward: Any = None
    ) -> Any:
        """Return the values `[B]` of a batch of observations.

        Args:
            obs: raw observations `[B, *observation_shape]`, as for `Policy.act`.
            state: the memory state **before** the observations, as `act` takes it: with the
                critic's memory, which `initial_state(B)` and `act` from None have; None: fresh.
            reset: `[B]` bool, true where `obs` is the first of an episode; None: nowhere.
            reward: `[B]`, as for `act`.

        Returns:
            Estimated returns from here on, discounted, in the units that training had scaled the
            rewards to; of the same kind (NumPy or torch) as `obs`.

        Raises:
            ValueError: a shape or dtype does not fit, or the state lacks the critic's memory.
        """
        remedy = "value takes a batch; add an axis in front for one environment"
        raw, batch_size, is_tensor = self.reader.read(obs, None, remedy)
        device, tensors = self.device, self._whole_state(state, batch_size)
        flags = self.read_reset(reset, batch_size)
        fresh = state is None or is_set(flags)
        last_reward = self.auxiliary_reader.read_reward(reward, batch_size, fresh, device)
        x, _, tensors = self.network_input(
            map_observation(lambda one: one.to(device), raw),
            tensors,
            None if flags is None else flags.to(device),
            (last_reward, None),  # no value depends on what may be done
        )
        value = self.network.step(x, tensors, None if flags is None else flags.to(device))[1]
        return value if is_tensor else value.cpu().numpy()

    def evaluate_actions(
        self,
        obs: Any,
        actions: Any,
        state: TensorDict | None = None,
        reset: Any = None,
        reward: Any = None,
        action_mask: Any = None,
    ) -> ActionEvaluation:
        """Evaluate actions that were taken, over whole sequences and with gradients.

        Args:
            obs: raw observations `[B, T, *observation_shape]`, tensors, arrays, dicts and tuples as
                for `Policy.act`.
            actions: elements of the action space `[B, T, *action_shape]`, as the environment took
                them. One that had been clipped to a bound is evaluated at the bound.
            state: the memory state before the first step, with the critic's memory; None: fresh.
            reset: `[B, T]` bool, true where a step is the first of an episode; None: nowhere.
            reward: `[B, T]`, what the environment answered to the action before each step; needed
                by a policy with `policy.previous_reward`.
            action_mask: `[B, T, num_outputs]` bool, a flag for each output of the action head;
                needed by a policy with `policy.action_mask: info`.

        Raises:
            ValueError: a shape or dtype does not fit, what the policy needs is missing, or the
                state lacks the critic's memory.
        """
        read = self.read_sequences(obs, actions, state, reset, reward, action_mask)
        params, value, after = self.network(read.observation, read.tensors, read.reset)
        log_prob, entropy = self.network.distribution.log_prob_and_entropy(params, read.action)
        after_all = self.pack_state((*read.auxiliary, *after), len(value))
        return ActionEvaluation(log_prob, entropy, value, after_all)

    def read_sequences(
        self,
        obs: Any,
        actions: Any,
        state: TensorDict | None = None,
        reset: Any = None,
        reward: Any = None,
        action_mask: Any = None,
    ) -> Sequences:
        """Return whole sequences as the network reads them.

        Arguments and errors are those of `evaluate_actions`.
        """
        device, lead = self.device, self._lead(obs)
        raw, _, _ = self.reader.read(obs, lead, "evaluate_actions takes [B, T, ...]")
        action = self._read_actions(actions, lead)
        flags = _read_resets(reset, lead, device)
        raw = map_observation(lambda one: one.to(device), raw)
        beside = self._read_auxiliary(raw, lead, reward, action_mask)
        x, own, tensors = self._sequence_input(
            raw, action, self._whole_state(state, lead[0]), flags, beside
        )
        return Sequences(x, action, tensors, own, flags)

    def _lead(self, obs: Any) -> tuple[int, int]:
        """Return the sizes B and T of sequences of observations."""
        leaf = self.reader.leaves[0]
        first = as_tensor(take(obs, leaf.path) if self.reader.is_nested else obs, "obs")
        if first.ndim < 2 or 0 in first.shape[:2]:
            raise ValueError(
                f"obs has shape {list(first.shape)}, expected [B, T, ...] with B, T >= 1: "
                "evaluate_actions takes sequences; add an axis for a single step"
            )
        return first.shape[0], first.shape[1]

    def _whole_state(self, state: TensorDict | None, batch_size: int) -> StateTensors:
        """Return the tensors of a state that has the critic's memory, where there is one."""
        if state is None:
            return self.initial_tensors(batch_size, self.device)
        state = with_todays_names(state)
        if CRITIC_MEMORY in self.network.memories() and CRITIC_MEMORY not in state:
            raise ValueError(
                "the state lacks the critic's memory, on which values depend: begin with "
                "policy.initial_state(B), or with None; the state of an actor has none"
            )
        return self.unpack_state(state, batch_size)

    def _read_actions(self, actions: Any, lead: tuple[int, int]) -> Tensor:
        """Return actions `[B, T, ...]` in the policy's units."""
        reader = ObservationReader(self.action_space, "actions")
        found, _, _ = reader.read(actions, lead, "one action for each observation")
        parts = [found] if isinstance(found, Tensor) else list(found.values())
        parts = [part.to(self.device) for part in parts]
        nested = build(self.action_space, iter(parts)) if reader.is_nested else parts[0]
        return self.network.distribution.from_env(nested)

    def _read_auxiliary(
        self, raw: Observation, lead: tuple[int, int], reward: Any, action_mask: Any
    ) -> AuxiliaryValues:
        """Return rewards `[B, T]` and the flags of masks `[B, T, num_outputs]`, where needed."""
        rows = lead[0] * lead[1]
        if action_mask is not None:
            mask, width = as_tensor(action_mask, "action_mask"), self.auxiliary_reader.mask.width
            if mask.shape != (*lead, width):
                raise ValueError(
                    f"action_mask has shape {list(mask.shape)}, expected {[*lead, width]}: a flag "
                    "for each output of the action head"
                )
            action_mask = mask.flatten(0, 1)
        if reward is not None and tuple(as_tensor(reward, "reward").shape) != lead:
            shape = list(as_tensor(reward, "reward").shape)
            raise ValueError(f"reward has shape {shape}, expected {list(lead)}")
        flat, flags = self.auxiliary_reader.read(
            map_observation(lambda one: one.flatten(0, 1), raw),
            rows,
            reward,
            action_mask,
            False,
            self.device,
        )
        return (
            None if flat is None else flat.unflatten(0, lead),
            None if flags is None else flags.unflatten(0, lead),
        )

    def _sequence_input(
        self,
        raw: Observation,
        action: Tensor,
        tensors: StateTensors,
        reset: Tensor | None,
        auxiliary: AuxiliaryValues,
    ) -> tuple[Observation, StateTensors, StateTensors]:
        """Do what `network_input` does at each of the steps `[B, T]`, as acting did it."""
        inputs, x = self.auxiliary, self.normalizer(raw)
        if not inputs.is_active:
            return x, (), tensors
        count = len(inputs.state_shapes)
        own, tensors = tensors[:count], tensors[count:]
        joined: list[dict[str, Tensor]] = []
        for t in range(action.shape[1]):
            reward, mask = (None if one is None else one[:, t] for one in auxiliary)
            step = map_observation(lambda one, t=t: one[:, t], x)  # type: ignore[misc]
            flags = None if reset is None else reset[:, t]
            joined.append(inputs.join(step, own, flags, reward, mask))
            own = inputs.after(own, action[:, t])
        names = joined[0]
        return {name: torch.stack([one[name] for one in joined], 1) for name in names}, own, tensors


def _read_resets(reset: Any, lead: tuple[int, int], device: torch.device) -> Tensor | None:
    if reset is None:
        return None
    flags = as_tensor(reset, "reset")
    if flags.dtype != torch.bool or tuple(flags.shape) != lead:
        raise ValueError(
            f"reset has shape {list(flags.shape)} and dtype {flags.dtype}, expected bools "
            f"{list(lead)}: true where a step is the first of an episode"
        )
    return flags.to(device)

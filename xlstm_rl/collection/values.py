"""The critic's part of a rollout, computed once the rollout is there: acting needs no values.

A critic that shares the actor's memory reads its features, of the whole rollout in one call. A
critic with a memory of its own is not stepped while acting: that memory runs over the collected
sequences, which costs a fraction of as many single steps.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlstm_rl.collection.insertion import FinalInput, Insertion
from xlstm_rl.memory import StateTensors
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.actor_critic import ActorCritic
from xlstm_rl.policy.encoders.observations import map_observation


@dataclass
class Values:
    """What the critic says of a rollout of T steps in B environments."""

    value: Tensor
    """`[T, B]`."""

    final_value: Tensor | None
    """`[T, B]`, of the final observations, 0 where there is none; None: nowhere."""

    last_value: Tensor
    """`[B]`, of the observation behind the last step."""

    segment_states: list[StateTensors]
    """The critic's own memory, batch first, before each time segment; without tensors where it
    has none."""


@dataclass
class Collected:
    """What the critic may look at, once a rollout is there."""

    observation: Observation
    """The network's input `[T, B, ...]`."""

    reset: Tensor
    """`[T, B]`, true at the first step of an episode."""

    truncated: NDArray[np.bool_]
    """`[T, B]`, in host memory: where final observations count."""

    last: Observation
    """The network's input `[B, ...]` behind the last step."""

    last_reset: Tensor | None
    """`[B]`; None: nowhere."""


class Critic(ABC):
    """Values one rollout after the other."""

    state: StateTensors = ()
    """The critic's own memory `[B, ...]`; empty where it has none."""

    def __init__(self, network: ActorCritic) -> None:
        self.network = network

    @abstractmethod
    def begin(self, num_envs: int, device: torch.device) -> None:
        """Begin new episodes everywhere."""

    @abstractmethod
    def begin_rollout(self, steps: int) -> None:
        """Forget what was seen of the rollout before."""

    @abstractmethod
    def see(self, t: int, features: Tensor) -> None:
        """Take the actor's features `[B, D]` of step t."""

    @abstractmethod
    def see_final(self, final: FinalInput, actor_state: StateTensors) -> None:
        """Take final observations, and the actor's memory `[B, ...]` behind their step."""

    @abstractmethod
    def evaluate(self, rollout: Collected, actor_state: StateTensors, segment_steps: int) -> Values:
        """Value a rollout.

        Args:
            rollout: all of it.
            actor_state: the actor's memory `[B, ...]` behind the last step.
            segment_steps: steps between two states that are handed out.
        """


class SharedCritic(Critic):
    """A head on the features of the actor's memory."""

    def begin(self, num_envs: int, device: torch.device) -> None:
        """Do nothing: there is no memory."""

    def begin_rollout(self, steps: int) -> None:
        """Forget what was seen of the rollout before."""
        self._steps, self._features = steps, torch.empty(0)
        self._finals: list[tuple[int, Tensor | slice, Tensor]] = []

    def see(self, t: int, features: Tensor) -> None:
        """Keep the features."""
        if t == 0:
            shape = self._steps, *features.shape
            self._features = torch.empty(shape, dtype=features.dtype, device=features.device)
        self._features[t] = features

    def see_final(self, final: FinalInput, actor_state: StateTensors) -> None:
        """Take one more step of the actor's memory, which is not kept."""
        state = tuple(tensor[final.rows] for tensor in actor_state)
        _, features, _ = self.network.actor_step(final.x, state, None)
        self._finals.append((final.t, final.rows, self.network.value(features)))

    def evaluate(self, rollout: Collected, actor_state: StateTensors, segment_steps: int) -> Values:
        """Read the features of the whole rollout."""
        value, final_value = self.network.value(self._features), None
        if self._finals:
            final_value = torch.zeros_like(value)
            for t, rows, found in self._finals:
                final_value[t, rows] = found
        _, features, _ = self.network.actor_step(rollout.last, actor_state, rollout.last_reset)
        segments = -(-value.shape[0] // segment_steps)
        return Values(value, final_value, self.network.value(features), [()] * segments)


class SeparateCritic(Critic):
    """An encoder and a memory of its own, run over the collected sequences."""

    def begin(self, num_envs: int, device: torch.device) -> None:
        """Begin with a fresh memory."""
        self.state = self.network.critic_initial_tensors(num_envs, device)

    def begin_rollout(self, steps: int) -> None:
        """Forget what was seen of the rollout before."""
        self._finals: list[FinalInput] = []

    def see(self, t: int, features: Tensor) -> None:
        """Do nothing: the actor's features are not what the critic reads."""

    def see_final(self, final: FinalInput, actor_state: StateTensors) -> None:
        """Keep them."""
        self._finals.append(final)

    def evaluate(self, rollout: Collected, actor_state: StateTensors, segment_steps: int) -> Values:
        """Run the critic's memory over each time segment."""
        values: list[Tensor] = []
        finals: list[tuple[Insertion, Tensor]] = []
        states: list[StateTensors] = []
        steps = rollout.truncated.shape[0]
        for start in range(0, steps, segment_steps):
            segment = slice(start, start + segment_steps)
            states.append(self.state)
            insertion = Insertion(
                self._finals,
                rollout.truncated,
                start,
                min(start + segment_steps, steps),
                rollout.reset.device,
            )
            x = map_observation(partial(_sequences, segment=segment), rollout.observation)
            value, final = self._run(x, rollout.reset[segment].T, insertion)
            values.append(value.T)
            if final is not None:
                finals.append((insertion, final))
        value, final_value = torch.cat(values), None
        if finals:
            final_value = torch.zeros_like(value)
            for insertion, final in finals:
                final_value[insertion.at] = final
        last_value, _ = self.network.critic_step(rollout.last, self.state, rollout.last_reset)
        return Values(value, final_value, last_value, states)

    def _run(
        self, x: Observation, reset: Tensor, insertion: Insertion
    ) -> tuple[Tensor, Tensor | None]:
        """Value a segment `[B, S, ...]` and its final observations, and carry the memory on."""
        flags = reset if bool(reset.any()) else None
        if not len(insertion):
            value, self.state = self.network.critic_sequence(x, self.state, flags)
            return value, None
        rows, others, before = insertion.rows, insertion.others, self.state
        longer, after = self.network.critic_sequence(
            insertion.insert(x), _rows(before, rows), insertion.spread(reset)
        )
        value = longer.new_empty(reset.shape)
        value[rows] = insertion.steps_of(longer)
        self.state = _with_rows(before, rows, after)
        if len(others):
            value[others], after = self.network.critic_sequence(
                map_observation(lambda one: one[others], x), _rows(before, others), reset[others]
            )
            self.state = _with_rows(self.state, others, after)
        return value, insertion.inserted_in(longer)


def _sequences(x: Tensor, segment: slice) -> Tensor:
    """Return a segment of `[T, B, ...]` as `[B, S, ...]`."""
    return x[segment].transpose(0, 1)


def _rows(state: StateTensors, rows: Tensor) -> StateTensors:
    return tuple(tensor[rows] for tensor in state)


def _with_rows(state: StateTensors, rows: Tensor, new: StateTensors) -> StateTensors:
    """Return a new state, because the old one is handed out as that of a segment."""
    return tuple(
        old.index_copy(0, rows, one.to(old.dtype)) for old, one in zip(state, new, strict=True)
    )


def make_critic(network: ActorCritic) -> Critic:
    """Return how the values of a network's rollouts are computed."""
    return (SharedCritic if network.critic_trunk is None else SeparateCritic)(network)

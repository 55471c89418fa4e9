"""Collects rollouts `[B, T]` from a vector environment with a recurrent policy."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from tensordict import TensorDict
from torch import Tensor

from xlstm_rl.autoreset import Array, EpisodeStream, RawObservation, Transition
from xlstm_rl.buffers import Buffers, batch_first
from xlstm_rl.errors import TrainingError
from xlstm_rl.masks import read_masks
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.actor_critic import Leaves
from xlstm_rl.policy.policy import Policy, to_numpy


@dataclass
class Rollout:
    """T steps of B environments, episode borders inside."""

    data: TensorDict
    """Batch size `[B, T]`: `observation` (normalised, as the network saw it; a TensorDict by the
    leaf's name where the space is a Dict or Tuple), `action` (in the policy's units), `log_prob`,
    `value`, `next_value`, `reward`, `terminated`, `truncated`, `reset`, `live`."""

    segment_leaves: list[Leaves]
    """The memory states, batch first, before the first step of each time segment."""

    raw_observation: Any
    """`[B, T, ...]`, a tensor or a TensorDict, flattened but not normalised: the numbers that the
    running statistics are fed with."""

    episode_returns: list[float] = field(default_factory=list)
    """Sums of raw rewards of the episodes that ended."""

    episode_lengths: list[int] = field(default_factory=list)
    """Their lengths in steps."""

    def all_live(self) -> bool:
        """Return whether no step is a dead autoreset step."""
        return bool(self.data["live"].all())


class Collector:
    """Steps a policy through a vector environment, carrying its memory from rollout to rollout.

    Each stored step is evaluated with the statistics, weights and memory state it was acted with,
    so the stored log-probabilities are those of the policy that acted.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        policy: Policy,
        rollout_steps: int,
        segment_steps: int,
        seed: int,
        generator: torch.Generator,
    ) -> None:
        self.policy = policy
        self.rollout_steps = rollout_steps
        self.segment_steps = segment_steps
        self.generator = generator
        self.steps_done = 0
        self._stream = EpisodeStream(env)
        self._num_envs = env.num_envs
        self._device = policy.device
        # held, because a module looks its parts up in a dict at every access
        self._context, self._normalizer = policy.context, policy.normalizer
        self._leaves = policy.network.initial_leaves(env.num_envs, policy.device)
        self._context_leaves = policy.context.initial_leaves(env.num_envs, policy.device)
        self._observation = self._stream.reset(seed)
        self._infos = [self._stream.first_info]
        self._reset = np.ones(env.num_envs, dtype=bool)
        self._dead = np.zeros(env.num_envs, dtype=bool)
        self._reward: Tensor | None = None
        self._return = np.zeros(env.num_envs)
        self._length = np.zeros(env.num_envs, dtype=np.int64)

    @torch.no_grad()
    def collect(self) -> Rollout:
        """Collect `rollout_steps` steps of every environment.

        Raises:
            TrainingError: an observation or a reward is not finite, or a mask allows no action.
        """
        network, context = self.policy.network, self._context
        distribution = network.distribution
        self._device = self.policy.device  # looked up once: it asks a parameter
        buffers = Buffers(self.policy, self.rollout_steps, self._num_envs)
        segment_leaves: list[Leaves] = []
        returns: list[float] = []
        lengths: list[int] = []
        final_values: list[tuple[int, Tensor, Tensor]] = []
        for t in range(self.rollout_steps):
            if t % self.segment_steps == 0:
                # copied, because no gradient may flow through what inference mode has made
                segment_leaves.append(tuple(leaf.clone() for leaf in self._leaves))
            with torch.inference_mode():  # a tenth of a step's time: nothing is tracked
                raw, x, reset = self._network_input(t)
                params, value, self._leaves = network.step(x, self._leaves, reset)
                action = distribution.sample(params, self.generator)
                if self._context_leaves:
                    self._context_leaves = context.after(self._context_leaves, action)
            buffers.write_decision(t, raw, x, params, value, action, self._reset, self._dead)
            transition = self._stream.step(to_numpy(distribution.to_env(action)))
            buffers.write_outcome(t, transition)
            if context.reads_reward:
                self._reward = buffers.reward[t].to(self._device)
            if transition.final_observation is not None:
                rows = torch.from_numpy(transition.final_rows).to(self._device)
                value = self._final_value(rows, transition.final_observation, t + 1)
                final_values.append((t, rows, value))
            if transition.broken is not None:
                buffers.drop_episodes(t, transition.broken)
            self._count_episodes(transition, returns, lengths)
            self._observation, self._infos = transition.observation, transition.infos
            self._reset, self._dead = transition.reset, transition.dead
        self._check_finite(buffers)
        numbers, x, reset = self._network_input(self.rollout_steps)
        self._refuse_non_finite(numbers, self.rollout_steps)
        _, last_value, _ = network.step(x, self._leaves, reset)
        self.steps_done += self.rollout_steps * self._num_envs
        return Rollout(
            buffers.to_tensordict(distribution, last_value, final_values),
            segment_leaves,
            batch_first(buffers.raw, self._num_envs, self.rollout_steps),
            returns,
            lengths,
        )

    def _network_input(self, t: int) -> tuple[Observation, Observation, Tensor | None]:
        """Return the numbers that are normalised, all that the network reads, and the resets."""
        numbers, x = self._normalized(self._observation)
        reset, context = self._reset_tensor(), self._context
        if context.is_active:
            mask = self._mask(t) if context.reads_mask else None
            x = context.join(x, self._context_leaves, reset, self._reward, mask)
        return numbers, x, reset

    def _normalized(self, observation: RawObservation) -> tuple[Observation, Observation]:
        normalizer: Any = self._normalizer
        if isinstance(observation, dict):
            raw: Any = {name: self._tensor(part) for name, part in observation.items()}
        else:
            raw = self._tensor(observation)
        flat = normalizer.flatten(raw)
        return normalizer.numbers(flat), normalizer.normalize(flat)

    def _mask(self, t: int) -> Tensor:
        step = self.steps_done + t * self._num_envs
        flags = read_masks(
            self.policy,
            self._observation,
            self._infos,
            self._dead,
            lambda row: f"environment {row} at step {step}",
        )
        return self._tensor(flags)

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _reset_tensor(self) -> Tensor | None:
        # Most steps begin no episode anywhere; the memory's path without masks is cheaper.
        if not self._reset.any():
            return None
        return torch.from_numpy(self._reset).to(self._device)

    def _final_value(self, rows: Tensor, observation: RawObservation, t: int) -> Tensor:
        """Value final observations with the memory of the episodes that they belong to."""
        leaves = tuple(leaf[rows] for leaf in self._leaves)
        numbers, x = self._normalized(observation)
        self._refuse_non_finite(numbers, t, rows)
        context = self._context
        if context.is_active:  # no mask: no value depends on what could be done
            own = tuple(leaf[rows] for leaf in self._context_leaves)
            reward = None if self._reward is None else self._reward[rows]
            x = context.join(x, own, None, reward, None)
        _, value, _ = self.policy.network.step(x, leaves, None)
        return value

    def _count_episodes(
        self, transition: Transition, returns: list[float], lengths: list[int]
    ) -> None:
        self._return += transition.reward
        self._length += ~self._dead
        ended = transition.terminated | transition.truncated
        if ended.any():
            whole = ended if transition.broken is None else ended & ~transition.broken
            returns += self._return[whole].tolist()
            lengths += self._length[whole].tolist()
            self._return[ended] = 0.0
            self._length[ended] = 0

    def _check_finite(self, buffers: Buffers) -> None:
        """Refuse NaN and infinities before they reach the statistics or the weights."""
        bad = ~torch.isfinite(buffers.reward)
        if bad.any():
            t, row = (int(i) for i in bad.nonzero()[0])
            raise self._non_finite("reward", row, t)
        self._refuse_non_finite(buffers.raw, 0)

    def _refuse_non_finite(
        self, numbers: Observation, first: int, rows: Tensor | None = None
    ) -> None:
        """Look at numbers `[T, B, n]` from step `first` on, or `[B, n]` of one step."""
        parts = {"": numbers} if isinstance(numbers, Tensor) else numbers
        for name, values in parts.items():
            bad = ~torch.isfinite(values).all(-1)
            if bad.any():
                *step, row = (int(i) for i in bad.nonzero()[0])
                number = row if rows is None else int(rows[row])
                what = f"observation {name!r}" if name else "observation"
                raise self._non_finite(what, number, first + sum(step))

    def _non_finite(self, what: str, row: int, t: int) -> TrainingError:
        return TrainingError(
            f"the environment returned a non-finite {what} in environment {row} at step "
            f"{self.steps_done + t * self._num_envs}: NaN or infinite values cannot be trained "
            "on; check the environment's rewards and observations"
        )

"""What the vector environments that compute all episodes at once have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import Array
from xlstm_rl.envs.tasks.clock import EpisodeClock, Rows
from xlstm_rl.envs.tasks.values import BatchValues, Values
from xlstm_rl.options.arguments import check_whole

_NEVER = int(np.iinfo(np.int64).max)


class BatchedVectorEnv(BatchValues, VectorEnv[Any, Any, Any]):
    """Keep the clocks of `B` episodes: time limit, autoreset, `final_obs` as Gymnasium's own.

    Like `gymnasium.vector.SyncVectorEnv` in what `reset` and `step` return, in all three autoreset
    modes and in `options={"reset_mask": ...}`; other reset options hold for that one reset only.

    What a subclass computes is written once, in operations that NumPy's arrays and torch's tensors
    share. It runs on tensors with `tensors` or away from the CPU, and else on arrays, whose calls
    cost a fraction; the numbers drawn are the same. NumPy goes in and comes out, or, with
    `tensors`, tensors on the device: then nothing leaves it, rewards are float32, and `final_obs`
    is one tensor `[B, ...]`, valid where its mask `_final_obs` is true.

    With `tensors` no step waits for the device either (in DISABLED mode: none of a task that knows
    its `episode_steps`). Who is over follows from their number, or is a mask that stays where it
    is; `final_obs` then comes with every step.

    The environments share one random generator, so seed s does not start them where the seeds
    s, s + 1, ... start those of a SyncVectorEnv; another kind of device draws other numbers.

    Args:
        num_envs: Number of environments, `B`.
        observation_space: Of one environment.
        action_space: Of one environment.
        max_episode_steps: Truncate after so many steps; None: never.
        autoreset_mode: When a finished episode restarts.
        render_mode: Kept as an attribute.
        device: Where the states are.
        tensors: Take and return tensors instead of NumPy arrays.
    """

    episode_steps: int | None = None
    """After how many steps every episode terminates; None: that depends on the actions."""

    def __init__(
        self,
        num_envs: int,
        observation_space: Space[Any],
        action_space: Space[Any],
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        device: torch.device | str = "cpu",
        tensors: bool = False,
    ) -> None:
        BatchValues.__init__(self, device, tensors)
        self.num_envs = num_envs = check_whole("num_envs", num_envs, 1)
        self.render_mode = render_mode
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.clock = EpisodeClock(self, num_envs)
        self.elapsed = self.clock.elapsed
        """Steps of each episode so far, `[B]`; a step counts itself."""
        self.every = self.array(range(num_envs))
        """The indices of all environments, `[B]`."""
        self._max_steps = _NEVER
        if max_episode_steps is not None:
            self._max_steps = check_whole("max_episode_steps", max_episode_steps, 1)
        self._done = self.zeros(num_envs, dtype="bool")
        self._over: Rows | None = None
        self._started = False

    @property
    def may_truncate(self) -> bool:
        """Whether an episode can be cut before it terminates."""
        return self._max_steps < (self.episode_steps or _NEVER)

    @abstractmethod
    def _begin(self, rows: Values, options: dict[str, Any]) -> None:
        """Draw the initial states of the environments `rows [N]` from `self.generator`.

        In a task without `episode_steps`, on tensors, `rows` may be a mask: see `_draw_ahead`.
        """

    @abstractmethod
    def _advance(self, actions: Values) -> tuple[Values, Values]:
        """Move every state by one step; `self.elapsed` already counts it.

        What becomes of an episode that is over does not matter, its clock is then 1.

        Returns:
            New rewards and terminations, `[B]` each.
        """

    @abstractmethod
    def _observe(self) -> Values:
        """Return the observations of all environments, `[B, ...]`, in new memory."""

    def _draw_ahead(self) -> None:
        """Draw what the next episodes of all environments begin with, at every reset and step.

        For tasks without `episode_steps` that run on tensors: their `_begin` gets a mask there, and
        takes what was drawn, so that the numbers do not depend on how many episodes are over.
        """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start new episodes, in all environments or in those of `options["reset_mask"]`.

        Returns:
            Observations `[B, ...]` of all environments, and an empty info.

        Raises:
            ValueError: The mask is not a bool array (or tensor) `[B]`, or selects nothing.
        """
        super().reset(seed=None if seed is None else check_whole("seed", seed, 0))
        if seed is not None or not self._started:
            self.seed_draws((self.np_random_seed or 0) % 2**63)
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        flags = np.ones(self.num_envs, np.bool_) if mask is None else self._check_mask(mask)
        rows = self.clock.known(flags)
        assert rows is not None
        self._draw_ahead()
        self._restart(rows, options)
        self._done[rows[0]] = False
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._over = self.clock.over(self._done, self.episode_steps, self._max_steps)
        self._started = True
        return self._out(self._observe()), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take `actions [B]` in all environments.

        Returns:
            Observations `[B, ...]`, rewards, terminations and truncations `[B]`, and the info; in
            SAME_STEP mode with `final_obs` (objects, `[B]`) and its mask `_final_obs`.

        Raises:
            ResetNeeded: There is no episode to step in: before the first reset, or, in DISABLED
                mode, where an episode is over.
            ValueError: The actions have another shape, or one is outside of its space.
            RuntimeError: With `tensors`, one is outside of its space; a GPU says so later, and
                cannot be used after it.
        """
        if not self._started:
            raise ResetNeeded("call reset before the first step")
        actions = self._check_actions(actions)
        resetting = self._over
        if resetting is not None:
            if self.autoreset_mode is AutoresetMode.DISABLED:
                self._refuse_over(resetting)
            self.clock.set_back(resetting)
        self.clock.count()
        self._draw_ahead()
        rewards, terminated = self._advance(actions)
        truncated = self.elapsed >= self._max_steps
        if resetting is not None:
            self._restart(resetting, {})
            self.put(rewards, resetting[0], 0.0)
            self.put(terminated, resetting[0], False)
            self.put(truncated, resetting[0], False)
        self._done = terminated | truncated
        over = self.clock.over(self._done, self.episode_steps, self._max_steps)
        observations = self._observe()
        infos: dict[str, Any] = {}
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._over = over
        elif over is not None:
            infos = self._final(observations)
            self._restart(over, {})
            observations = self._observe()
        rewards = self._out(rewards)
        if not self.tensors:
            rewards = rewards.astype(np.float64, copy=False)
        return (
            self._out(observations),
            rewards,
            self._out(terminated),
            self._out(truncated),
            infos,
        )

    def _restart(self, rows: Rows, options: dict[str, Any]) -> None:
        self.clock.set_back(rows)
        self._begin(rows[0], options)

    def _refuse_over(self, rows: Rows) -> None:
        over = rows[0].nonzero().squeeze(1) if rows[1] is None else rows[1]
        if len(over):
            raise ResetNeeded(
                f"the episodes of environments {over.tolist()} are over: call reset(options="
                "{'reset_mask': terminated | truncated}) before the next step"
            )

    def _final(self, observations: Values) -> dict[str, Any]:
        """The last observations of the finished episodes, in the form of SyncVectorEnv."""
        mask = self._out(self._done)
        final_obs: Any = observations
        if not self.tensors:
            # Filled by NumPy's own loop: thousands of episodes may end in one step.
            last = self._out(observations[self._done])
            final_obs = np.full(self.num_envs, None, dtype=object)
            final_obs[mask] = np.fromiter(last, dtype=object, count=len(last))
        return {
            "final_obs": final_obs,
            "_final_obs": mask | mask,  # copies: `reset` writes into the mask
            "final_info": {},
            "_final_info": mask | mask,
        }

    def _check_mask(self, mask: Any) -> Array:
        if not (
            isinstance(mask, np.ndarray | Tensor)
            and tuple(mask.shape) == (self.num_envs,)
            and mask.dtype in (np.bool_, torch.bool)
            and mask.any()
        ):
            raise ValueError(
                f"options['reset_mask'] is {mask!r}, expected a bool array of shape "
                f"({self.num_envs},) with at least one True"
            )
        return mask.cpu().numpy() if isinstance(mask, Tensor) else mask

    def _check_actions(self, actions: Any) -> Values:
        batch = self._in(actions)
        space = self.single_action_space
        if not isinstance(space, spaces.Discrete):
            return batch
        # By hand, because action_space.contains takes longer than the step itself.
        whole = not (batch.is_floating_point() if self._on_tensors else batch.dtype.kind == "f")
        right = tuple(batch.shape) == (self.num_envs,) and whole
        if right and self.tensors:  # found by the device, for a look would wait for it
            inside = ((batch >= 0) & (batch < int(space.n))).all()
            torch._assert_async(inside, f"an action is outside of its space, 0 to {space.n - 1}")
        elif not right or batch.min() < 0 or batch.max() >= int(space.n):
            raise ValueError(
                f"the actions are {actions!r}, expected {self.num_envs} integers "
                f"from 0 to {space.n - 1}"
            )
        return batch.long() if self._on_tensors else batch.astype(np.int64, copy=False)

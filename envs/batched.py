"""What the vector environments that compute all episodes at once have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import Space, spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

Array = npt.NDArray[Any]
Values = Any
"""NumPy arrays in an environment on arrays, tensors in one on tensors."""


class BatchedVectorEnv(VectorEnv[Any, Any, Any]):
    """Keep the clocks of `B` episodes: time limit, autoreset, `final_obs` as Gymnasium's own.

    Like `gymnasium.vector.SyncVectorEnv` in what `reset` and `step` return, in all three autoreset
    modes and in `options={"reset_mask": ...}`; other reset options hold for that one reset only.

    What a subclass computes is written once, in operations that NumPy's arrays and torch's tensors
    share. It runs on tensors with `tensors` or away from the CPU, and else on arrays, whose calls
    cost a fraction; the numbers drawn are the same. NumPy goes in and comes out, or, with
    `tensors`, tensors on the device: then nothing leaves it, rewards are float32, and `final_obs`
    is one tensor `[B, ...]`, valid where its mask `_final_obs` is true.

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
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.device = torch.device(device)
        self.tensors = tensors
        self._on_tensors = tensors or self.device.type != "cpu"
        self.generator = torch.Generator(self.device)
        self.elapsed = self.zeros(num_envs)
        """Steps of each episode so far, `[B]`; a step counts itself."""
        self.every = self.array(range(num_envs))
        """The indices of all environments, `[B]`."""
        self._max_steps = np.iinfo(np.int64).max if max_episode_steps is None else max_episode_steps
        self._done = self.zeros(num_envs, dtype="bool")
        self._started = False

    @abstractmethod
    def _begin(self, rows: Values, options: dict[str, Any]) -> None:
        """Draw the initial states of the environments `rows [N]` from `self.generator`."""

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

    def zeros(self, *shape: int, dtype: str = "int64") -> Values:
        """Return zeros, integers if nothing else is asked for."""
        if self._on_tensors:
            return torch.zeros(shape, dtype=getattr(torch, dtype), device=self.device)
        return np.zeros(shape, dtype=dtype)

    def array(self, numbers: Any) -> Values:
        """Return whole numbers as an array or tensor."""
        array = np.array(numbers, dtype=np.int64)
        return torch.from_numpy(array).to(self.device) if self._on_tensors else array

    def draw_integers(self, high: int, *shape: int) -> Values:
        """Draw integers from 0 to `high - 1`."""
        drawn = torch.randint(high, shape, generator=self.generator, device=self.device)
        return drawn if self._on_tensors else drawn.numpy()

    def draw_orders(self, count: int, size: int) -> Values:
        """Draw random orders of the numbers 0 to `size - 1`, `[count, size]`."""
        keys = torch.rand(count, size, generator=self.generator, device=self.device)
        return keys.argsort(1) if self._on_tensors else keys.argsort(1).numpy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start new episodes, in all environments or in those of `options["reset_mask"]`.

        Returns:
            Observations `[B, ...]` of all environments, and an empty info.

        Raises:
            ValueError: The mask is no bool array (or tensor) `[B]`, or selects nothing.
        """
        super().reset(seed=seed)
        if seed is not None or not self._started:
            self.generator.manual_seed((self.np_random_seed or 0) % 2**63)
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        rows = self.every if mask is None else self._rows(self._check_mask(mask))
        self._restart(rows, options)
        self._done[rows] = False
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
        """
        if not self._started:
            raise ResetNeeded("call reset before the first step")
        actions = self._check_actions(actions)
        dead = None
        if self.autoreset_mode is not AutoresetMode.SAME_STEP and self._done.any():
            dead = self._rows(self._done)
            if self.autoreset_mode is AutoresetMode.DISABLED:
                raise ResetNeeded(
                    f"the episodes of environments {dead.tolist()} are over: call reset(options="
                    "{'reset_mask': terminated | truncated}) before the next step"
                )
            self.elapsed[dead] = 0
        self.elapsed += 1
        rewards, terminated = self._advance(actions)
        truncated = self.elapsed >= self._max_steps
        if dead is not None:
            self._restart(dead, {})
            rewards[dead] = 0.0
            terminated[dead] = False
            truncated[dead] = False
        self._done = terminated | truncated
        observations = self._observe()
        infos: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._done.any():
            infos = self._final(observations)
            self._restart(self._rows(self._done), {})
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

    def _restart(self, rows: Values, options: dict[str, Any]) -> None:
        self.elapsed[rows] = 0
        self._begin(rows, options)

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

    def _out(self, values: Values) -> Any:
        return values.cpu().numpy() if self._on_tensors and not self.tensors else values

    def _rows(self, mask: Values) -> Values:
        return mask.nonzero().squeeze(1) if self._on_tensors else np.flatnonzero(mask)

    def _in(self, values: Any) -> Values:
        if self._on_tensors:
            return torch.as_tensor(values, device=self.device)
        return values.numpy() if isinstance(values, Tensor) else np.asarray(values)

    def _check_mask(self, mask: Any) -> Values:
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
        return self._in(mask)

    def _check_actions(self, actions: Any) -> Values:
        batch = self._in(actions)
        space = self.single_action_space
        if not isinstance(space, spaces.Discrete):
            return batch
        # By hand, because action_space.contains takes longer than the step itself.
        whole = not (batch.is_floating_point() if self._on_tensors else batch.dtype.kind == "f")
        right = tuple(batch.shape) == (self.num_envs,) and whole
        if not right or batch.min() < 0 or batch.max() >= int(space.n):
            raise ValueError(
                f"the actions are {actions!r}, expected {self.num_envs} whole numbers "
                f"from 0 to {space.n - 1}"
            )
        return batch.long() if self._on_tensors else batch.astype(np.int64, copy=False)

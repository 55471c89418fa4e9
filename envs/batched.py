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


class BatchedVectorEnv(VectorEnv[Any, Any, Any]):
    """Keep the clocks of `B` episodes: time limit, autoreset, `final_obs` as Gymnasium's own.

    Like `gymnasium.vector.SyncVectorEnv` in what `reset` and `step` return, in all three autoreset
    modes and in `options={"reset_mask": ...}`; other reset options hold for that one reset only.
    States are tensors on `device`. What goes in and out are NumPy arrays, or, with `tensors`,
    tensors on that device: then nothing leaves it, rewards are float32, and `final_obs` is one
    tensor `[B, ...]`, valid where its mask `_final_obs` is true.

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
        self.generator = torch.Generator(self.device)
        # NumPy rewards are float64, as Gymnasium's; not every device has them.
        wide = self.device.type == "cpu" and not tensors
        self.reward_dtype = torch.float64 if wide else torch.float32
        self.elapsed = self.zeros(num_envs)
        """Steps of each episode so far, `[B]`; a step counts itself."""
        self._max_steps = max_episode_steps
        self._done = self.zeros(num_envs, dtype=torch.bool)
        self._never = self.zeros(num_envs, dtype=torch.bool)
        self._started = False

    @abstractmethod
    def _begin(self, rows: Tensor, options: dict[str, Any]) -> None:
        """Draw the initial states of the environments `rows [N]` from `self.generator`."""

    @abstractmethod
    def _advance(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Move every state by one step; `self.elapsed` already counts it.

        What becomes of an episode that is over does not matter, its clock is then 1.

        Returns:
            New tensors of rewards and terminations, `[B]` each.
        """

    @abstractmethod
    def _observe(self) -> Tensor:
        """Return a new tensor with the observations of all environments, `[B, ...]`."""

    def zeros(self, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        """Return a tensor of zeros on the device, integers if nothing else is asked for."""
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def draw_integers(self, high: int, *shape: int) -> Tensor:
        """Draw integers from 0 to `high - 1`."""
        return torch.randint(high, shape, generator=self.generator, device=self.device)

    def draw_orders(self, count: int, size: int) -> Tensor:
        """Draw random orders of the numbers 0 to `size - 1`, `[count, size]`."""
        keys = torch.rand(count, size, generator=self.generator, device=self.device)
        return keys.argsort(1)

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
        if mask is None:
            rows = torch.arange(self.num_envs, device=self.device)
        else:
            rows = _rows(self._check_mask(mask))
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
            dead = _rows(self._done)
            if self.autoreset_mode is AutoresetMode.DISABLED:
                raise ResetNeeded(
                    f"the episodes of environments {dead.tolist()} are over: call reset(options="
                    "{'reset_mask': terminated | truncated}) before the next step"
                )
            self.elapsed[dead] = 0
        self.elapsed += 1
        rewards, terminated = self._advance(actions)
        truncated = self._never.clone()
        if self._max_steps is not None:
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
            self._restart(_rows(self._done), {})
            observations = self._observe()
        if not self.tensors:
            rewards = rewards.cpu().double()
        return (
            self._out(observations),
            self._out(rewards),
            self._out(terminated),
            self._out(truncated),
            infos,
        )

    def _restart(self, rows: Tensor, options: dict[str, Any]) -> None:
        self.elapsed[rows] = 0
        self._begin(rows, options)

    def _final(self, observations: Tensor) -> dict[str, Any]:
        """The last observations of the finished episodes, in the form of SyncVectorEnv."""
        mask = self._out(self._done.clone())
        final_obs: Any = observations
        if not self.tensors:
            # Filled by NumPy's own loop: thousands of episodes may end in one step.
            last = self._out(observations[self._done])
            final_obs = np.full(self.num_envs, None, dtype=object)
            final_obs[mask] = np.fromiter(last, dtype=object, count=len(last))
        return {
            "final_obs": final_obs,
            "_final_obs": mask,
            "final_info": {},
            "_final_info": mask.clone() if self.tensors else mask.copy(),
        }

    def _out(self, values: Tensor) -> Any:
        return values if self.tensors else values.cpu().numpy()

    def _check_mask(self, mask: Any) -> Tensor:
        if isinstance(mask, np.ndarray):
            mask = torch.as_tensor(mask, device=self.device)
        if not (
            isinstance(mask, Tensor)
            and mask.shape == (self.num_envs,)
            and mask.dtype == torch.bool
            and mask.any()
        ):
            raise ValueError(
                f"options['reset_mask'] is {mask!r}, expected a bool array of shape "
                f"({self.num_envs},) with at least one True"
            )
        return torch.as_tensor(mask, device=self.device)

    def _check_actions(self, actions: Any) -> Tensor:
        batch: Tensor = torch.as_tensor(actions, device=self.device)
        space = self.single_action_space
        if not isinstance(space, spaces.Discrete):
            return batch
        # By hand, because action_space.contains takes longer than the step itself.
        right = batch.shape == (self.num_envs,) and not batch.dtype.is_floating_point
        if right:
            low, high = torch.aminmax(batch)
            right = bool(low >= 0) and bool(high < int(space.n))
        if not right:
            raise ValueError(
                f"the actions are {actions!r}, expected {self.num_envs} whole numbers "
                f"from 0 to {space.n - 1}"
            )
        return batch


def _rows(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(1)

"""Control tasks without velocities in the observation: the agent has to remember.

The components that hold velocities are removed, from the observation and from its space; states,
rewards and episode ends are those of the Gymnasium task of the same name.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.envs.classic_control.utils import maybe_parse_reset_bounds
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

from xlstm_rl.envs.spaces.leaves import Array
from xlstm_rl.envs.tasks.batched import BatchedVectorEnv
from xlstm_rl.envs.wrappers.no_velocity import NoVelocity, drop_components

CART_POLE_VELOCITIES = (1, 3)
PENDULUM_VELOCITIES = (2,)
MOUNTAIN_CAR_VELOCITIES = (1,)
LUNAR_LANDER_VELOCITIES = (2, 3, 5)


class _Task(NoVelocity):
    """A part of the registered environment: with it `make_vec` of a specification has a vector."""

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]  # read-only in Wrapper too
        """That of the environment, which names no wrapper."""
        return self.env.spec


def make_cart_pole(**kwargs: Any) -> NoVelocity:
    """CartPole that shows cart position and pole angle, `[2]`."""
    return _Task(CartPoleEnv(**kwargs), CART_POLE_VELOCITIES)


def make_pendulum(**kwargs: Any) -> NoVelocity:
    """Pendulum that shows cosine and sine of its angle, `[2]`."""
    return _Task(PendulumEnv(**kwargs), PENDULUM_VELOCITIES)


def make_mountain_car(**kwargs: Any) -> NoVelocity:
    """MountainCarContinuous that shows the position, `[1]`."""
    return _Task(Continuous_MountainCarEnv(**kwargs), MOUNTAIN_CAR_VELOCITIES)


def make_lunar_lander(**kwargs: Any) -> NoVelocity:
    """LunarLander that shows position, angle and leg contacts, `[5]`; needs Box2D."""
    # Imported here because Box2D is an extra, and without warnings because its bindings crash the
    # interpreter where their deprecation warning is turned into an error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from gymnasium.envs.box2d.lunar_lander import LunarLander

    return _Task(LunarLander(**kwargs), LUNAR_LANDER_VELOCITIES)


class CartPoleNoVelVectorEnv(BatchedVectorEnv):
    """`B` cart-poles without velocities at once, on the equations of Gymnasium's own vector form.

    Gymnasium's `CartPoleVectorEnv` knows NEXT_STEP only, which wastes one step per episode; this
    one has every autoreset mode. Observations `[B, 2]`: cart position, pole angle. Reset options
    `low` and `high` bound the initial states, as in Gymnasium.

    Args:
        num_envs: Number of environments, `B`.
        max_episode_steps: Truncate after so many steps; None: never.
        autoreset_mode: When a finished episode restarts.
        render_mode: None or "rgb_array".
        sutton_barto_reward: Reward 0 per step and -1 for the fall, instead of 1 per step.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012
    # Any: Gymnasium leaves the type of its state to be inferred, as None.
    _physics: Any = None

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 500,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        sutton_barto_reward: bool = False,
    ) -> None:
        self._physics = CartPoleVectorEnv(
            num_envs=num_envs, render_mode=render_mode, sutton_barto_reward=sutton_barto_reward
        )
        space, self._kept = drop_components(
            self._physics.single_observation_space, CART_POLE_VELOCITIES
        )
        super().__init__(
            num_envs,
            space,
            spaces.Discrete(2),
            max_episode_steps,
            autoreset_mode,
            render_mode,
        )
        self._nobody = np.zeros(num_envs, dtype=np.bool_)
        self.state = np.zeros((4, num_envs))

    @property
    def state(self) -> npt.NDArray[np.float64]:
        """Position, velocity, angle and angular velocity of all environments, `[4, B]`."""
        return np.asarray(self._physics.state)

    @state.setter
    def state(self, value: npt.NDArray[np.float64]) -> None:
        self._physics.state = np.array(value, dtype=np.float64).reshape(4, self.num_envs)

    def _begin(self, rows: Array, options: dict[str, Any]) -> None:
        low, high = maybe_parse_reset_bounds(options, -0.05, 0.05)
        self.state[:, rows] = self.np_random.uniform(low, high, size=(4, len(rows)))

    def _advance(self, actions: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        # Gymnasium restarts what it holds for finished; the restarts are ours.
        self._physics.prev_done = self._nobody
        _, rewards, terminated, _, _ = self._physics.step(actions)
        return rewards.astype(np.float64), terminated

    def _observe(self) -> Array:
        observation: Array = self.state[self._kept].T.astype(np.float32)
        return observation

    def render(self) -> Any:
        """Return one RGB image per environment."""
        return self._physics.render()

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window that rendering may have opened."""
        if self._physics is not None:
            self._physics.close(**kwargs)

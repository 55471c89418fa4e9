"""What every registered wrapper is held to; a new one is tested here without an edit."""

import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from xlstm_rl.envs.wrappers.registry import WRAPPERS, wrap


class Picture(gym.Env):
    """A square that walks through an image."""

    observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = int(self.np_random.integers(8))
        return self.seen(), {}

    def step(self, action):
        self.at = (self.at + int(action)) % 8
        return self.seen(), 1.0, False, False, {}

    def seen(self):
        image = np.full((8, 8, 3), 30, np.uint8)
        image[self.at] = 200
        return image


class Signs(Picture):
    """Two symbols out of four."""

    observation_space = gym.spaces.Box(0, 3, (2,), np.int64)

    def seen(self):
        return np.array([self.at % 4, 3 - self.at % 4])


sys.modules.setdefault("test_every_wrapper", sys.modules[__name__])  # named in specifications
for name in ("Picture", "Signs"):
    gym.register(
        f"test_every_wrapper/{name}-v0", f"test_every_wrapper:{name}", max_episode_steps=30
    )

BASES = ("CartPole-v1", "test_every_wrapper/Picture-v0", "test_every_wrapper/Signs-v0")


def make(name):
    """Put a wrapper around the first environment that it accepts."""
    refusals = []
    for base in BASES:
        env = gym.make(base)
        try:
            return wrap(env, {name: WRAPPERS[name].example})
        except ValueError as error:
            refusals.append(f"{base}: {error}")
    raise AssertionError(f"{name} fits none of {BASES}: {refusals}")


def play(env, steps=60):
    env.action_space.seed(0)
    seen = [env.reset(seed=5)[0]]
    for _ in range(steps):
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        seen.append(observation)
        if terminated or truncated:
            seen.append(env.reset()[0])
    return seen


@pytest.mark.parametrize("name", WRAPPERS)
def test_its_observations_are_in_its_space_and_follow_from_the_seed(name):
    first, second = make(name), make(name)
    seen = play(first)
    assert all(first.observation_space.contains(one) for one in seen)
    for one, other in zip(seen, play(second), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")
@pytest.mark.filterwarnings("ignore:.*Box observation space m.*imum value is:UserWarning")
def test_gymnasium_finds_nothing_wrong_with_it(name):
    check_env(make(name), skip_render_check=True)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_specification_goes_through_json_and_back(name):
    env = make(name)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec
    assert type(again) is type(env)
    for one, other in zip(play(env), play(again), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", WRAPPERS)
def test_it_says_what_it_does_in_its_first_line(name):
    line = (type(make(name)).__doc__ or "").partition("\n")[0]
    assert len(line) > 20 and line.endswith(".")

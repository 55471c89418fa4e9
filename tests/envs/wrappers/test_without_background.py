import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from xlstm_rl.envs import WithoutBackground


class Film(gym.Env):
    """Shows one image after another, into the same array."""

    def __init__(self, images, low=0, high=255, dtype=np.uint8):
        self.images = np.array(images, dtype)
        self.observation_space = spaces.Box(low, high, self.images.shape[1:], dtype)
        self.action_space = spaces.Discrete(2)
        self.at = -1
        self.shown = np.zeros_like(self.images[0])

    def _show(self):
        self.at += 1
        self.shown[:] = self.images[self.at]
        return self.shown

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._show(), {"at": self.at}

    def step(self, action):
        return self._show(), 1.0, False, False, {"at": self.at}


def test_what_stands_still_is_black_and_what_moves_is_as_bright_as_it_differs():
    env = WithoutBackground(Film([[7, 250, 0], [7, 0, 255], [9, 250, 0]]))
    image, info = env.reset()
    assert image.tolist() == [0, 0, 0]
    assert info == {"at": 0}
    image, reward, *_ = env.step(0)
    assert image.tolist() == [0, 250, 255]
    assert image.dtype == np.uint8
    assert reward == 1.0
    assert env.step(0)[0].tolist() == [2, 0, 0]


def test_each_episode_has_a_background_of_its_own():
    env = WithoutBackground(Film([[10], [30], [30], [10]]))
    env.reset()
    assert env.step(0)[0].tolist() == [20]
    assert env.reset()[0].tolist() == [0]
    assert env.step(0)[0].tolist() == [20]


def test_the_space_holds_the_largest_difference():
    env = WithoutBackground(Film([[100], [200]], low=100, high=200))
    assert env.observation_space == spaces.Box(0, 100, (1,), np.uint8)
    env.reset()
    assert env.observation_space.contains(env.step(0)[0])


@pytest.mark.parametrize("inner", [Film([[0.5], [1.0]], dtype=np.float32), gym.make("CartPole-v1")])
def test_other_observations_are_refused(inner):
    with pytest.raises(ValueError, match="expected a Box of uint8, an image"):
        WithoutBackground(inner)

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from xlstm_rl.envs import Symbols


class Codes(gym.Env):
    def __init__(self, values, high=255, dtype=np.uint8):
        self.values = np.array(values, dtype)
        self.observation_space = spaces.Box(0, high, self.values.shape, dtype)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.values, {}


def test_each_code_is_one_choice_in_the_order_of_the_array():
    env = Symbols(Codes([[[0, 5], [2, 1]]]), sizes=[3, 6])
    assert env.observation_space == spaces.MultiDiscrete([3, 6, 3, 6])
    observation, _ = env.reset()
    assert observation.tolist() == [0, 5, 2, 1]
    assert env.observation_space.contains(observation)


def test_a_code_that_has_no_place_is_named_with_where_it_stood():
    env = Symbols(Codes([[0, 5], [3, 1]]), sizes=[3, 6])
    with pytest.raises(ValueError, match=r"code 3 at \[1, 0\]: expected 0 to 2"):
        env.reset()


@pytest.mark.parametrize(
    ("inner", "sizes", "message"),
    [
        (Codes([[0, 1]]), [2, 2, 2], r"last axis has length 3"),
        (Codes([0.5], dtype=np.float32), [2], r"expected a Box of integers"),
        (Codes([0, 1]), [2, 0], r"sizes \[2, 0\]: expected integers >= 1"),
    ],
)
def test_what_does_not_fit_is_refused(inner, sizes, message):
    with pytest.raises(ValueError, match=message):
        Symbols(inner, sizes)

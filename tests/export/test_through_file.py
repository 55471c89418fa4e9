"""A policy that acts through its exported file plays the same episodes, of every kind of task."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import xlstm_rl.envs
from xlstm_rl import evaluate
from xlstm_rl.errors import ExportError
from xlstm_rl.export import export_policy, through_file

from .conftest import BOX, make_policy
from .test_formats import moved

assert xlstm_rl.envs


class Pixels(gymnasium.Env):
    """Pays for the colour of the image that is named."""

    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._image(), {}

    def _image(self):
        self.colours = self.np_random.integers(0, 200, 3)
        noise = self.np_random.integers(0, 56, (36, 36, 3))
        return (self.colours + noise).astype(np.uint8)

    def step(self, action):
        paid, self.steps = float(self.colours[action]), self.steps + 1
        return self._image(), paid, self.steps == 12, False, {}


def discrete():
    return gymnasium.make("xlstm_rl/CartPoleNoVel-v1")


def continuous():
    return gymnasium.make("xlstm_rl/PendulumNoVel-v1", max_episode_steps=30)


def nested():
    return gymnasium.wrappers.TimeAwareObservation(gymnasium.make("CartPole-v1"), flatten=False)


TASKS = {
    "discrete": (discrete, {"pattern": "ms"}, {"previous_action": True}),
    "continuous": (continuous, {"pattern": "m"}, {"previous_reward": True}),
    "dict": (nested, {"kind": "lstm"}, {}),
    "image": (Pixels, {"kind": "gru"}, {}),
}
FORMATS = [
    ("c", "discrete"),
    ("c", "continuous"),
    ("c", "dict"),
    ("c", "image"),
    ("pt2", "discrete"),
    ("pt2", "image"),
    ("onnx", "dict"),
    pytest.param("pt2", "continuous", marks=pytest.mark.slow),
    pytest.param("pt2", "dict", marks=pytest.mark.slow),
    pytest.param("onnx", "discrete", marks=pytest.mark.slow),
    pytest.param("onnx", "continuous", marks=pytest.mark.slow),
    pytest.param("onnx", "image", marks=pytest.mark.slow),
]


def policy_of(task):
    make, memory, options = TASKS[task]
    env = make()
    return moved(make_policy(env.observation_space, env.action_space, memory, options)), make


@pytest.mark.parametrize(("format", "task"), FORMATS)
@pytest.mark.each_value
def test_a_file_scores_what_its_policy_scores(format, task, tmp_path):
    policy, make = policy_of(task)
    path = export_policy(policy, tmp_path / f"policy.{format}", format)
    expected = evaluate(policy, make, episodes=6, seed=3)
    found = evaluate(through_file(policy, path), make, episodes=6, seed=3)
    np.testing.assert_allclose(found.returns, expected.returns, rtol=1e-4)
    assert found.lengths == expected.lengths
    assert len(set(expected.returns)) > 1


def test_an_actor_acts_through_the_file_and_keeps_its_state(tmp_path):
    policy, _ = policy_of("discrete")
    file = through_file(policy, export_policy(policy, tmp_path / "policy.c", "c"))
    mine, theirs = file.actor(), policy.actor()
    rng = np.random.default_rng(0)
    for number in range(30):
        obs = rng.uniform(-1, 1, 2).astype(np.float32)
        reset = number % 11 == 0
        assert mine(obs, reset) == theirs(obs, reset)
    for a, b in zip(mine.state.values(True, True), theirs.state.values(True, True), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    many, same = file.actor(num_envs=3), policy.actor(num_envs=3)
    obs = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
    np.testing.assert_array_equal(many(obs, True), same(obs, True))


def test_the_policy_itself_goes_on_by_itself(tmp_path):
    policy, _ = policy_of("discrete")
    path = export_policy(policy, tmp_path / "policy.c", "c")
    file = through_file(policy, path)
    with pytest.raises(ExportError, match="no samples"):
        file.act(np.zeros((1, 2), np.float32), deterministic=False)
    policy.act(np.zeros((1, 2), np.float32), deterministic=False)


def test_a_file_of_another_kind_is_refused(tmp_path):
    policy = make_policy(BOX, spaces.Discrete(3), {"kind": "gru"}, {})
    with pytest.raises(ExportError, match=r"expected a name that ends in \.onnx, \.pt2, \.c"):
        through_file(policy, tmp_path / "policy.tflite")

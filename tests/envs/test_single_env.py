"""What an environment can be made of, one or several; what cannot be is refused in a line."""

import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from xlstm_rl.envs import EnvConfig, MemoryChain, MemoryChainVectorEnv, make_env, make_vector_env

CHAIN = "xlstm_rl/MemoryChain-v0"


class Blank(gym.Env):
    """Has spaces, and can be asked for images."""

    observation_space, action_space = spaces.Box(0, 100, (1,), np.float32), spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode


def test_one_environment_for_evaluation():
    env = make_env(EnvConfig(CHAIN, kwargs={"length": 6}, max_episode_steps=4))
    assert env.unwrapped.length == 6
    assert env.spec.max_episode_steps == 4
    assert isinstance(make_env(EnvConfig(max_episode_steps=4), Blank), TimeLimit)
    ready = MemoryChain()
    assert make_env(EnvConfig(), ready) is ready
    assert make_env(EnvConfig(), "CartPole-v1").spec.id == "CartPole-v1"


def test_an_environment_that_can_be_seen():
    pytest.importorskip("pygame")
    env = make_env(EnvConfig(), render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (400, 600, 3)
    env.close()
    env = make_env(EnvConfig(), Blank, render_mode="rgb_array")
    assert env.render_mode == "rgb_array"
    for env in (lambda: Blank(), Blank()):
        with pytest.raises(ValueError, match="'rgb_array' is needed: let the callable"):
            make_env(EnvConfig(), env, render_mode="rgb_array")


def _shared():
    env = Blank()
    return lambda: TimeLimit(env, 3)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (_shared(), "returned the same environment twice"),
        (lambda: 3, "returned int, expected a gymnasium.Env"),
        (lambda: MemoryChainVectorEnv(2), "given as it is, without a callable"),
        (3, "given as int, expected an id, a callable .* or a gymnasium.vector.VectorEnv"),
        (Blank(), "given as Blank, expected an id, a callable"),
        (lambda: gym.make("CartPole-v7"), "cannot be made: .*v7"),
    ],
)
def test_what_is_no_environment_is_refused(env, message):
    with pytest.raises(ValueError, match=message):
        make_vector_env(EnvConfig(), env)


def test_a_vector_is_no_single_environment():
    with pytest.raises(ValueError, match="one single environment is needed"):
        make_env(EnvConfig(), MemoryChainVectorEnv(num_envs=2))


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_an_argument_that_the_environment_lacks_is_named(vectorization):
    config = EnvConfig(CHAIN, vectorization=vectorization, kwargs={"lenght": 3})
    with pytest.raises(ValueError, match=r"MemoryChain-v0 does not take .*'lenght'"):
        make_vector_env(config)


def test_an_unknown_id_is_answered_with_the_one_that_was_meant():
    for make in (make_env, make_vector_env):
        with pytest.raises(ValueError, match="did you mean 'xlstm_rl/CartPoleNoVel-v1'"):
            make(EnvConfig("CartPoleNoVel-v1"))


@pytest.mark.parametrize("env_id", ["xlstm_rl/LunarLanderNoVel-v3", "LunarLander-v3"])
def test_a_missing_extra_is_named(env_id, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for make in (make_env, make_vector_env):
        with pytest.raises(ValueError, match=r'pip install "xlstm_rl\[box2d\]"'):
            make(EnvConfig(env_id))

"""Vector environments: which form is taken, with which autoreset mode, and when it is refused."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from xlstm_rl.envs import (
    CartPoleNoVelVectorEnv,
    EnvConfig,
    EnvPoolVectorEnv,
    MemoryChain,
    MemoryChainVectorEnv,
    autoreset_mode,
    make_vector_env,
)

CHAIN = "xlstm_rl/MemoryChain-v0"
# From Python 3.12 on, forking beside other threads (pytest-xdist's) warns; Gymnasium forks.
fork_may_warn = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Countdown(gym.Env):
    """Observes how often it was stepped; ends after `length` steps."""

    def __init__(self, length=2, render_mode=None):
        self.observation_space = spaces.Box(0, 100, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.length = length
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.full(1, self.time, np.float32), 1.0, self.time == self.length, False, {}


def step(vector_env):
    return vector_env.step(np.zeros(vector_env.num_envs, dtype=np.int64))


@pytest.mark.parametrize(
    ("env_id", "vectorization", "kind", "mode"),
    [
        (CHAIN, "auto", MemoryChainVectorEnv, AutoresetMode.SAME_STEP),
        (CHAIN, "native", MemoryChainVectorEnv, AutoresetMode.SAME_STEP),
        (CHAIN, "sync", SyncVectorEnv, AutoresetMode.SAME_STEP),
        (CHAIN, "async", AsyncVectorEnv, AutoresetMode.SAME_STEP),
        ("xlstm_rl/CartPoleNoVel-v1", "auto", CartPoleNoVelVectorEnv, AutoresetMode.SAME_STEP),
        ("xlstm_rl/PendulumNoVel-v1", "auto", SyncVectorEnv, AutoresetMode.SAME_STEP),
        ("CartPole-v1", "auto", gym.vector.VectorEnv, AutoresetMode.NEXT_STEP),
    ],
)
@fork_may_warn
def test_auto_takes_the_native_form_and_the_reset_in_the_same_step(
    env_id, vectorization, kind, mode
):
    env = make_vector_env(EnvConfig(env_id, num_envs=2, vectorization=vectorization))
    assert isinstance(env, kind)
    assert env.num_envs == 2
    assert autoreset_mode(env) is mode
    env.close()


@pytest.mark.parametrize("vectorization", ["sync", "async", "native"])
@pytest.mark.parametrize("mode", AutoresetMode)
@fork_may_warn
@pytest.mark.each_value
def test_every_form_has_every_autoreset_mode(vectorization, mode):
    config = EnvConfig(
        CHAIN,
        num_envs=2,
        vectorization=vectorization,
        autoreset=mode.name.lower(),
        kwargs={"length": 1},
    )
    env = make_vector_env(config)
    assert autoreset_mode(env) is mode
    env.reset(seed=0)
    step(env)
    observation, rewards, terminated, _, info = step(env)
    assert terminated.all()
    assert (np.abs(rewards) == 1).all()
    if mode is AutoresetMode.SAME_STEP:
        assert (observation[:, 0] == 1).all()
        assert info["_final_obs"].all()
        assert all((final == 0).all() for final in info["final_obs"])
    else:
        assert (observation == 0).all()
        assert "final_obs" not in info
    if mode is AutoresetMode.DISABLED:
        observation, _ = env.reset(options={"reset_mask": terminated})
    elif mode is AutoresetMode.NEXT_STEP:
        observation, rewards, terminated, _, _ = step(env)
        assert not terminated.any()
        assert (rewards == 0).all()
    assert (observation[:, 0] == 1).all()
    assert not step(env)[2].any()
    assert step(env)[2].all()
    env.close()


def test_a_mode_that_the_native_form_lacks_makes_auto_take_sync():
    env = make_vector_env(EnvConfig("CartPole-v1", num_envs=2, autoreset="same_step"))
    assert isinstance(env, SyncVectorEnv)
    assert autoreset_mode(env) is AutoresetMode.SAME_STEP
    env = make_vector_env(EnvConfig("CartPole-v1", num_envs=2, autoreset="next_step"))
    assert not isinstance(env, SyncVectorEnv)
    with pytest.raises(
        ValueError, match="CartPole-v1 has no vector form of its own with autoreset"
    ):
        make_vector_env(EnvConfig("CartPole-v1", vectorization="native", autoreset="same_step"))


def test_a_native_form_that_cannot_be_asked_for_a_mode_is_judged_by_its_own(monkeypatch):
    def create(num_envs, **ignored):
        return MemoryChainVectorEnv(num_envs, autoreset_mode="NextStep")

    spec = EnvSpec("Ignoring-v0", entry_point=MemoryChain, vector_entry_point=create)
    monkeypatch.setitem(gym.registry, "Ignoring-v0", spec)
    config = EnvConfig("Ignoring-v0", num_envs=2, autoreset="same_step")
    env = make_vector_env(config)
    assert isinstance(env, SyncVectorEnv)
    assert autoreset_mode(env) is AutoresetMode.SAME_STEP
    assert isinstance(make_vector_env(replace(config, autoreset="next_step")), MemoryChainVectorEnv)
    with pytest.raises(ValueError, match=r"Ignoring-v0 has no vector form .* autoreset"):
        make_vector_env(replace(config, vectorization="native"))


def test_registered_wrappers_are_kept_by_taking_the_sync_form(monkeypatch):
    wrapper = WrapperSpec("ClipReward", "gymnasium.wrappers:ClipReward", {"max_reward": 0.5})
    spec = replace(gym.spec("CartPole-v1"), id="Clipped-v0", additional_wrappers=(wrapper,))
    monkeypatch.setitem(gym.registry, "Clipped-v0", spec)
    env = make_vector_env(EnvConfig("Clipped-v0", num_envs=2))
    env.reset(seed=0)
    np.testing.assert_array_equal(step(env)[1], 0.5)


@pytest.mark.parametrize("env", [None, Countdown])
def test_native_is_refused_where_there_is_none(env):
    config = EnvConfig("Pendulum-v1", vectorization="native")
    with pytest.raises(ValueError, match="no vector form of its own; use"):
        make_vector_env(config, env)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@fork_may_warn
def test_a_callable_makes_the_environments_with_the_kwargs(vectorization):
    config = EnvConfig(
        num_envs=2, vectorization=vectorization, kwargs={"length": 3}, max_episode_steps=2
    )
    env = make_vector_env(config, lambda length: Countdown(length=length))
    env.reset(seed=0)
    assert not step(env)[3].any()
    _, _, terminated, truncated, info = step(env)
    assert truncated.all()
    assert not terminated.any()
    assert [final.item() for final in info["final_obs"]] == [2, 2]
    env.close()


@fork_may_warn
def test_closing_an_async_environment_ends_its_processes():
    env = make_vector_env(EnvConfig(num_envs=3, vectorization="async"))
    env.reset(seed=0)
    processes = list(env.processes)
    assert all(process.is_alive() for process in processes)
    env.close()
    assert not any(process.is_alive() for process in processes)


def test_a_ready_vector_environment_is_used_as_it_is():
    ready = MemoryChainVectorEnv(num_envs=3)
    assert make_vector_env(EnvConfig(num_envs=8), ready) is ready


def test_a_vector_environment_must_say_when_it_resets():
    ready = MemoryChainVectorEnv(num_envs=3)
    ready.metadata = {"render_modes": []}
    with pytest.raises(ValueError, match=r"set it to the member of gymnasium.vector.AutoresetMode"):
        make_vector_env(EnvConfig(), ready)
    ready.metadata = {"autoreset_mode": "sometimes"}
    with pytest.raises(ValueError, match=r"is 'sometimes'.*NEXT_STEP, SAME_STEP, DISABLED"):
        autoreset_mode(ready)


def test_an_id_beside_the_configuration_is_taken_instead():
    env = make_vector_env(EnvConfig(num_envs=2, kwargs={"length": 4}), CHAIN)
    assert isinstance(env, MemoryChainVectorEnv)
    assert env.length == 4


def test_arguments_and_time_limit_reach_every_form():
    for vectorization in ("native", "sync"):
        env = make_vector_env(
            EnvConfig(num_envs=2, vectorization=vectorization, max_episode_steps=3)
        )
        env.reset(seed=0)
        assert [bool(step(env)[3].all()) for _ in range(6)] == [False, False, True] * 2


@pytest.mark.parametrize(
    ("device", "kwargs", "expected"),
    [
        ("cpu", {}, {}),
        ("cpu", {"tensors": True}, {"tensors": True}),
        ("cuda:1", {}, {"tensors": True, "device": "cuda:1"}),
        ("cuda", {"tensors": True}, {"tensors": True, "device": "cuda"}),
        ("cuda", {"tensors": False}, {"tensors": False}),
        ("cuda", {"device": "cpu"}, {"device": "cpu"}),
    ],
)
def test_on_a_gpu_a_native_form_that_can_computes_there(monkeypatch, device, kwargs, expected):
    asked = []
    make_vec = gym.make_vec

    def spy(spec, num_envs, vectorization_mode, **given):
        asked.append(given)
        return make_vec(spec, num_envs, vectorization_mode=vectorization_mode)

    monkeypatch.setattr(gym, "make_vec", spy)
    make_vector_env(EnvConfig("xlstm_rl/Parity-v0", 2, kwargs=kwargs), device=device)
    make_vector_env(EnvConfig("xlstm_rl/CartPoleNoVel-v1", 2), device=device)
    assert asked == [expected, {}]


@pytest.mark.parametrize("cls", [EnvPoolVectorEnv, CartPoleNoVelVectorEnv])
def test_a_vector_that_could_not_be_made_is_closed(cls):
    cls.__new__(cls).close()  # as Gymnasium before 1.3 does when the object goes

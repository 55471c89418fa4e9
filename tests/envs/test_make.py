import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from xlstm_rl.envs import (
    CartPoleNoVelVectorEnv,
    EnvConfig,
    EnvPoolVectorEnv,
    MemoryChain,
    MemoryChainVectorEnv,
    autoreset_mode,
    make_env,
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


def test_one_environment_for_evaluation():
    env = make_env(EnvConfig(CHAIN, kwargs={"length": 6}, max_episode_steps=4))
    assert env.unwrapped.length == 6
    assert env.spec.max_episode_steps == 4
    assert isinstance(make_env(EnvConfig(max_episode_steps=4), Countdown), TimeLimit)
    ready = MemoryChain()
    assert make_env(EnvConfig(), ready) is ready
    assert make_env(EnvConfig(), "CartPole-v1").spec.id == "CartPole-v1"


def test_an_environment_that_can_be_seen():
    pytest.importorskip("pygame")
    env = make_env(EnvConfig(), render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (400, 600, 3)
    env.close()
    env = make_env(EnvConfig(), Countdown, render_mode="rgb_array")
    assert env.render_mode == "rgb_array"
    for env in (lambda: Countdown(), Countdown()):
        with pytest.raises(ValueError, match="'rgb_array' is needed: let the callable"):
            make_env(EnvConfig(), env, render_mode="rgb_array")


def shared():
    env = Countdown()
    return lambda: TimeLimit(env, 3)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (shared(), "returned the same environment twice"),
        (lambda: 3, "returned int, expected a gymnasium.Env"),
        (lambda: MemoryChainVectorEnv(2), "given as it is, without a callable"),
        (3, "given as int, expected an id, a callable .* or a gymnasium.vector.VectorEnv"),
        (Countdown(), "given as Countdown, expected an id, a callable"),
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

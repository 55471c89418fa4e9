import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from xlstm_rl.envs import EnvConfig, MemoryChain, MemoryChainVectorEnv, make_vector_env


def chain(vectorization="native", num_envs=4, **fields):
    kwargs = {"length": fields.pop("length", 3), "bits": fields.pop("bits", 1)}
    return make_vector_env(
        EnvConfig(
            "xlstm_rl/MemoryChain-v0",
            num_envs=num_envs,
            vectorization=vectorization,
            kwargs=kwargs,
            **fields,
        )
    )


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_an_episode_is_that_of_bsuite(vectorization):
    # A run of bsuite 0.3.6, MemoryChain(memory_length=3, num_bits=2, seed=3), first episode,
    # context [0 1], question 1, actions 0 1 1 0:
    #   observations [1, 0, -1, 1] [1, 0, -1, 1] [2/3, 0, 0, 0] [1/3, 1, 0, 0] [0, 0, 0, 0]
    #   rewards 0 0 0 -1, the last one with the end
    env = chain(vectorization, bits=2, autoreset="disabled", num_envs=6)
    rng = np.random.default_rng(0)
    asked, rewarded = set(), set()
    for episode in range(10):
        first, _ = env.reset(seed=100 * episode)
        actions = rng.integers(2, size=(4, 6))
        steps = [env.step(action) for action in actions]
        observations = np.stack([first] + [step[0] for step in steps])
        context, query = first[:, 2:], observations[3, :, 1].astype(int)
        assert np.isin(context, [-1, 1]).all()
        assert np.isin(query, [0, 1]).all()
        for row in range(6):
            c, q = context[row], query[row]
            expected = [[1, 0, *c], [1, 0, *c], [2 / 3, 0, 0, 0], [1 / 3, q, 0, 0], [0, 0, 0, 0]]
            np.testing.assert_allclose(observations[:, row], expected, rtol=1e-6)
            answer = 2 * actions[3, row] - 1
            rewards = [step[1][row] for step in steps]
            assert rewards == [0, 0, 0, 1 if answer == c[q] else -1]
            assert [bool(step[2][row]) for step in steps] == [False, False, False, True]
            asked.add((q, *c))
            rewarded.add(rewards[-1])
        assert not any(step[3].any() for step in steps)
    assert len(asked) == 8
    assert rewarded == {1, -1}


@pytest.mark.parametrize("vectorization", ["native", "sync"])
@pytest.mark.parametrize(("length", "bits"), [(1, 1), (2, 1), (16, 1), (5, 3)])
def test_remembering_the_context_always_returns_one(vectorization, length, bits):
    env = chain(vectorization, length=length, bits=bits, num_envs=16)
    observation, _ = env.reset(seed=1)
    rows = np.arange(16)
    returns = np.zeros(16)
    for _ in range(3):
        context = observation[:, 2:].copy()
        for step in range(length + 1):
            query = observation[:, 1].astype(int)
            action = (context[rows, query] > 0).astype(np.int64)
            observation, rewards, terminated, _, _ = env.step(action)
            returns += rewards
            assert terminated.all() == (step == length)
    np.testing.assert_array_equal(returns, 3)


@pytest.mark.parametrize("policy", ["always 0", "by the question", "random"])
def test_without_memory_the_mean_return_is_zero(policy):
    # 4000 rewards of +-1 have a mean within 4 standard errors of 4 / sqrt(4000) = 0.063.
    env = chain(length=2, bits=2, num_envs=1000)
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    rewards = []
    for _ in range(4 * 3):
        action = {
            "always 0": np.zeros(1000, dtype=np.int64),
            "by the question": (observation[:, 1] > 0).astype(np.int64),
            "random": rng.integers(2, size=1000),
        }[policy]
        observation, reward, terminated, _, _ = env.step(action)
        rewards.append(reward[terminated])
    rewards = np.concatenate(rewards)
    assert rewards.size == 4000
    assert set(rewards) == {1, -1}
    assert abs(rewards.mean()) < 0.063


def test_the_same_step_reset_hands_out_the_end_and_the_next_context():
    env = chain(length=2, num_envs=3)
    env.reset(seed=0)
    for _ in range(2):
        assert env.step(np.zeros(3, dtype=np.int64))[4] == {}
    observation, _, terminated, truncated, info = env.step(np.zeros(3, dtype=np.int64))
    assert terminated.all()
    assert not truncated.any()
    assert info["_final_obs"].all()
    np.testing.assert_array_equal(np.stack(info["final_obs"]), np.zeros((3, 3)))
    assert (observation[:, 0] == 1).all()
    assert (np.abs(observation[:, 2]) == 1).all()


def test_the_next_step_reset_has_one_dead_step():
    env = chain(length=1, num_envs=2, autoreset="next_step")
    env.reset(seed=0)
    outcomes = [env.step(np.zeros(2, dtype=np.int64)) for _ in range(6)]
    terminated = [bool(step[2].all()) for step in outcomes]
    assert terminated == [False, True, False, False, True, False]
    assert (outcomes[2][1] == 0).all()
    assert (outcomes[2][0][:, 0] == 1).all()
    assert all(step[4] == {} for step in outcomes)


def test_a_time_limit_truncates_the_native_form():
    env = chain(length=5, num_envs=2, max_episode_steps=3)
    env.reset(seed=0)
    truncated = [bool(env.step(np.zeros(2, dtype=np.int64))[3].all()) for _ in range(6)]
    assert truncated == [False, False, True] * 2


def test_gymnasium_finds_nothing_wrong():
    check_env(gym.make("xlstm_rl/MemoryChain-v0", length=4, bits=3).unwrapped)


@pytest.mark.parametrize("seed", range(3))
def test_contexts_are_reproducible_by_the_seed_and_vary_with_it(seed):
    def contexts(seed):
        env = MemoryChainVectorEnv(num_envs=64, length=1)
        observation, _ = env.reset(seed=seed)
        env.step(np.zeros(64, dtype=np.int64))
        return np.stack([observation, env.step(np.zeros(64, dtype=np.int64))[0]])

    np.testing.assert_array_equal(contexts(seed), contexts(seed))
    assert (contexts(seed) != contexts(seed + 1)).any()
    assert (contexts(seed)[0] != contexts(seed)[1]).any()


@pytest.mark.parametrize("make", [MemoryChain, MemoryChainVectorEnv])
@pytest.mark.parametrize("kwargs", [{"length": 0}, {"bits": 0}, {"length": 2.5}, {"bits": True}])
def test_sizes_below_one_are_refused(make, kwargs):
    name = next(iter(kwargs))
    with pytest.raises(ValueError, match=rf"MemoryChain\.{name}=.*: expected an integer >= 1"):
        make(**kwargs)


def test_wrong_actions_are_refused():
    env = MemoryChain()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="must be an integer from 0 to 1"):
        env.step(2)
    vector_env = MemoryChainVectorEnv(num_envs=2)
    vector_env.reset(seed=0)
    with pytest.raises(ValueError, match="expected 2 integers from 0 to 1"):
        vector_env.step(np.array([0, 1, 0]))

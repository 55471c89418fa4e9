"""The optimal and the memoryless return of every task, reached by real policies.

A policy is a function from the list of the observations so far, `[B, ...]` each, to actions `[B]`.
"""

from itertools import product

import numpy as np
import pytest

from xlstm_rl.envs import (
    AssociativeRecallVectorEnv,
    MemoryChainVectorEnv,
    NavigateAndReturnVectorEnv,
    ParityVectorEnv,
    RepeatPreviousVectorEnv,
    TMazeVectorEnv,
)

RIGHT, UP, LEFT, DOWN = range(4)


def play(env, policy, seed=0):
    """The returns `[B]` of one episode each."""
    observation, _ = env.reset(seed=seed)
    history, returns = [observation], np.zeros(env.num_envs)
    done = np.zeros(env.num_envs, dtype=bool)
    while not done.all():
        observation, rewards, terminated, truncated, _ = env.step(policy(history))
        assert not truncated.any()
        history.append(observation)
        returns += rewards * ~done
        done |= terminated
    return returns


def chain_policy(history):
    context, query = history[0][:, 2:], history[-1][:, 1].astype(int)
    return (context[np.arange(len(query)), query] > 0).astype(np.int64)


def passive_policy(history):
    turn = np.where(history[0][:, 0] > 0, UP, DOWN)
    return np.where(history[-1][:, 2] == 1, turn, RIGHT)


def active_policy(history):
    if len(history) == 1:
        return np.full(len(history[0]), LEFT)
    return passive_policy([history[1], history[-1]])


def previous_policy(k):
    return lambda history: history[max(len(history) - 1 - k, 0)]


def recall_policy(pairs):
    def policy(history):
        shown = np.stack(history[:pairs])
        asked = history[-1][:, :pairs]
        match = (shown[:, :, :pairs] * asked).sum(-1, keepdims=True)  # [pairs, B, 1]
        return (shown[:, :, pairs:] * match).sum(0).argmax(-1)

    return policy


def parity_policy(history):
    return sum(history) % 2


def navigate_policy(history):
    x, y = (history[0][:, 2:4] - history[-1][:, :2]).T
    return np.select([x > 0, x < 0, y > 0, y < 0], [1, 3, 2, 4], 0)


OPTIMAL = [
    (MemoryChainVectorEnv, {"length": 5, "bits": 3}, chain_policy),
    (MemoryChainVectorEnv, {"length": 1}, chain_policy),
    (TMazeVectorEnv, {}, passive_policy),
    (TMazeVectorEnv, {"length": 1}, passive_policy),
    (TMazeVectorEnv, {"length": 7, "active": True}, active_policy),
    (TMazeVectorEnv, {"length": 1, "active": True}, active_policy),
    (RepeatPreviousVectorEnv, {}, previous_policy(3)),
    (RepeatPreviousVectorEnv, {"k": 31, "decks": 2}, previous_policy(31)),
    (RepeatPreviousVectorEnv, {"k": 50}, previous_policy(50)),
    (AssociativeRecallVectorEnv, {}, recall_policy(4)),
    (AssociativeRecallVectorEnv, {"pairs": 16, "values": 2}, recall_policy(16)),
    (AssociativeRecallVectorEnv, {"pairs": 1, "values": 3}, recall_policy(1)),
    (ParityVectorEnv, {}, parity_policy),
    (ParityVectorEnv, {"length": 1}, parity_policy),
    (NavigateAndReturnVectorEnv, {}, navigate_policy),
    (NavigateAndReturnVectorEnv, {"size": 2, "returns": 1}, navigate_policy),
]


def test_every_task_has_an_optimal_policy_here(vector_form):
    assert vector_form in {task for task, _, _ in OPTIMAL}


@pytest.mark.parametrize("mode", ["Disabled", "NextStep", "SameStep"])
@pytest.mark.parametrize(("task", "kwargs", "policy"), OPTIMAL)
def test_the_optimal_policy_reaches_the_stated_return_in_every_episode(task, kwargs, policy, mode):
    env = task(300, autoreset_mode=mode, **kwargs)
    for seed in (0, None):
        np.testing.assert_allclose(play(env, policy, seed), env.optimal_return, atol=1e-9)


@pytest.mark.parametrize("active", [False, True])
def test_a_corridor_of_10_000_steps_is_walked_to_its_end(active):
    env = TMazeVectorEnv(2, length=10_000, active=active, autoreset_mode="Disabled")
    np.testing.assert_array_equal(play(env, active_policy if active else passive_policy), 1)


@pytest.mark.parametrize(("active", "late"), [(False, 8), (True, 9)])
def test_every_step_behind_the_schedule_costs_its_share_of_the_corridor(active, late):
    # Cell 0 after steps 1 to 8 of 8; cell -1, where 0 is in time, after steps 2 to 10 of 10.
    env = TMazeVectorEnv(4, length=7, active=active, autoreset_mode="Disabled")
    returns = play(env, lambda history: np.full(4, LEFT))
    np.testing.assert_allclose(returns, -late / 7)
    assert env.elapsed.tolist() == [10 if active else 8] * 4


def best_memoryless_policy(env, episodes=8):
    """The best action for each observation, where actions do not change what is observed.

    What an action is worth then depends on nothing later: its mean reward over the episodes of a
    random policy decides.
    """
    rng = np.random.default_rng(0)
    keys, actions, rewards = [], [], []
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        done = np.zeros(env.num_envs, dtype=bool)
        while not done.all():
            action = rng.integers(env.single_action_space.n, size=env.num_envs)
            keys.append(observation.reshape(env.num_envs, -1))
            observation, reward, done, _, _ = env.step(action)
            actions.append(action)
            rewards.append(reward)
    keys, rows = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    shape = (len(keys), env.single_action_space.n)
    total, count = np.zeros(shape), np.zeros(shape)
    cells = (rows.ravel(), np.concatenate(actions))
    np.add.at(total, cells, np.concatenate(rewards))
    np.add.at(count, cells, 1)
    best = dict(zip(map(bytes, keys), (total / np.maximum(count, 1)).argmax(1), strict=True))

    def policy(history):
        last = history[-1].reshape(env.num_envs, -1)
        return np.array([best[bytes(row)] for row in np.ascontiguousarray(last)])

    return policy


@pytest.mark.parametrize(
    ("task", "kwargs"),
    [
        (MemoryChainVectorEnv, {"length": 3, "bits": 2}),
        (MemoryChainVectorEnv, {"length": 1}),
        (RepeatPreviousVectorEnv, {}),
        (AssociativeRecallVectorEnv, {"pairs": 3, "values": 2}),
        (AssociativeRecallVectorEnv, {"pairs": 2, "values": 5}),
        (ParityVectorEnv, {"length": 4}),
        (ParityVectorEnv, {"length": 1}),
    ],
)
def test_the_best_policy_without_memory_reaches_the_stated_return(task, kwargs):
    env = task(1024, autoreset_mode="Disabled", **kwargs)
    # The policy is chosen on other episodes than it is measured on.
    returns = play(env, best_memoryless_policy(env), seed=99)
    error = 4 * returns.std() / 32 + 1e-9
    assert abs(returns.mean() - env.memoryless_return) < error
    assert error < 0.13
    assert env.memoryless_return < env.optimal_return or 1 in kwargs.values()


@pytest.mark.parametrize(("active", "kinds"), [(False, 4), (True, 5)])
def test_no_table_from_observations_to_actions_beats_half_of_a_tmaze(active, kinds):
    tables = np.array(list(product(range(4), repeat=kinds)))
    # Those that end early restart by themselves; `play` counts the first episode.
    env = TMazeVectorEnv(2 * len(tables), length=3, active=active, autoreset_mode="NextStep")
    seen = {}

    def policy(history):
        if len(history) == 1:
            env.side[::2], env.side[1::2] = 1, -1
            history[0][:, 0] = 0 if active else env.side
        index = [seen.setdefault(bytes(row), len(seen)) for row in history[-1]]
        return tables.repeat(2, axis=0)[np.arange(env.num_envs), index]

    returns = play(env, policy).reshape(-1, 2)
    assert len(seen) == kinds
    assert returns.mean(1).max() == env.memoryless_return == 0.5
    assert returns.max() == 1


def test_a_return_without_memory_is_luck_for_every_table():
    tables = np.array(list(product(range(5), repeat=4)))  # from each of 4 cells to an action
    places = np.array(list(product(range(2), repeat=4)))  # where the return begins, and the goal
    actions_in = tables.repeat(len(places), axis=0)
    env = NavigateAndReturnVectorEnv(len(actions_in), size=2, returns=1, autoreset_mode="Disabled")
    rows = np.arange(env.num_envs)
    env.reset(seed=0)
    for _ in range(2):
        observation, *_ = env.step(np.zeros(env.num_envs, dtype=np.int64))
    assert not observation[:, 2:].any()
    env.position[:] = np.tile(places[:, :2], (len(tables), 1))
    env.goal[:] = np.tile(places[:, 2:], (len(tables), 1))
    for _ in range(2):
        x, y = env.position.T
        _, rewards, terminated, _, _ = env.step(actions_in[rows, 2 * x + y])
    assert terminated.all()
    np.testing.assert_allclose(rewards.reshape(len(tables), -1).mean(1), 1 / 2 / 4)


@pytest.mark.parametrize("kwargs", [{}, {"size": 3, "returns": 2}])
def test_going_to_the_goal_in_sight_and_no_further_is_worth_what_is_stated(kwargs):
    env = NavigateAndReturnVectorEnv(20_000, autoreset_mode="Disabled", **kwargs)

    def policy(history):
        in_sight = history[-1][:, 4] == 1
        return np.where(in_sight, navigate_policy([history[-1]]), 0)

    returns = play(env, policy)
    assert abs(returns.mean() - env.memoryless_return) < 4 * returns.std() / 20_000**0.5

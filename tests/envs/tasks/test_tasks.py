"""What every task is held to, and a first episode of each worked out by hand."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from xlstm_rl.envs import (
    AssociativeRecallVectorEnv,
    EnvConfig,
    NavigateAndReturnVectorEnv,
    ParityVectorEnv,
    RepeatPreviousVectorEnv,
    TMazeVectorEnv,
    make_env,
    make_vector_env,
)

SMALL = {  # short episodes; a task that is not here has its defaults
    "MemoryChain-v0": {"length": 3, "bits": 2},
    "TMaze-v0": {"length": 3, "active": True},
    "RepeatPrevious-v0": {"k": 5},
    "AssociativeRecall-v0": {"pairs": 3},
    "Parity-v0": {"length": 6},
    "NavigateAndReturn-v0": {"size": 3, "returns": 1},
}


def make(name, num_envs=5, vectorization="native", kwargs=None, **fields):
    kwargs = {**SMALL.get(name, {}), **(kwargs or {})}
    return make_vector_env(
        EnvConfig(f"xlstm_rl/{name}", num_envs, vectorization, kwargs=kwargs, **fields)
    )


def trajectory(env, steps=120, seed=3):
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=seed)
    outcomes = [(observation,)]
    for _ in range(steps):
        actions = rng.integers(env.single_action_space.n, size=env.num_envs)
        outcomes.append(env.step(torch.from_numpy(actions) if env.tensors else actions))
    return outcomes


@pytest.mark.parametrize("kwargs", [True, False])
def test_gymnasium_finds_nothing_wrong(name, kwargs):
    env = gym.make(f"xlstm_rl/{name}", **(SMALL.get(name, {}) if kwargs else {}))
    check_env(env.unwrapped)
    assert env.spec.reward_threshold < env.unwrapped.optimal_return == 1


def test_an_episode_is_reproducible_by_its_seed_and_varies_with_it(name):
    def flat(seed):
        outcomes = trajectory(make(name, 16), seed=seed)
        return np.concatenate([np.ravel(array) for step in outcomes for array in step[:4]])

    np.testing.assert_array_equal(flat(7), flat(7))
    assert flat(7).tobytes() != flat(8).tobytes()


def test_without_a_seed_the_episodes_go_on_and_differ_from_run_to_run(name):
    first, second = make(name, 64), make(name, 64)
    # Most states are hidden at first: the outcome of an episode shows them.
    runs = [trajectory(env, 60, None) for env in (first, second, second)]
    texts = {b"".join(step[1].tobytes() for step in run[1:]) for run in runs}
    assert len(texts) == 3


@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
def test_the_vector_form_answers_as_gymnasiums_own_does(name, mode):
    native, sync = (make(name, 5, form, autoreset=mode) for form in ("native", "sync"))
    for space in ("single_observation_space", "observation_space", "action_space"):
        assert getattr(native, space) == getattr(sync, space)
    native.reset(seed=0)
    sync.reset(seed=0)
    ended = 0
    for step in range(130):
        actions = np.full(5, step % native.single_action_space.n)
        ours, theirs = native.step(actions), sync.step(actions)
        assert ours[0] in native.observation_space
        for own, other in zip(ours[:4], theirs[:4], strict=True):
            assert own.dtype == other.dtype
            assert own.shape == other.shape
        # With these actions every task's episodes have one length.
        np.testing.assert_array_equal(ours[2], theirs[2])
        np.testing.assert_array_equal(ours[3], theirs[3])
        done = ours[2] | ours[3]
        ended += done.sum()
        assert ours[4].keys() == theirs[4].keys()
        if "final_obs" in ours[4]:
            for last in ours[4]["final_obs"]:
                assert last in native.single_observation_space
                assert np.shape(last) == native.single_observation_space.shape
        if mode == "disabled" and done.any():
            native.reset(options={"reset_mask": done})
            sync.reset(options={"reset_mask": done})
    assert ended >= 10


def test_one_environment_alone_is_a_vector_of_one(name):
    single = make_env(EnvConfig(f"xlstm_rl/{name}", kwargs=SMALL.get(name, {})))
    vector = make(name, 1, autoreset="disabled")
    rng = np.random.default_rng(0)
    for seed in (0, None, 5):
        observation, _ = single.reset(seed=seed)
        np.testing.assert_array_equal(vector.reset(seed=seed)[0][0], observation)
        done = False
        while not done:
            action = rng.integers(single.action_space.n)
            observation, reward, done, _, _ = single.step(action)
            observations, rewards, terminated, _, _ = vector.step(np.array([action]))
            np.testing.assert_array_equal(observations[0], observation)
            assert (rewards[0], terminated[0]) == (reward, done)


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_with_tensors_the_same_happens_in_tensors(name, mode):
    arrays = trajectory(make(name, autoreset=mode))
    tensors = trajectory(make(name, autoreset=mode, kwargs={"tensors": True}))
    for ours, expected in zip(tensors, arrays, strict=True):
        for tensor, array in zip(ours[:4], expected[:4], strict=False):
            assert isinstance(tensor, torch.Tensor)
            np.testing.assert_allclose(tensor.numpy(), array, atol=1e-6)
        info = expected[4] if len(expected) > 1 else {}
        if info:
            mask = ours[4]["_final_obs"].numpy()
            np.testing.assert_array_equal(mask, info["_final_obs"])
            final = np.stack(info["final_obs"][mask])
            np.testing.assert_array_equal(ours[4]["final_obs"].numpy()[mask], final)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_on_a_gpu_tensors_stay_there_and_arrays_come_back(name, mode):
    def run(tensors):
        kwargs = {"device": "cuda", "tensors": tensors}
        return make(name, 64, autoreset=mode, kwargs=kwargs)

    arrays = trajectory(run(False))
    env = run(True)
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=3)
    for expected in arrays[1:]:
        assert observation.is_cuda
        actions = rng.integers(env.single_action_space.n, size=64)
        observation, *ours, info = env.step(torch.from_numpy(actions).cuda())
        for tensor, array in zip([observation, *ours], expected[:4], strict=True):
            assert tensor.is_cuda
            assert isinstance(array, np.ndarray)
            np.testing.assert_allclose(tensor.cpu().numpy(), array, atol=1e-6)
        assert expected[1].dtype == np.float64
        if info:  # on a GPU nobody looks whether an episode is over: the mask may be empty
            mask = expected[4]["_final_obs"]
            np.testing.assert_array_equal(info["_final_obs"].cpu(), mask)
            for row in np.flatnonzero(mask):
                last = info["final_obs"][row].cpu()
                np.testing.assert_array_equal(last, expected[4]["final_obs"][row])


def test_actions_of_every_whole_number_type_are_taken_alike(name):
    env = make(name)
    last = env.single_action_space.n - 1
    outcomes = []
    for dtype in (np.int64, np.int32, np.uint8):
        env.reset(seed=0)
        outcomes.append([env.step(np.full(5, last, dtype))[:3] for _ in range(20)])
    for ours, theirs, expected in zip(*outcomes, strict=True):
        for array, other, right in zip(ours, theirs, expected, strict=True):
            np.testing.assert_array_equal(array, right)
            np.testing.assert_array_equal(other, right)


@pytest.mark.parametrize("wrong", [[0, 1], [0, 0, 0, 0, 9], [-1, 0, 0, 0, 0], [0.0] * 5])
@pytest.mark.parametrize("tensors", [False, True])
def test_wrong_actions_are_refused(wrong, tensors):
    env = make("TMaze-v0", kwargs={"tensors": tensors})
    env.reset(seed=0)
    # Shape and type are known on the host; what the numbers are, the device finds out.
    found_there = tensors and np.shape(wrong) == (5,) and np.array(wrong).dtype.kind == "i"
    error, message = ValueError, "expected 5 integers from 0 to 3"
    if found_there:
        error, message = RuntimeError, "an action is outside of its space, 0 to 3"
    with pytest.raises(error, match=message):
        env.step(torch.tensor(wrong) if tensors else np.array(wrong))


def test_what_a_step_returned_does_not_change_later(name):
    outcomes = trajectory(make(name))
    copies = [[np.copy(array) for array in step[:4]] for step in outcomes]
    again = trajectory(make(name))
    for kept, copy, fresh in zip(outcomes, copies, again, strict=True):
        for one, two, three in zip(kept[:4], copy, fresh[:4], strict=False):
            np.testing.assert_array_equal(one, two)
            np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize(
    ("make", "kwargs", "message"),
    [
        (TMazeVectorEnv, {"length": 0}, "TMaze.length=0: expected an integer >= 1"),
        (ParityVectorEnv, {"length": 1.5}, r"Parity\.length=1\.5"),
        (RepeatPreviousVectorEnv, {"k": 0}, r"RepeatPrevious\.k=0"),
        (RepeatPreviousVectorEnv, {"k": 51}, "k of RepeatPrevious is 51, expected at most 50"),
        (AssociativeRecallVectorEnv, {"values": 1}, r"\.values=1: .* >= 2"),
        (NavigateAndReturnVectorEnv, {"size": 1}, r"NavigateAndReturn\.size=1: .* >= 2"),
        (NavigateAndReturnVectorEnv, {"returns": True}, r"\.returns=True"),
    ],
)
def test_impossible_arguments_are_refused(make, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_a_passive_maze_by_hand():
    env = TMazeVectorEnv(2, length=2, autoreset_mode=AutoresetMode.DISABLED)
    observation, _ = env.reset(seed=0)
    side = observation[:, 0].copy()
    assert set(np.abs(side)) == {1}
    np.testing.assert_array_equal(observation[:, 1:], [[1, 0]] * 2)
    observation, rewards, *_ = env.step(np.array([0, 1]))  # on; up, on the spot
    np.testing.assert_array_equal(observation, [[0, 0, 0], [side[1], 1, 0]])
    assert rewards.tolist() == [0, -0.5]
    observation, rewards, *_ = env.step(np.array([0, 0]))
    np.testing.assert_array_equal(observation, [[0, 0, 1], [0, 0, 0]])
    assert rewards.tolist() == [0, -0.5]
    _, rewards, terminated, _, _ = env.step(np.array([2 - side[0], 0]).astype(int))
    assert rewards.tolist() == [1, -0.5]
    assert terminated.all()


def test_a_deal_of_cards_by_hand():
    env = RepeatPreviousVectorEnv(1, k=2)
    observation, _ = env.reset(seed=0)
    seen, rewards = [int(observation[0])], []
    for step in range(51):
        guess = step % 4
        observation, reward, terminated, _, info = env.step(np.array([guess]))
        right = step >= 2 and guess == seen[step - 2]
        rewards.append(reward[0])
        assert reward[0] == (0 if step < 2 else (1 if right else -1) / 49)
        assert terminated[0] == (step == 50)
        seen.append(int(observation[0] if step < 50 else info["final_obs"][0]))
    assert np.bincount(seen).tolist() == [13, 13, 13, 13]


def test_pairs_and_questions_by_hand():
    env = AssociativeRecallVectorEnv(8, pairs=3, values=2, autoreset_mode=AutoresetMode.DISABLED)
    observation, _ = env.reset(seed=0)
    history = [observation]
    for step in range(6):
        observation, rewards, terminated, _, _ = env.step(np.ones(8, dtype=int))
        history.append(observation)
        assert terminated.all() == (step == 5)
        if step < 3:
            assert (rewards == 0).all()
            continue
        for row in range(8):
            asked = history[step][row, :3].argmax()
            pair = next(shown[row] for shown in history[:3] if shown[row, asked])
            assert rewards[row] == (1 if pair[4] else -1) / 3
    history = np.stack(history)
    assert (history[:3].sum(-1) == 2).all()
    assert (history[3:6].sum(-1) == 1).all()
    for phase in (history[:3], history[3:6]):
        assert (phase[:, :, :3].sum(0) == 1).all()  # each key once
    assert (history[6] == 0).all()


def test_a_return_by_hand():
    env = NavigateAndReturnVectorEnv(1, size=2, returns=1, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    env.position[:], env.goal[:] = [[0, 0]], [[0, 1]]
    observation, rewards, *_ = env.step(np.array([2]))  # up, to the goal
    np.testing.assert_array_equal(observation, [[-1, 1, -1, 1, 1]])
    assert rewards[0] == 0
    observation, rewards, *_ = env.step(np.array([3]))  # left, on the spot, and the leg is over
    assert rewards[0] == 0.5
    np.testing.assert_array_equal(observation[0, 2:], [0, 0, 0])
    env.position[:] = [[1, 1]]
    assert env.step(np.array([4]))[0][0, :2].tolist() == [1, -1]
    _, rewards, terminated, _, _ = env.step(np.array([0]))
    assert rewards[0] == 0
    assert terminated[0]

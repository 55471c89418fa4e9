"""Our environments in other people's hands: TorchRL, Gymnasium's vectors, other processes."""

import multiprocessing
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import (
    ClipReward,
    DictInfoToList,
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
)
from torchrl.envs import GymEnv, check_env_specs

from xlstm_rl.envs import EnvConfig, make_vector_env

IDS = [env_id for env_id in gym.registry if env_id.startswith("xlstm_rl/")]
# Before 1.4 Gymnasium's statistics take every episode's end for one of NEXT_STEP's.
COUNTED = [AutoresetMode.NEXT_STEP]
if tuple(map(int, gym.__version__.split(".")[:2])) >= (1, 4):
    COUNTED.append(AutoresetMode.SAME_STEP)


@pytest.mark.parametrize("env_id", IDS)
def test_torchrl_finds_the_specs_of_every_id_kept(env_id: str) -> None:
    env = GymEnv(env_id)
    check_env_specs(env, seed=0)
    rollout = env.rollout(20, break_when_any_done=False)
    assert rollout.batch_size == torch.Size([20])
    env.close()


@pytest.mark.parametrize("mode", COUNTED)
@pytest.mark.parametrize("env_id", IDS)
def test_the_native_form_bears_gymnasiums_vector_wrappers(env_id: str, mode: AutoresetMode) -> None:
    config = EnvConfig(env_id, 3, autoreset=mode.name.lower(), max_episode_steps=9)
    plain, wrapped = make_vector_env(config), make_vector_env(config)
    wrapped = RecordEpisodeStatistics(ClipReward(wrapped, -0.5, 0.5))
    observations = [env.reset(seed=4)[0] for env in (plain, wrapped)]
    np.testing.assert_array_equal(*observations)
    plain.action_space.seed(0)
    totals, lengths = np.zeros(3), np.zeros(3, dtype=int)
    dead = np.zeros(3, dtype=bool)
    seen = 0
    for _ in range(40):
        action = plain.action_space.sample()
        ours, theirs = plain.step(action), wrapped.step(action)
        for mine, other in zip((ours[0], *ours[2:4]), (theirs[0], *theirs[2:4]), strict=True):
            np.testing.assert_array_equal(mine, other)
        totals[~dead] += np.clip(ours[1], -0.5, 0.5)[~dead]
        lengths[~dead] += 1
        ended = ours[2] | ours[3]
        if ended.any():
            episode = theirs[4]["episode"]
            np.testing.assert_array_equal(theirs[4]["_episode"], ended)
            np.testing.assert_allclose(episode["r"][ended], totals[ended], atol=1e-5)
            np.testing.assert_array_equal(episode["l"][ended], lengths[ended])
            totals[ended], lengths[ended] = 0.0, 0
            seen += 1
        dead = ended if mode == AutoresetMode.NEXT_STEP else dead
    assert seen
    plain.close()
    wrapped.close()


@pytest.mark.parametrize("env_id", ["xlstm_rl/CartPoleNoVel-v1", "xlstm_rl/MemoryChain-v0"])
def test_wrappers_that_normalise_take_the_native_form(env_id: str) -> None:
    env = make_vector_env(EnvConfig(env_id, 3, autoreset="next_step"))
    if isinstance(env.single_observation_space, gym.spaces.Box):
        env = NormalizeObservation(env)
    env = DictInfoToList(NormalizeReward(env))
    env.reset(seed=0)
    for _ in range(30):
        _, reward, _, _, infos = env.step(env.action_space.sample())
        assert np.isfinite(reward).all() and len(infos) == 3
    env.close()


@pytest.fixture(params=["spawn", "forkserver"])
def method(request: pytest.FixtureRequest) -> Iterator[str]:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def test_processes_that_start_afresh_step_as_one_process_does(method: str) -> None:
    env_id = "xlstm_rl/CartPoleNoVel-v1"
    ours = make_vector_env(EnvConfig(env_id, 2, "async", autoreset="next_step"))
    theirs = AsyncVectorEnv(
        [lambda: gym.make("xlstm_rl.envs:" + env_id)] * 2,
        context=method,
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )
    sync = SyncVectorEnv([lambda: gym.make(env_id)] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    envs = (ours, theirs, sync)
    first = [env.reset(seed=3)[0] for env in envs]
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first[1], first[2])
    sync.action_space.seed(0)
    for _ in range(25):
        action = sync.action_space.sample()
        answers = [env.step(action)[:4] for env in envs]
        for answer in answers[:2]:
            for mine, other in zip(answer, answers[2], strict=True):
                np.testing.assert_array_equal(mine, other)
    for env in envs:
        env.close()

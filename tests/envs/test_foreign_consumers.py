"""Our environments in other people's hands: TorchRL, stable-baselines3, and new processes."""

import multiprocessing
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env
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


# Pendulum's torque of +-2 is its own.
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized Box action space:UserWarning")
@pytest.mark.parametrize("env_id", IDS)
def test_stable_baselines3_finds_nothing_wrong(env_id: str) -> None:
    env = gym.make(env_id, render_mode="rgb_array")
    check_env(env)
    env.close()


@pytest.fixture(params=["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
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

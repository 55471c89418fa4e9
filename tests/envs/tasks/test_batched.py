import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from xlstm_rl.envs import CartPoleNoVelVectorEnv, MemoryChainVectorEnv

STEP = np.zeros(3, dtype=np.int64)


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(ResetNeeded, match="call reset before the first step"):
        CartPoleNoVelVectorEnv(num_envs=3).step(STEP)


def test_without_autoreset_a_finished_episode_is_not_stepped():
    env = MemoryChainVectorEnv(num_envs=3, length=1, autoreset_mode="Disabled")
    env.reset(seed=0)
    env.step(STEP)
    _, _, terminated, _, info = env.step(STEP)
    assert terminated.all()
    assert info == {}
    env.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(ResetNeeded, match=r"environments \[1\] are over"):
        env.step(STEP)
    env.reset(options={"reset_mask": np.array([False, True, False])})
    assert not env.step(STEP)[2].any()


def test_a_reset_mask_leaves_the_other_episodes_alone():
    env = CartPoleNoVelVectorEnv(num_envs=3, max_episode_steps=4)
    env.reset(seed=0)
    env.step(STEP)
    before = env.state.copy()
    observation, _ = env.reset(options={"reset_mask": np.array([False, True, False])})
    changed = (env.state != before).any(axis=0)
    np.testing.assert_array_equal(changed, [False, True, False])
    np.testing.assert_array_equal(observation, env.state[[0, 2]].T.astype(np.float32))
    truncated = np.stack([env.step(STEP)[3] for _ in range(4)])
    np.testing.assert_array_equal(truncated[2], [True, False, True])
    np.testing.assert_array_equal(truncated[3], [False, True, False])


@pytest.mark.parametrize(
    "mask", [np.zeros(3, dtype=bool), np.ones(2, dtype=bool), np.ones(3, dtype=int), [True] * 3]
)
def test_a_wrong_reset_mask_is_refused(mask):
    env = CartPoleNoVelVectorEnv(num_envs=3)
    with pytest.raises(ValueError, match=r"bool array of shape \(3,\) with at least one True"):
        env.reset(options={"reset_mask": mask})


def test_the_options_of_a_reset_are_left_as_they_were():
    options = {"reset_mask": np.ones(3, dtype=bool), "low": 0.0, "high": 0.01}
    CartPoleNoVelVectorEnv(num_envs=3).reset(seed=0, options=options)
    assert options.keys() == {"reset_mask", "low", "high"}


def test_what_a_step_returned_does_not_change_later():
    env = MemoryChainVectorEnv(num_envs=3, length=1)
    env.reset(seed=0)
    env.step(STEP)
    results = env.step(STEP)
    copies = [np.copy(array) for array in results[:4]]
    mask = results[4]["_final_obs"].copy()
    for _ in range(3):
        env.step(STEP)
    for array, copy in zip(results, copies, strict=False):
        np.testing.assert_array_equal(array, copy)
    np.testing.assert_array_equal(results[4]["_final_obs"], mask)


def test_the_classes_metadata_is_not_shared_between_modes():
    env = CartPoleNoVelVectorEnv(num_envs=1, autoreset_mode="NextStep")
    other = CartPoleNoVelVectorEnv(num_envs=1, autoreset_mode="SameStep")
    assert env.metadata["autoreset_mode"] != other.metadata["autoreset_mode"]
    assert "autoreset_mode" not in CartPoleNoVelVectorEnv.metadata

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from xlstm_rl.envs import CartPoleNoVelVectorEnv, EnvConfig, NoVelocity, make_vector_env

KEPT = {
    "xlstm_rl/CartPoleNoVel-v1": ("CartPole-v1", [0, 2]),
    "xlstm_rl/PendulumNoVel-v1": ("Pendulum-v1", [0, 1]),
    "xlstm_rl/MountainCarContinuousNoVel-v0": ("MountainCarContinuous-v0", [0]),
    "xlstm_rl/LunarLanderNoVel-v3": ("LunarLander-v3", [0, 1, 4, 6, 7]),
}


def make(env_id):
    if "LunarLander" in env_id:
        with warnings.catch_warnings():
            # Box2D's own; where it is an error, the import crashes the interpreter.
            warnings.simplefilter("ignore", DeprecationWarning)
            pytest.importorskip("Box2D")
    return gym.make(env_id)


@pytest.mark.parametrize("env_id", KEPT)
def test_only_the_velocities_are_missing_step_by_step(env_id):
    full_id, kept = KEPT[env_id]
    env, full = make(env_id), make(full_id)
    np.testing.assert_array_equal(env.observation_space.low, full.observation_space.low[kept])
    np.testing.assert_array_equal(env.observation_space.high, full.observation_space.high[kept])
    assert env.observation_space.dtype == full.observation_space.dtype
    assert env.action_space == full.action_space
    assert env.spec.max_episode_steps == full.spec.max_episode_steps
    full.action_space.seed(0)
    seed, ended = 5, True
    for _ in range(300):
        if ended:
            observation, _ = env.reset(seed=seed)
            full_observation, _ = full.reset(seed=seed)
            seed, ended = seed + 1, False
        else:
            action = full.action_space.sample()
            observation, *outcome = env.step(action)
            full_observation, *full_outcome = full.step(action)
            assert outcome == full_outcome
            ended = outcome[1] or outcome[2]
        np.testing.assert_array_equal(observation, full_observation[kept])
        assert env.observation_space.contains(observation)


@pytest.mark.parametrize("env_id", KEPT)
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")
def test_gymnasium_finds_nothing_wrong(env_id):
    # Two warnings are let through: that NoVelocity is a wrapper, and Pendulum's torque of up to 2.
    env = make(env_id)
    check_env(env, skip_render_check=True)
    env.close()


def test_an_environment_can_be_made_again_from_its_specification():
    env = gym.make("xlstm_rl/PendulumNoVel-v1", g=9.0)
    again = gym.make(env.spec)
    assert again.observation_space == env.observation_space
    assert again.unwrapped.g == 9.0


@pytest.mark.parametrize(
    ("velocities", "message"),
    [([4], "expected indices below 4"), ([-1], "below 4"), ([0, 1, 2, 3], "leaves nothing")],
)
def test_impossible_components_are_refused(velocities, message):
    with pytest.raises(ValueError, match=message):
        NoVelocity(gym.make("CartPole-v1"), velocities)


def test_a_space_that_is_no_vector_is_refused():
    with pytest.raises(ValueError, match="expected a Box of one dimension"):
        NoVelocity(gym.make("FrozenLake-v1"), [0])


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("reward", [False, True])
def test_the_native_form_does_what_the_sync_form_does(mode, reward):
    # The two draw other initial states, so those of the native form are copied into the other.
    autoreset = mode.name.lower()
    config = EnvConfig(
        num_envs=5,
        autoreset=autoreset,
        max_episode_steps=25,
        kwargs={"sutton_barto_reward": reward},
    )
    native = make_vector_env(config)
    sync = make_vector_env(EnvConfig(**{**vars(config), "vectorization": "sync"}))
    assert native.single_observation_space == sync.single_observation_space
    assert native.observation_space == sync.observation_space
    assert native.single_action_space == sync.single_action_space
    assert native.action_space == sync.action_space

    def copy_states(rows):
        for row in rows:
            sync.envs[row].unwrapped.state = native.state[:, row].copy()

    native.reset(seed=0)
    sync.reset(seed=0)
    copy_states(range(5))
    sync.action_space.seed(0)
    done = np.zeros(5, dtype=bool)
    endings = {"terminated": 0, "truncated": 0}
    for _ in range(150):
        action = sync.action_space.sample()
        action[:2] = np.arange(2) == _ % 2  # alternating pushes live up to the time limit
        observation, rewards, terminated, truncated, info = native.step(action)
        expected, *outcome, expected_info = sync.step(action)
        previously_done, done = done, terminated | truncated
        endings["terminated"] += terminated.sum()
        endings["truncated"] += truncated.sum()
        for ours, theirs in zip((rewards, terminated, truncated), outcome, strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
        assert info.keys() == expected_info.keys()
        restarted = {"same_step": done, "next_step": previously_done}.get(autoreset, ~(done | True))
        np.testing.assert_allclose(observation[~restarted], expected[~restarted], atol=1e-6)
        assert observation.dtype == expected.dtype
        if info:
            np.testing.assert_array_equal(info["_final_obs"], done)
            np.testing.assert_array_equal(info["_final_obs"], expected_info["_final_obs"])
            np.testing.assert_array_equal(info["_final_info"], expected_info["_final_info"])
            assert info["final_info"] == expected_info["final_info"] == {}
            for ours, theirs in zip(info["final_obs"], expected_info["final_obs"], strict=True):
                assert (ours is None) == (theirs is None)
                if ours is not None:
                    np.testing.assert_allclose(ours, theirs, atol=1e-6)
        if autoreset == "disabled" and done.any():
            native.reset(options={"reset_mask": done})
            sync.reset(options={"reset_mask": done})
            restarted = done
        copy_states(np.flatnonzero(restarted))
    assert min(endings.values()) > 5


def test_the_native_form_is_reproducible_by_its_seed():
    def play():
        env = CartPoleNoVelVectorEnv(num_envs=3)
        observations = [env.reset(seed=7)[0]]
        observations += [env.step(np.array([0, 1, step % 2]))[0] for step in range(40)]
        return np.stack(observations)

    np.testing.assert_array_equal(play(), play())


def test_reset_options_bound_the_initial_states_of_that_reset_only():
    env = CartPoleNoVelVectorEnv(num_envs=50)
    observation, _ = env.reset(seed=0, options={"low": 0.1, "high": 0.15})
    assert observation.min() >= 0.1
    assert observation.max() <= 0.15
    observation, _ = env.reset()
    assert np.abs(observation).max() <= 0.05


def test_the_native_form_renders_every_environment():
    pytest.importorskip("pygame")
    env = CartPoleNoVelVectorEnv(num_envs=2, render_mode="rgb_array")
    env.reset(seed=0)
    frames = env.render()
    assert len(frames) == 2
    assert all(frame.shape == (400, 600, 3) for frame in frames)
    env.close()

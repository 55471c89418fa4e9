"""What every registered id is held to: its specification travels, and it can be watched."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

import xlstm_rl.envs  # noqa: F401
from xlstm_rl.envs import EnvConfig, make_env, make_vector_env

IDS = [env_id for env_id in gym.registry if env_id.startswith("xlstm_rl/")]


@pytest.mark.parametrize("env_id", IDS)
def test_a_specification_goes_through_json_and_back(env_id):
    made = gym.make(env_id)
    for spec in (gym.spec(env_id), made.spec):
        again = EnvSpec.from_json(spec.to_json())
        assert again == spec
        assert gym.make(again).observation_space == made.observation_space


@pytest.mark.parametrize("env_id", IDS)
def test_a_vector_is_made_of_a_specification_that_went_through_json(env_id):
    vector = gym.make_vec(env_id, num_envs=2)
    again = gym.make_vec(EnvSpec.from_json(vector.spec.to_json()), num_envs=2)
    assert type(again.unwrapped) is type(vector.unwrapped)
    single = EnvSpec.from_json(gym.make(env_id).spec.to_json())
    of_single = gym.make_vec(single, num_envs=2)
    assert type(of_single.unwrapped) is type(vector.unwrapped)
    sync = gym.make_vec(single, num_envs=2, vectorization_mode="sync")
    assert sync.single_observation_space == again.single_observation_space
    for one in (vector, again, of_single, sync):
        one.reset(seed=0)
        one.close()


@pytest.mark.parametrize("env_id", IDS)
def test_an_episode_can_be_watched(env_id):
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=0)
    frames = [env.render()]
    for _ in range(8):
        terminated, truncated = env.step(env.action_space.sample())[2:4]
        frames.append(env.render())
        if terminated or truncated:
            env.reset()
    env.close()
    for frame in frames:
        assert frame.dtype == np.uint8 and frame.shape == frames[0].shape
        assert frame.shape[2] == 3 and frame.std() > 0
    assert any((frame != frames[0]).any() for frame in frames)


@pytest.mark.parametrize("env_id", IDS)
def test_without_a_render_mode_there_is_no_picture(env_id):
    env = gym.make(env_id).unwrapped
    env.reset(seed=0)
    if env_id.split("/")[1].split("-")[0] in ("Parity", "TMaze"):
        assert env.render() is None
    with pytest.raises(ValueError, match="render_mode"):
        make_env(EnvConfig(env_id), gym.make(env_id), render_mode="rgb_array")


@pytest.mark.parametrize("autoreset", ["same_step", "next_step", "disabled"])
@pytest.mark.parametrize("env_id", [i for i in IDS if gym.spec(i).vector_entry_point])
def test_the_vector_form_draws_each_of_its_environments(env_id, autoreset):
    mode = getattr(gym.vector.AutoresetMode, autoreset.upper())
    vector = gym.make_vec(
        env_id,
        num_envs=3,
        vectorization_mode="vector_entry_point",
        render_mode="rgb_array",
        autoreset_mode=mode,
    )
    vector.reset(seed=0)
    images = vector.render()
    assert len(images) == 3
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in images)
    vector.close()


def test_tasks_on_tensors_draw_too():
    vector = make_vector_env(EnvConfig("xlstm_rl/TMaze-v0", 2, kwargs={"tensors": True}))
    vector.unwrapped.render_mode = "rgb_array"
    vector.reset(seed=0)
    assert [image.shape for image in vector.render()] == [(256, 256, 3)] * 2


@pytest.mark.parametrize(
    ("task", "kwargs"),
    [
        ("MemoryChain", {"length": 1, "bits": 40}),
        ("TMaze", {"length": 500}),
        ("TMaze", {"length": 1, "active": True}),
        ("RepeatPrevious", {"k": 63, "decks": 3}),
        ("AssociativeRecall", {"pairs": 1, "values": 200}),
        ("AssociativeRecall", {"pairs": 300, "values": 2}),
        ("NavigateAndReturn", {"size": 300, "returns": 1}),
    ],
)
def test_a_task_of_any_size_fits_the_picture(task, kwargs):
    env = gym.make(f"xlstm_rl/{task}-v0", render_mode="rgb_array", **kwargs)
    env.reset(seed=0)
    for _ in range(3):
        assert env.render().shape == (256, 256, 3)
        if any(env.step(0)[2:4]):
            break
    with pytest.raises(ValueError, match="render_mode"):
        type(env.unwrapped)(render_mode="human")

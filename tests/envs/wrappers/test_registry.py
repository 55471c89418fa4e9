import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from xlstm_rl.agents import TrainConfig
from xlstm_rl.config import ConfigError, config_to_dict, parse_config
from xlstm_rl.envs import (
    Delay,
    EnvConfig,
    Flicker,
    MemoryChain,
    MemoryChainVectorEnv,
    NoVelocity,
    list_wrappers,
    make_env,
    make_vector_env,
)
from xlstm_rl.envs.wrappers.registry import WRAPPERS

CHAIN = "xlstm_rl/MemoryChain-v0"
YAML = """
env:
  id: CartPole-v1
  num_envs: 4
  wrappers:
    NoVelocity: {velocities: [1, 3]}
    Flicker: {probability: 0.25}
    Delay: {steps: 2}
"""


def test_a_file_puts_wrappers_around_each_environment_in_its_order(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML)
    config = parse_config(TrainConfig, file=path)
    env = make_env(config.env)
    assert isinstance(env, Delay)
    assert isinstance(env.env, Flicker)
    assert isinstance(env.env.env, NoVelocity)
    assert (env.steps, env.env.probability) == (2, 0.25)
    assert env.observation_space.shape == (2,)
    vector_env = make_vector_env(config.env)
    assert isinstance(vector_env, SyncVectorEnv)
    assert vector_env.single_observation_space == env.observation_space
    assert parse_config(TrainConfig, file=config_to_dict(config)) == config


def test_the_command_line_adds_a_wrapper_or_sets_them_all():
    config = parse_config(
        TrainConfig, ["--env.wrappers.Delay", "{steps: 5}"], {"env": {"wrappers": {}}}
    )
    assert config.env.wrappers == {"Delay": {"steps": 5}}
    config = parse_config(TrainConfig, ["--env.wrappers", "{Flicker: {probability: 0.1}}"])
    assert config.env.wrappers == {"Flicker": {"probability": 0.1}}


@pytest.mark.parametrize(
    ("wrappers", "message"),
    [
        ({"Fliker": {}}, "no wrapper 'Fliker' is known; did you mean Flicker.* Delay, RandomStart"),
        ({"Blur": {}}, "no wrapper 'Blur' is known; There are NoVelocity, Flicker"),
        ({"Delay": {"step": 2}}, "Delay has no argument 'step'; its arguments are steps"),
        ({"Delay": {}}, "Delay needs 'steps'; its arguments are steps"),
        ({"Delay": 3}, r"Delay has 3, expected its arguments, such as \{Flicker"),
        (["Delay"], r"expected a mapping .*, got \['Delay'\]"),
    ],
)
def test_what_is_unknown_is_answered_with_what_is_known(wrappers, message):
    with pytest.raises(ValueError, match=f"env.wrappers: {message}"):
        EnvConfig(wrappers=wrappers)


def test_a_mistake_in_a_file_is_said_in_one_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML.replace("Flicker", "Fliker"))
    with pytest.raises(ConfigError, match=r"did you mean Flicker.*\(from .*mine.yaml:env.wrappers"):
        parse_config(TrainConfig, file=path)


def test_a_wrong_value_is_refused_when_the_environment_is_made():
    config = EnvConfig(CHAIN, wrappers={"Flicker": {"probability": 2}})
    for make in (make_env, make_vector_env):
        with pytest.raises(ValueError, match="probability of Flicker is 2"):
            make(config)


def test_wrappers_are_put_around_what_a_callable_makes():
    config = EnvConfig(num_envs=2, wrappers={"Delay": {"steps": 1}})
    assert isinstance(make_env(config, MemoryChain), Delay)
    vector_env = make_vector_env(config, MemoryChain)
    first, _ = vector_env.reset(seed=0)
    np.testing.assert_array_equal(vector_env.step(np.array([0, 0]))[0], first)


def test_what_cannot_be_wrapped_is_refused():
    config = EnvConfig(CHAIN, 2, "native", wrappers={"Delay": {"steps": 1}})
    with pytest.raises(ValueError, match=r"in env.wrappers has no vector form of its own; use"):
        make_vector_env(config)
    with pytest.raises(ValueError, match=r"Delay cannot wrap .* ready made"):
        make_vector_env(config, MemoryChainVectorEnv(2))
    with pytest.raises(ValueError, match=r"Delay cannot wrap .* ready made"):
        make_env(config, gym.make(CHAIN))


def test_the_list_has_every_wrapper_with_its_arguments():
    lines = list_wrappers()
    assert [line.split("(")[0] for line in lines] == list(WRAPPERS)
    line = next(line for line in lines if line.startswith("RandomStartCue"))
    assert line.startswith("RandomStartCue(max_wait=10, components=None, cue_steps=1)  Begin")


def test_a_wrapper_of_another_package_is_found_by_its_module():
    wrappers = {"gymnasium.wrappers:TimeAwareObservation": {}, "Delay": {"steps": 1}}
    config = EnvConfig("CartPole-v1", 2, "sync", wrappers=wrappers)
    assert make_env(config).observation_space.shape == (5,)
    envs = make_vector_env(config)
    assert envs.reset(seed=0)[0].shape == (2, 5)
    envs.close()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("gymnasium.wrappers:TimeAware", {}, "'gymnasium.wrappers' has no 'TimeAware'"),
        ("no_such_module:Wrapper", {}, "no_such_module:Wrapper needs a package .*not installed"),
        ("gymnasium.wrappers:TimeAwareObservation", {"x": 1}, "cannot be put there: .*'x'"),
        ("math:sqrt", {}, "math:sqrt cannot be put there"),
        ("builtins:repr", {}, "made a str, expected a gymnasium.Env"),
    ],
)
def test_a_foreign_wrapper_that_cannot_be_put_there_is_told(name, arguments, message):
    config = EnvConfig("CartPole-v1", wrappers={name: arguments})
    with pytest.raises(ValueError, match=message):
        make_env(config)

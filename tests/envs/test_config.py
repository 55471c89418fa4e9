import json

import pytest
import tyro
import yaml

from xlstm_rl.envs import EnvConfig


def parse(*args, default=None):
    return tyro.cli(EnvConfig, args=list(args), default=default or EnvConfig())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": ""}, r"env\.id='': expected the id"),
        ({"num_envs": 0}, r"env\.num_envs=0: expected a whole number of at least 1"),
        ({"num_envs": True}, r"env\.num_envs=True"),
        ({"num_envs": 2.0}, r"env\.num_envs=2\.0"),
        ({"max_episode_steps": -1}, r"env\.max_episode_steps=-1: .* or none"),
        ({"vectorization": "threads"}, r"'threads': expected one of auto, sync, async, native"),
        ({"autoreset": "never"}, r"expected one of auto, same_step, next_step, disabled"),
        ({"kwargs": "length=3"}, r"env\.kwargs='length=3': expected a mapping"),
        ({"kwargs": {3: 1}}, r"has the key 3"),
        ({"kwargs": {"num_envs": 3}}, r"env\.kwargs\.num_envs=3: .* set env\.num_envs"),
        ({"kwargs": {"f": print}}, r"env\.kwargs\.f is a builtin_function_or_method: .* callable"),
        ({"kwargs": {"a": [{"b": {1, 2}}]}}, r"env\.kwargs\.a is a list"),
    ],
)
def test_illegal_values_are_refused_with_what_came_and_what_was_expected(fields, message):
    with pytest.raises(ValueError, match=message):
        EnvConfig(**fields)


def test_kwargs_are_parsed_from_the_command_line_with_their_types():
    config = parse(
        "--kwargs", "length", "32", "gravity", "-9.5", "wind", "True", "map", "4x4", "x", "None"
    )
    assert config.kwargs == {"length": 32, "gravity": -9.5, "wind": True, "map": "4x4", "x": None}
    assert type(config.kwargs["length"]) is int


def test_the_command_line_changes_one_of_the_kwargs_of_a_file():
    file = EnvConfig(id="xlstm_rl/MemoryChain-v0", kwargs={"length": 32, "bits": 2})
    assert parse("--kwargs.length", "64", default=file).kwargs == {"length": 64, "bits": 2}
    assert parse(default=file) == file


def test_the_other_fields_are_parsed_from_the_command_line():
    config = parse(
        *["--id", "CartPole-v1", "--num-envs", "3", "--vectorization", "async"],
        *["--autoreset", "next_step", "--max-episode-steps", "7"],
    )
    assert config == EnvConfig("CartPole-v1", 3, "async", "next_step", {}, 7)


@pytest.mark.parametrize("module", [json, yaml])
def test_every_accepted_value_survives_a_file(module):
    kwargs = {"a": 1, "b": 0.1, "c": True, "d": None, "e": "x", "f": [1, {"g": "h"}]}
    config = EnvConfig(kwargs=kwargs)
    load, dump = (json.loads, json.dumps) if module is json else (yaml.safe_load, yaml.safe_dump)
    assert EnvConfig(**load(dump(vars(config)))) == config


def test_a_configuration_does_not_change_with_the_dict_it_was_made_of():
    kwargs = {"length": 3}
    config = EnvConfig(kwargs=kwargs)
    kwargs["length"] = 4
    assert config.kwargs == {"length": 3}

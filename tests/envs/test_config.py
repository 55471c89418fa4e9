import json

import numpy as np
import pytest
import torch
import tyro
import yaml

from xlstm_rl.envs import EnvConfig


def parse(*args, default=None):
    return tyro.cli(EnvConfig, args=list(args), default=default or EnvConfig())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": ""}, r"env\.id='': expected the id"),
        ({"num_envs": 0}, r"env\.num_envs=0: expected an integer >= 1"),
        ({"num_envs": True}, r"env\.num_envs: expected an integer, got True"),
        ({"num_envs": 2.5}, r"env\.num_envs: expected an integer, got 2\.5"),
        ({"max_episode_steps": -1}, r"env\.max_episode_steps=-1: .* or none"),
        ({"vectorization": "threads"}, r"expected auto, sync, .* or envpool, got 'threads'"),
        ({"autoreset": "never"}, r"expected auto, same_step, next_step or disabled"),
        ({"kwargs": "length=3"}, r"env\.kwargs: expected a mapping .*, got 'length=3'"),
        ({"kwargs": {3: 1}}, r"env\.kwargs: expected a mapping .*, got \{3: 1\}"),
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


@pytest.mark.parametrize("number", [3.0, np.int64(3), torch.tensor(3)])
def test_numbers_of_any_type_are_counts_and_arguments(number):
    config = EnvConfig(num_envs=number, kwargs={"length": number, "sizes": [number]})
    config = EnvConfig(**json.loads(json.dumps(vars(config))))
    assert (config.num_envs, config.kwargs) == (3, {"length": 3, "sizes": [3]})
    assert EnvConfig(wrappers={"Delay": {"steps": number}}).wrappers == {"Delay": {"steps": 3}}

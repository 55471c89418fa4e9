"""The sweeps: read as W&B reads them, and the flags that its agent passes for them understood."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from xlstm_rl.cli.train import TrainOptions
from xlstm_rl.config import find_config, parse_config

SWEEPS = sorted(Path(__file__).parents[2].joinpath("configs", "sweeps").glob("*.yaml"))


def choices(parameter: dict[str, Any]) -> list[Any]:
    """The values of a parameter, or its ends and what lies between."""
    if "value" in parameter:
        return [parameter["value"]]
    if "values" in parameter:
        return list(parameter["values"])
    low, high = parameter["min"], parameter["max"]
    # YAML 1.1, which W&B reads, takes 1e-4 for a text
    assert isinstance(low, float) and isinstance(high, float)
    return [low, high, (low * high) ** 0.5]


def words(sweep: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """What `wandb agent` runs."""
    args = create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})
    command = sweep["command"]
    assert command.count("${args}") == 1
    at = command.index("${args}")
    return [*command[:at], *args["args"], *command[at + 1 :]]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_combination_of_a_sweep_is_a_training(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["program"] == sweep["command"][0] == "xlstm-rl"
    assert sweep["metric"] == {"name": "episode/return", "goal": "maximize"}
    names = list(sweep["parameters"])
    for values in itertools.product(*map(choices, sweep["parameters"].values())):
        program, command, *flags = words(sweep, dict(zip(names, values, strict=True)))
        assert (program, command) == ("xlstm-rl", "train")
        config = next(word for word in flags if word.startswith("--config="))
        options = parse_config(TrainOptions, flags, find_config(config.partition("=")[2]))
        assert options.logger.kind == "wandb"
        for name, value in zip(names, values, strict=True):
            found: Any = options
            for part in name.split("."):
                found = getattr(found, part)
            assert found == pytest.approx(value)


@pytest.mark.parametrize(
    ("values", "path", "expected"),
    [
        ({"agent.learning_rate": 0.001}, "agent.learning_rate", 0.001),
        ({"agent.learning_rate": 1e-05}, "agent.learning_rate", 1e-5),
        ({"normalization.reward": False}, "normalization.reward", False),
        ({"agent.target_kl": None}, "agent.target_kl", None),
        ({"env.num_envs": 8}, "env.num_envs", 8),
        ({"env.kwargs": {"length": 64}}, "env.kwargs", {"length": 64}),
        ({"memory.kind": "gru"}, "memory.kind", "gru"),
        ({"logger.kind": "wandb", "logger.tags": ["a", "b"]}, "logger.tags", ("a", "b")),
    ],
)
def test_every_type_that_an_agent_passes_is_understood(
    values: dict[str, Any], path: str, expected: Any
) -> None:
    args = create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})
    found: Any = parse_config(TrainOptions, args["args"])
    for part in path.split("."):
        found = getattr(found, part)
    assert found == expected

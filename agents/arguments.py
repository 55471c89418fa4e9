"""The arguments of an agent's constructor, read as a configuration."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from gymnasium.vector import VectorEnv

from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.config import config_from_dict, config_to_dict
from xlstm_rl.envs.config import CUSTOM_ENV

Section: TypeAlias = Mapping[str, Any] | object | None
Environment: TypeAlias = str | Callable[[], Any] | VectorEnv[Any, Any, Any] | None


def read_config(
    algo: str, environment: Environment, top: Mapping[str, Any], sections: Mapping[str, Section]
) -> TrainConfig:
    """Return the configuration of an agent that is made from arguments.

    Args:
        algo: the algorithm that reads the section `agent`.
        environment: the agent's first argument, merged into the section `env`.
        top: values that stand in no section.
        sections: mappings or config objects; None: the defaults.

    Raises:
        ConfigError: a value is unknown, of the wrong type, or does not fit the others.
    """
    given: dict[str, Any] = {k: v for k, v in sections.items() if v is not None}
    given["env"] = _env_section(environment, given.get("env"))
    agent = given.get("agent", {})
    if isinstance(agent, Mapping):
        given["agent"] = {"algo": algo, **agent}
    return config_from_dict(TrainConfig, {**top, **given})


def _env_section(environment: Environment, section: Any) -> Any:
    """Merge an environment given as the first argument into the `env` section."""
    values = dict(section) if isinstance(section, Mapping) else {}
    if section is not None and not isinstance(section, Mapping):
        values = config_to_dict(section)
    if environment is None:
        return values
    values["id"] = environment if isinstance(environment, str) else CUSTOM_ENV
    if isinstance(environment, VectorEnv):
        values["num_envs"] = environment.num_envs
    return values

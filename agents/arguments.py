"""The arguments of an agent's constructor, read as a configuration."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from gymnasium.vector import VectorEnv

from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.config import ConfigError, config_from_dict, config_to_dict
from xlstm_rl.envs.config import EnvConfig, custom_id, is_custom
from xlstm_rl.options.fields import own_fields
from xlstm_rl.options.functions import name_of

TOP_OPTIONS = ("seed", "total_steps", "horizon", "device", "threads")
"""Options that stand in no section; `run_dir` has a meaning of its own where a run goes on."""

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
    given: dict[str, Any] = {k: _named(v) for k, v in sections.items() if v is not None}
    given["env"] = _env_section(environment, given.get("env"))
    agent = given.get("agent", {})
    if isinstance(agent, Mapping):
        given["agent"] = {"algo": algo, **agent}
    return config_from_dict(TrainConfig, {**top, **given})


def merged(
    before: Mapping[str, Any],
    environment: Environment,
    top: Mapping[str, Any],
    sections: Mapping[str, Section],
) -> dict[str, Any]:
    """Return the values of a configuration with others in their places.

    Args:
        before: the configuration, as plain data.
        environment: in place of its environment; None: that one.
        top: values that stand in no section.
        sections: mappings, whose keys replace single options, or whole config objects.
    """
    values = {**before, **top}
    for name, section in sections.items():
        if isinstance(section, Mapping):
            values[name] = {**before[name], **_named(section)}
        elif section is not None:
            values[name] = section
    values["env"] = _env_section(environment, values["env"])
    return values


def _named(section: Any) -> Any:
    """Return a section with classes and functions of the user's own replaced by their names."""
    if not isinstance(section, Mapping):
        return section
    return {key: name_of(one) if callable(one) else one for key, one in section.items()}


def _env_section(environment: Environment, section: Any) -> Any:
    """Merge an environment given as the first argument into the `env` section."""
    values = dict(section) if isinstance(section, Mapping) else {}
    if section is not None and not isinstance(section, Mapping):
        values = config_to_dict(section)
    if environment is None:
        return values
    own: dict[str, Any] = {
        "id": environment if isinstance(environment, str) else custom_id(environment)
    }
    if is_custom(str(values.get("id", ""))):
        del values["id"]  # what made the environments before: the same, or what stands for it
    _refuse_two(values, own, "an environment is passed as well; leave one of the two out")
    if isinstance(environment, VectorEnv):
        count = {"num_envs": environment.num_envs}
        _refuse_two(values, count, f"the vector environment has {count['num_envs']}")
        own |= count
    return values | own


def _refuse_two(values: Mapping[str, Any], own: Mapping[str, Any], why: str) -> None:
    """Refuse an option of the section that says something else than the first argument."""
    for name, mine in own.items():
        value = values.get(name, mine)
        if value not in (mine, own_fields(EnvConfig)[name][0].default):
            raise ConfigError(f"env.{name}={value!r}: {why}")

"""Options that say `auto`, which only a made environment settles."""

from dataclasses import replace
from typing import Any

import gymnasium
from gymnasium import spaces

from xlstm_rl.agents.base_config import AlgorithmConfig
from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.agents.rollout_length import with_rollout_steps
from xlstm_rl.config import ConfigError
from xlstm_rl.envs.declared import requires_previous_action
from xlstm_rl.envs.spaces.leaves import space_leaves

OF_CHOICES = {"entropy_coef": 0.01}
"""Options of `agent` that the actions decide, where every one of them is a choice."""

OF_NUMBERS = {"entropy_coef": 0.0}
"""The same, where a part of an action is a number."""


def resolved(config: TrainConfig, env: Any, processes: int = 1) -> TrainConfig:
    """Return a configuration in which nothing is `auto` that an environment decides.

    Args:
        config: it may say `auto`.
        env: the vector environment that it trains in.
        processes: how many train together, each in as many environments.

    Raises:
        ConfigError: an option has no meaning in this environment.
    """
    config = with_rollout_steps(config, env, processes)
    config = replace(config, agent=_with_those_of(env.single_action_space, config.agent))
    if config.policy.previous_action == "auto":
        policy = replace(config.policy, previous_action=requires_previous_action(env))
        config = replace(config, policy=policy)
    return config


def _with_those_of(actions: gymnasium.Space[Any], agent: AlgorithmConfig) -> AlgorithmConfig:
    """Return options without those `auto` that the actions decide."""
    has_numbers = any(isinstance(leaf.space, spaces.Box) for leaf in space_leaves(actions))
    found = OF_NUMBERS if has_numbers else OF_CHOICES
    wanting = [one for one in found if getattr(agent, one) == "auto"]
    settled: dict[str, Any] = {one: found[one] for one in wanting}
    try:
        return replace(agent, **settled)
    except ValueError as error:
        raise ConfigError(
            f"{error}, which is what auto means where actions are numbers (Box): give "
            "agent.entropy_coef a number, or leave that option out"
        ) from None

"""Options that say `auto`, which only a made environment settles."""

from dataclasses import replace
from typing import Any

import gymnasium
from gymnasium import spaces

from xlstm_rl.agents.algorithm_config import PPOConfig
from xlstm_rl.agents.base_config import AlgorithmConfig
from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.agents.rollout_length import with_rollout_steps
from xlstm_rl.config import ConfigError
from xlstm_rl.envs.declared import wants_previous_action
from xlstm_rl.envs.spaces.leaves import space_leaves

TARGET_KL = 0.02
"""`agent.target_kl` where a part of an action is a number."""

ENTROPY_COEF = 0.01
"""`agent.entropy_coef` where every action is a choice."""


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
    agent, has_numbers = config.agent, _has_numbers(env.single_action_space)
    if isinstance(agent, PPOConfig) and agent.target_kl == "auto":
        target_kl = TARGET_KL if has_numbers else None
        config = replace(config, agent=replace(agent, target_kl=target_kl))
    if config.agent.entropy_coef == "auto":
        config = replace(config, agent=_with_entropy_coef(config.agent, has_numbers))
    if config.policy.previous_action == "auto":
        policy = replace(config.policy, previous_action=wants_previous_action(env))
        config = replace(config, policy=policy)
    return config


def _has_numbers(actions: gymnasium.Space[Any]) -> bool:
    """Whether a part of an action is a number."""
    return any(isinstance(leaf.space, spaces.Box) for leaf in space_leaves(actions))


def _with_entropy_coef(agent: AlgorithmConfig, has_numbers: bool) -> AlgorithmConfig:
    """Return options with a bonus for choices, and none where a part of an action is a number."""
    try:
        return replace(agent, entropy_coef=0.0 if has_numbers else ENTROPY_COEF)
    except ValueError as error:
        raise ConfigError(
            f"{error}, which is what auto means where actions are numbers (Box): give "
            "agent.entropy_coef a number, or leave that option out"
        ) from None

"""Options that say `auto`, which only a made environment settles."""

from dataclasses import replace
from typing import Any

from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.agents.rollout_length import with_rollout_steps
from xlstm_rl.envs.declared import requires_previous_action


def resolved(config: TrainConfig, env: Any, processes: int = 1) -> TrainConfig:
    """Return a configuration whose rollouts have a length, and whose memory's inputs are known.

    Args:
        config: it may say `auto`.
        env: the vector environment that it trains in.
        processes: how many train together, each in as many environments.
    """
    config = with_rollout_steps(config, env, processes)
    if config.policy.previous_action != "auto":
        return config
    policy = replace(config.policy, previous_action=requires_previous_action(env))
    return replace(config, policy=policy)

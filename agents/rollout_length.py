"""How long a rollout is where the task decides it: `agent.rollout_steps: auto`."""

from dataclasses import replace
from typing import Any

from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.envs.declared import declared_limit
from xlstm_rl.envs.registration import find_spec

MOST_EPISODE_STEPS = 1024
"""Up to so many steps an episode of a known length is covered whole."""

MOST_LIMIT_STEPS = 256
"""Up to so many steps an episode that only a time limit is known of is covered whole. Longer ones
often end early, or need no memory of their beginning."""

FEWEST_UPDATES = 30
"""So many rollouts at least have to fit into a training."""

FEWEST_LONG_UPDATES = 200
"""So many, where rollouts cover parts of long episodes and could as well be shorter."""


def with_rollout_steps(config: TrainConfig, env: Any, processes: int = 1) -> TrainConfig:
    """Return a configuration whose `agent.rollout_steps` is a number.

    Args:
        config: it may say `auto`.
        env: the vector environment that it trains in.
        processes: how many train together, each in as many environments.
    """
    if config.agent.rollout_steps != "auto":
        return config
    steps = choose_rollout_steps(
        config.agent.usual_rollout,
        config.agent.longest_part,
        config.env.num_envs * processes,
        config.total_steps,
        _episode_steps(env),
        config.env.max_episode_steps or _registered_limit(config.env.id) or declared_limit(env),
    )
    return replace(config, agent=replace(config.agent, rollout_steps=steps))


def choose_rollout_steps(
    usual: int,
    longest_part: int,
    num_envs: int,
    total_steps: int,
    episode: int | None,
    limit: int | None,
) -> int:
    """Return the steps of a rollout that holds whole episodes, where they are known and short.

    Args:
        usual: the steps where nothing is known, or the budget is small.
        longest_part: the steps of a long episode that a rollout covers where the budget is large.
        num_envs: environments side by side.
        total_steps: of the training.
        episode: the steps of an episode, where every one has as many; None: nobody knows.
        limit: the steps after which one is cut; None: never.
    """
    if episode is not None and episode <= usual:
        return episode * max(1, round(usual / episode))
    known = episode if episode is not None else limit
    most = MOST_EPISODE_STEPS if episode is not None else MOST_LIMIT_STEPS
    if known is None or known <= usual:
        return usual
    if known > most:
        part = longest_part
        while part > usual and num_envs * part * FEWEST_LONG_UPDATES > total_steps:
            part //= 2
        return max(part, usual)
    return known if num_envs * known * FEWEST_UPDATES <= total_steps else usual


def _registered_limit(env_id: str) -> int | None:
    try:
        return find_spec(env_id).max_episode_steps
    except ValueError:  # a callable, or an id of EnvPool
        return None


def _episode_steps(env: Any) -> int | None:
    """The steps that an episode of our own tasks has, or has at most."""
    for name in ("episode_steps", "longest_episode"):
        steps = getattr(env.unwrapped, name, None)
        if isinstance(steps, int):
            return steps
    return None

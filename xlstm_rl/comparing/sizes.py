"""How many weights a policy has, and the width of a memory at which it has as many as another."""

from collections.abc import Callable

from xlstm_rl.agents.automatic import resolved
from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.config import ConfigError
from xlstm_rl.envs import make_vector_env
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.faults.processes import close
from xlstm_rl.policy.policy import Policy

WIDEST = 4096
_STEP = 4
"""Widths are multiples of this, which heads and vector units like."""


class PolicySizes:
    """What only a made environment says: the weights of policies, and what is `auto`.

    Args:
        env: the environment, which is made once to see its spaces.

    Raises:
        ValueError: it cannot be made.
    """

    def __init__(self, env: EnvConfig) -> None:
        made = make_vector_env(env.for_one())
        try:
            self._spaces = made.single_observation_space, made.single_action_space
            self._env = made
        finally:
            close(made)

    def resolved(self, config: TrainConfig) -> TrainConfig:
        """Return the configuration as an agent would have it, without `auto`."""
        return resolved(config, self._env)

    def count(self, config: TrainConfig) -> int:
        """Return the weights of encoder, memories and heads, as an agent would have them."""
        config = self.resolved(config)
        policy = Policy(
            *self._spaces, config.memory, config.policy, config.normalization, config.env
        )
        return sum(one.numel() for one in policy.network.parameters())


def matching_width(count: Callable[[int], int | None], target: int) -> int:
    """Return the width whose number of weights is nearest to a target.

    Args:
        count: the weights at a width, which grow with it; None where the memory has no such width.
        target: the number that is wanted.

    Raises:
        ConfigError: no width has about as many.
    """
    low, high = _STEP, _STEP
    while high < WIDEST and _next_count(count, high)[1] < target:
        low, high = high, 2 * high
    while high - low > _STEP:
        middle = (low + high) // 2 // _STEP * _STEP
        if _next_count(count, middle)[1] < target:
            low = middle
        else:
            high = middle
    found = [_next_count(count, width) for width in (low, high)]
    width, size = min(found, key=lambda one: abs(one[1] - target))
    if not 0.5 * target <= size <= 2 * target:
        raise ConfigError(f"no width has about {target:,} weights; the nearest has {size:,}")
    return width


def _next_count(count: Callable[[int], int | None], width: int) -> tuple[int, int]:
    """The first width from this one on that the memory can have, and its weights."""
    for one in range(width, width + 64 * _STEP, _STEP):
        size = count(one)
        if size is not None:
            return one, size
    raise ConfigError(f"no width from {width} to {width + 64 * _STEP} fits its other options")

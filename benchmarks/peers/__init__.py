"""Recurrent PPO of other libraries on the benchmark's environment, at the benchmark's sizes.

Each module has `make(sizes) -> Learner`: a learner trains for a number of environment steps when
it is called, and knows how many parameters it has.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Sizes:
    """What all contenders have in common."""

    env_id: str = "xlstm_rl/CartPoleNoVel-v1"
    num_envs: int = 16
    steps: int = 128
    epochs: int = 4
    minibatches: int = 4
    width: int = 128

    @property
    def per_rollout(self) -> int:
        """Environment steps of a rollout."""
        return self.num_envs * self.steps


class Learner(Protocol):
    """Trains for a number of environment steps, in whole rollouts, and can be called again."""

    parameters: int

    def __call__(self, steps: int) -> None:
        """Train."""

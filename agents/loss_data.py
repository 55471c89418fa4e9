"""What PPO's loss in C is told of a minibatch."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from xlstm_rl.agents.config import PPOConfig
from xlstm_rl.agents.sequences import Sequences
from xlstm_rl.normalization import Observation


class LossData(NamedTuple):
    """Sequences `[N, T]` and the options of their loss, in the order of the C code."""

    observation: Observation
    action: Tensor
    old: tuple[Tensor, Tensor, Tensor, Tensor]
    """Log-probabilities and values of the policy that acted, advantages and targets."""

    valid: Tensor | None
    """The steps that count; None: all."""

    options: tuple[float, ...]
    """As `xlstm_rl.kernels.native.ppo_loss.OPTIONS` names them."""

    wants_barrier: bool
    """Whether the loss has a log barrier."""

    @classmethod
    def of(cls, batch: Sequences, now: Mapping[str, float], config: PPOConfig) -> "LossData":
        """Return those of a minibatch.

        Args:
            batch: what was collected.
            now: what the scheduled options are.
            config: the others.
        """
        value_clip = -1.0 if config.value_clip is None else config.value_clip
        least = 0.0 if batch.least_scale is None else batch.least_scale.item()
        coefs = config.value_coef, now["entropy_coef"], now["log_barrier_coef"]
        return cls(
            *(batch.observation, batch.action),
            *((batch.log_prob, batch.value, batch.advantage, batch.target), batch.valid),
            (now["clip"], *coefs, value_clip, config.normalize_advantage, least),
            config.log_barrier_coef > 0,
        )

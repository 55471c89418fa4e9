"""What every action distribution is: constants, and functions of bare tensors.

`torch.distributions` costs several hundred microseconds a step in validation and object
construction. Here a distribution holds nothing but constants, and its parameters are one tensor
`[..., num_params]`, so that the same code serves a step `[B]` and a rollout `[B, T]`. It is a
module so that its constants are where the weights are: to copy them at each step would stall a GPU.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from xlstm_rl.policy.config import DistributionConfig
from xlstm_rl.precision import KeepsPrecision


class ActionDistribution(KeepsPrecision, ABC):
    """A family of distributions over one action space.

    Parameters are float32 or float64, also behind a network of halves.
    """

    num_params: int
    """Length of the last axis of the parameters: the network's outputs, then the free ones."""

    num_free: int = 0
    """How many of the parameters, the last ones, are weights that no observation changes."""

    num_features: int
    """Length of the last axis of `features`."""

    action_shape: tuple[int, ...]
    """Shape of one action in the policy's own units."""

    action_dtype: torch.dtype
    """Type of an action in the policy's own units; a floating one stands for the parameters' own.
    """

    resample_steps: int | None = None
    """Steps for which noise stays the same function of the features (0: of a rollout); None: every
    sample is drawn by itself."""

    @property
    def params_dtype(self) -> torch.dtype:
        """The dtype of the parameters: that of the weights, float32 at least."""
        return torch.promote_types(self.cast_like.dtype, torch.float32)

    @property
    def num_outputs(self) -> int:
        """How many of the parameters, the first ones, come from the network."""
        return self.num_params - self.num_free

    @classmethod
    def for_space(
        cls, space: gymnasium.Space[Any], options: DistributionConfig
    ) -> "ActionDistribution | None":
        """Return the distribution over a space that is neither a Dict nor a Tuple.

        Args:
            space: of one environment, or a part of it.
            options: those of the kind under which the class is registered.

        Returns:
            None where the space is none for this family, which then has another's.
        """
        return None

    def initial_free(self) -> Tensor:
        """Return what the free parameters are at the start, `[num_free]`."""
        return torch.zeros(self.num_free)

    @abstractmethod
    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw actions `[..., *action_shape]` from parameters `[..., num_params]`."""

    def sample_rows(self, params: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Draw actions `[B, *action_shape]`, each row from a generator of its own.

        A row is what its generator would give it alone, whatever stands beside it.
        """
        if len(params) == 0:  # `split` would give one part of no rows
            return self.sample(params)
        rows = zip(params.split(1), generators, strict=True)
        return torch.cat([self.sample(row, generator) for row, generator in rows])

    @abstractmethod
    def mode(self, params: Tensor) -> Tensor:
        """Return the most probable actions `[..., *action_shape]`."""

    @abstractmethod
    def log_prob_and_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy, in nats, each `[...]`."""

    def mean_log_prob(self, params: Tensor) -> Tensor | None:
        """Return the mean over all choices of their log-probabilities `[...]`, in nats.

        It has no lower bound, so that no choice can die out where it is added to an objective. Of
        several choices side by side it is the sum. What is masked does not count. None: nothing is
        a choice, or the family does not say.
        """
        return None

    def loss_terms(
        self, params: Tensor, action: Tensor, wants_mean: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what a loss asks, `[...]` each: where one pass makes all, it costs less.

        Returns:
            Log-probability and entropy as `log_prob_and_entropy` has them, and `mean_log_prob`;
            None where it is not asked for, or there is none.
        """
        log_prob, entropy = self.log_prob_and_entropy(params, action)
        return log_prob, entropy, self.mean_log_prob(params) if wants_mean else None

    def shown(self, params: Tensor) -> dict[str, Tensor]:
        """Return what of the distributions can be drawn, `[...]` each, in the environment's units.

        Names are `probability/<choice>`, `mean/<index>` and `std/<index>`; a family that does not
        say how it is drawn has none.
        """
        return {}

    def decision(self, params: Tensor, action: Tensor) -> Tensor:
        """Return the numbers `[..., K]` that decide for actions `[...]`, with gradients.

        Of a choice its log-odds against all others, which do not fade where it is almost certain;
        of a normal its mean, in the policy's units; of other families the log-probability.
        """
        return self.log_prob_and_entropy(params, action)[0].unsqueeze(-1)

    @abstractmethod
    def to_env(self, action: Tensor) -> Any:
        """Turn actions in the policy's units into elements of the environment's space.

        Tensors of the space's dtype, within its bounds as that dtype has them, in dicts and tuples
        where the space is a Dict or Tuple.
        """

    def from_env(self, action: Any) -> Tensor:
        """Turn elements of the environment's space into the policy's units: `to_env` backwards.

        An action that was clipped to a bound is taken as the bound.

        Args:
            action: tensors `[..., *space.shape]`, in dicts and tuples where the space is a Dict or
                Tuple.

        Raises:
            TypeError: the family does not say how.
        """
        raise TypeError(
            f"{type(self).__name__} has no from_env, so that actions of the environment cannot be "
            "evaluated: write it, the inverse of to_env"
        )

    @abstractmethod
    def features(self, action: Tensor) -> Tensor:
        """Return actions as vectors of numbers `[..., num_features]` for a network to read.

        Choices are one-hot; numbers are in the policy's units, within their bounds.
        """

    def write_features(self, action: Tensor, out: Tensor) -> None:
        """Write what `features` returns over another tensor."""
        out.copy_(self.features(action))


def torch_dtype(dtype: Any) -> torch.dtype:
    """Return torch's dtype for that of a space; where there is none, float64."""
    native = np.dtype(dtype).newbyteorder("=")
    if native == np.longdouble:
        return torch.float64
    return torch.from_numpy(np.empty(0, native)).dtype

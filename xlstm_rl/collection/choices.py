"""Refuses choices on tensors that are not in their space, which index a policy's weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xlstm_rl.envs.faults.error_context import wrong_observation
from xlstm_rl.envs.spaces.leaves import Leaf, choice_range


class ChoiceCheck:
    """Looks at the leaves of observations that are counted: Discrete and its relatives.

    On a CPU that is to look. On a GPU it would be to wait, so that there the device is told to
    stop: an index beyond a table of weights stops it too, but names nothing, and one beyond its own
    part of a MultiDiscrete's table reads another's weights.

    Args:
        leaves: of the observation space of one environment.
        device: where observations are looked at.
    """

    def __init__(self, leaves: Sequence[Leaf], device: torch.device) -> None:
        self._ranges: list[tuple[Leaf, Tensor, Tensor]] = []
        for leaf in leaves:
            choices = choice_range(leaf.space)
            if choices is not None:
                first, last = (torch.as_tensor(bound, device=device) for bound in choices)
                self._ranges.append((leaf, first, last))

    def look(self, observation: Any) -> None:
        """Look at tensors `[B, ...]`, by the leaf's name where the space is nested.

        Raises:
            ValueError: one is not in its space; named are the environment and the space.
            RuntimeError: likewise, under `torch.compile`; a GPU says it later, and cannot go on.
        """
        for leaf, first, last in self._ranges:
            values = observation[leaf.name] if isinstance(observation, dict) else observation
            if not (values.is_cuda or torch.compiler.is_compiling()):
                numbers = values.float() if values.is_floating_point() else values
                wrong = wrong_observation(leaf, numbers.detach().cpu().numpy(), len(values))
                if wrong is not None:
                    raise ValueError(f"environment {wrong[0]}: {wrong[1]}")
                continue
            inside = (values >= first) & (values <= last)  # which NaN is not
            if values.is_floating_point():  # of MultiBinary alone
                inside &= values == values.round()
            what = f"observation {leaf.name!r}" if leaf.path else "observation"
            torch._assert_async(
                inside.all(), f"the {what} of an environment is not in its space {leaf.space}"
            )

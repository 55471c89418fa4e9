"""Raw observations, nested or not, NumPy or torch, as the tensors that a policy works on."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import Leaf, is_nested, observation_kind, space_leaves, take
from xlstm_rl.normalization import Observation


class ObservationReader:
    """Reads and checks the observations of a space; `space` is that of one environment."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self.leaves = space_leaves(space)
        self.is_nested = is_nested(space)

    def read(
        self, obs: Any, lead: tuple[int, ...] | None, remedy: str
    ) -> tuple[Observation, int, bool]:
        """Return observations as tensors, by the leaf's name where the space is nested.

        Args:
            obs: raw observations, each leaf with the axes `lead` in front.
            lead: the sizes of those axes; None: one axis of any size B.
            remedy: what to do where a shape does not fit, for the error.

        Returns:
            The tensors, the size of their first axis, and whether they came as tensors.

        Raises:
            ValueError: a leaf is missing or its shape does not fit.
        """
        found: dict[str, Tensor] = {}
        is_tensor = False
        for leaf in self.leaves:
            raw = take(obs, leaf.path) if leaf.path else obs
            is_tensor = isinstance(raw, Tensor)
            tensor = raw if isinstance(raw, Tensor) else torch.as_tensor(np.asarray(raw))
            shape, got = tuple(leaf.space.shape or ()), tuple(tensor.shape)
            split = len(got) - len(shape)
            fits = split == 1 if lead is None else got[:split] == lead
            if split < 0 or not fits or got[split:] != shape:
                which = f"obs {leaf.name!r}" if leaf.path else "obs"
                expected = ", ".join(map(str, (*(("B",) if lead is None else lead), *shape)))
                raise ValueError(f"{which} has shape {list(got)}, expected [{expected}]: {remedy}")
            if lead is None:
                lead = got[:1]
            found[leaf.name] = tensor
        size = lead[0] if lead else 1
        return (found if self.is_nested else found[""]), size, is_tensor

    def example(self, rows: int, device: torch.device) -> Observation:
        """Return observations of the space for `rows` environments, in the types of the network."""

        def one(leaf: Leaf) -> Tensor:
            dtype = _TYPES.get(observation_kind(leaf.space) or "", torch.float32)
            value = torch.zeros(rows, *(leaf.space.shape or ()), dtype=dtype, device=device)
            start = np.asarray(getattr(leaf.space, "start", 0))  # of Discrete and MultiDiscrete
            return value + torch.as_tensor(start, dtype=dtype, device=device)

        found = {leaf.name: one(leaf) for leaf in self.leaves}
        return found if self.is_nested else found[""]


_TYPES = {"image": torch.uint8, "discrete": torch.int64, "multi_discrete": torch.int64}


def map_observation(call: Callable[[Tensor], Tensor], observation: Observation) -> Observation:
    """Return an observation with `call` applied to each of its tensors."""
    if isinstance(observation, Tensor):
        return call(observation)
    return {name: call(part) for name, part in observation.items()}

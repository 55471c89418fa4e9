"""Raw observations, nested or not, NumPy or torch, as the tensors that a policy works on."""

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import (
    Leaf,
    choice_range,
    exceeds_float32,
    is_nested,
    observation_kind,
    outside_choices,
    space_leaves,
    take,
)
from xlstm_rl.normalization import Observation
from xlstm_rl.policy.arrays import as_tensor, is_traced

Numbers = np.ndarray[Any, Any]


class ObservationReader:
    """Reads and checks the elements of a space; `space` is that of one environment.

    Args:
        space: of observations, or of actions.
        name: what its elements are called in errors.
    """

    def __init__(self, space: gymnasium.Space[Any], name: str = "obs") -> None:
        self.leaves = space_leaves(space)
        self.is_nested = is_nested(space)
        self._readers = [_LeafReader(leaf, name) for leaf in self.leaves]

    def read(
        self, obs: Any, lead: tuple[int, ...] | None, remedy: str
    ) -> tuple[Observation, int, bool]:
        """Return observations as tensors, by the leaf's name where the space is nested.

        Args:
            obs: raw observations, each leaf with the axes `lead` in front, in any form that
                `as_tensor` takes.
            lead: the sizes of those axes; None: one axis of any size B.
            remedy: what to do where a shape does not fit, for the error.

        Returns:
            The tensors, the size of their first axis, and whether they came as tensors.

        Raises:
            ValueError: a leaf is missing, its shape or its dtype does not fit, or a number is not
                finite or a choice not in the space. Tensors on a GPU, and any while a graph is
                traced, are not looked into: that would be to wait.
        """
        found: dict[str, Tensor] = {}
        is_tensor = False
        for reader in self._readers:
            raw = take(obs, reader.leaf.path) if self.is_nested else obs
            is_tensor = isinstance(raw, Tensor)
            tensor = as_tensor(raw, reader.what)
            got = tensor.shape
            front = got[:1] if lead is None else lead
            if got != front + reader.shape or (lead is None and not front):
                sizes = [*(("B",) if lead is None else lead), *reader.shape]
                expected = ", ".join(map(str, sizes))
                raise ValueError(
                    f"{reader.what} has shape {list(got)}, expected [{expected}]: {remedy}"
                )
            lead = front
            found[reader.leaf.name] = reader.checked(tensor, is_tensor)
        size = lead[0] if lead else 1
        return (found if self.is_nested else found[""]), size, is_tensor

    def example(self, rows: int, device: torch.device) -> Observation:
        """Return observations of the space for `rows` environments, in types that hold them."""
        found = {
            reader.leaf.name: reader.example.to(device).repeat(rows, *[1] * len(reader.shape))
            for reader in self._readers
        }
        return found if self.is_nested else found[""]


class _LeafReader:
    """What is known of a leaf before any observation of it comes."""

    def __init__(self, leaf: Leaf, name: str) -> None:
        self.leaf = leaf
        self.what = f"{name} {leaf.name!r}" if leaf.path else name
        self.shape = tuple(leaf.space.shape or ())
        kind = observation_kind(leaf.space)
        self._is_image = kind == "image"
        self._is_choice = kind in ("discrete", "multi_discrete")
        numbers = torch.float64 if exceeds_float32(leaf.space) else torch.float32
        dtype = torch.int64 if self._is_choice else torch.uint8 if self._is_image else numbers
        self._range = choice_range(leaf.space)
        start = as_tensor(self._range[0]).to(dtype) if self._range else 0
        self.example = torch.zeros(1, *self.shape, dtype=dtype) + start

    def checked(self, tensor: Tensor, is_tensor: bool) -> Tensor:
        """Return a tensor of the shape of the leaf, if it can be one of its observations."""
        if self._is_image:
            return tensor if tensor.dtype == torch.uint8 else self._as_pixels(tensor, is_tensor)
        if self._is_choice and (tensor.is_floating_point() or tensor.is_complex()):
            raise self._error(tensor, "integers, since choices are counted")
        if tensor.is_complex():
            raise self._error(tensor, "real numbers")
        if not is_tensor or (tensor.device.type == "cpu" and not is_traced(tensor)):
            numbers = tensor.detach() if is_tensor else tensor
            values = (numbers.float() if tensor.dtype == torch.bfloat16 else numbers).numpy()
            self._check_finite(values)
            if self._range is not None:
                self._check_choices(values, *self._range)
        return tensor

    def _check_finite(self, values: Numbers) -> None:
        if values.dtype.kind != "f":
            return
        # the sum of the squares is one call, where only numbers beyond 1e19 lead to a second one
        if not (math.isfinite(np.vdot(values, values)) or np.isfinite(values).all()):
            short = np.array2string(values, threshold=8, edgeitems=2).replace("\n", "")
            raise ValueError(
                f"{self.what} has NaN or infinite numbers, on which no policy is trained: {short}"
            )

    def _check_choices(self, values: Numbers, first: Numbers, last: Numbers) -> None:
        outside = outside_choices(values, first, last)
        if outside.any():
            rows, bad = (x.reshape(-1, *self.shape) for x in (values, outside))
            one = rows[np.argwhere(bad)[0][0]]
            raise ValueError(f"{self.what} is {one}, which is not in its space {self.leaf.space}")

    def _as_pixels(self, tensor: Tensor, is_tensor: bool) -> Tensor:
        whole = not (tensor.is_floating_point() or tensor.is_complex())
        if is_tensor or not whole or bool(((tensor < 0) | (tensor > 255)).any()):
            raise self._error(tensor, "torch.uint8, the pixels as the environment has them")
        return tensor.to(torch.uint8)

    def _error(self, tensor: Tensor, expected: str) -> ValueError:
        return ValueError(
            f"{self.what} has dtype {tensor.dtype}, expected {expected} ({self.leaf.space})"
        )


def map_observation(call: Callable[[Tensor], Tensor], observation: Observation) -> Observation:
    """Return an observation with `call` applied to each of its tensors."""
    if isinstance(observation, Tensor):
        return call(observation)
    return {name: call(part) for name, part in observation.items()}

"""Action masks, as environments give them, as flags of the network's outputs."""

import math
from collections.abc import Mapping
from contextlib import suppress
from itertools import accumulate
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from xlstm_rl.envs.spaces.leaves import Leaf, space_leaves
from xlstm_rl.policy.actions.base import ActionDistribution
from xlstm_rl.policy.actions.distributions import JointDistribution

Array = NDArray[Any]
Flags = NDArray[np.bool_]


class ActionMask:
    """Reads the masks of an action space; they are those that `space.sample(mask=...)` takes.

    | leaf | its mask |
    |---|---|
    | Discrete | `[n]`, 0: not now |
    | MultiDiscrete | a tuple of such arrays, or these in one row |
    | MultiBinary | the shape of an action; 0: must be 0, 1: must be 1, 2: free |
    | Box | None |

    Those of a Dict or Tuple space are nested like it; a part that is missing or None is free.

    Args:
        action_space: of one environment.
        distribution: of its actions.
    """

    def __init__(
        self, action_space: gymnasium.Space[Any], distribution: ActionDistribution
    ) -> None:
        joint = isinstance(distribution, JointDistribution)
        parts: Any = distribution.parts if joint else [distribution]
        leaves = space_leaves(action_space)
        self._leaves = [
            (leaf, int(part.num_outputs)) for leaf, part in zip(leaves, parts, strict=True)
        ]
        self.width = sum(width for _, width in self._leaves)
        counts: list[int] = []
        self._names: list[str] = []
        for leaf, width in self._leaves:
            sizes = _choices(leaf.space) or [1] * width
            counts += sizes
            self._names += [f" for {leaf.name!r}" if leaf.path else ""] * len(sizes)
        self._starts = [0, *accumulate(counts[:-1])]

    def read(self, mask: Any, rows: int) -> Flags:
        """Return flags `[rows, width]`, true where an output of the network may be taken.

        Args:
            mask: a batch of masks, every array with the environments in front; or an array of
                objects, one mask for each environment.
            rows: how many environments.

        Raises:
            ValueError: a shape does not fit the action space.
        """
        parts = [_leaf_flags(leaf, width, mask, (rows,)) for leaf, width in self._leaves]
        return np.concatenate(parts, 1)

    def read_one(self, mask: Any) -> Flags:
        """Return flags `[1, width]` of the mask of one environment, as it gives it.

        Raises:
            ValueError: a shape does not fit the action space.
        """
        parts = [_leaf_flags(leaf, width, mask, ()) for leaf, width in self._leaves]
        return np.concatenate(parts)[None]

    def all_false(self, flags: Flags) -> tuple[int, str] | None:
        """Return the first environment without an allowed action, and for which leaf, or None."""
        any_left = np.logical_or.reduceat(flags, self._starts, axis=1)
        if any_left.all():
            return None
        row, group = (int(i) for i in np.argwhere(~any_left)[0])
        return row, self._names[group]


def batch_of_one(mask: Any) -> Any:
    """Return the mask of one environment, as it gives it, as what `ActionMask.read` takes."""
    if isinstance(mask, Tensor):
        return mask.unsqueeze(0)
    batch = np.empty(1, dtype=object)  # not an array of it: where an axis goes, each leaf knows
    batch[0] = mask
    return batch


def _leaf_flags(leaf: Leaf, width: int, mask: Any, lead: tuple[int, ...], depth: int = 0) -> Flags:
    """Return the flags `[*lead, width]` of a leaf.

    `lead` is `(rows,)`, or `()` for the mask of one environment; `depth`: how far down its path
    `mask` is.
    """
    if isinstance(mask, np.ndarray) and mask.dtype == object:
        if lead and len(mask) != lead[0]:
            raise ValueError(
                f"the action mask{_of(leaf)} has {len(mask)} entries, expected {lead[0]}: one for "
                "each environment"
            )
        if lead:
            return np.stack([_leaf_flags(leaf, width, one, (), depth) for one in mask])
        mask = mask.tolist()
    if mask is None:
        return np.ones((*lead, width), dtype=np.bool_)
    if depth < len(leaf.path):
        return _leaf_flags(leaf, width, _part(leaf, mask, depth), lead, depth + 1)
    if isinstance(leaf.space, spaces.MultiBinary):
        return _bits(leaf, mask, lead)
    flags = _one_array(leaf, width, mask, lead)
    if flags.shape != (*lead, width) or _choices(leaf.space) is None:
        raise ValueError(
            f"the action mask{_of(leaf)} has shape {list(flags.shape)}, expected "
            f"{[*lead, width]} for {leaf.space}: one flag for each choice, and none for numbers"
        )
    found: Flags = flags != 0
    if flags.dtype.kind == "f" and (flags[found] != 1).any():
        raise ValueError(
            f"the action mask{_of(leaf)} has numbers such as {flags[found][0]}, expected flags: 0 "
            "forbids and 1 allows; a term that is added to logits is not a mask"
        )
    return found


def _part(leaf: Leaf, mask: Any, depth: int) -> Any:
    """Return the part of a mask one step down the leaf's path, None where it is missing."""
    key = leaf.path[depth]
    if isinstance(mask, Mapping):
        return mask.get(key)
    if isinstance(mask, tuple | list) and isinstance(key, int) and key < len(mask):
        return mask[key]
    raise ValueError(
        f"the action mask{_of(leaf)} is to be in a dict or tuple nested like the action space, "
        f"got {type(mask).__name__}"
    )


def _choices(space: gymnasium.Space[Any]) -> list[int] | None:
    """Return how many choices each entry of a space has; None: numbers, which have no mask."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.ravel()]
    if isinstance(space, spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    return None


def _bits(leaf: Leaf, part: Any, lead: tuple[int, ...]) -> Flags:
    bits, shape = np.asarray(part), (*lead, *(leaf.space.shape or ()))
    if bits.shape != shape or bits.dtype == bool or not np.isin(bits, (0, 1, 2)).all():
        raise ValueError(
            f"the action mask{_of(leaf)} has shape {list(bits.shape)} and dtype {bits.dtype}, "
            f"expected integers {list(shape)} for {leaf.space}: 0 and 1 for "
            "bits that must be so, 2 for free ones"
        )
    bits = _by_row(bits, lead)
    return _by_row(np.stack((bits != 1, bits != 0), -1), lead)


def _of(leaf: Leaf) -> str:
    return f" of {leaf.name!r}" if leaf.path else ""


def _one_array(leaf: Leaf, width: int, mask: Any, lead: tuple[int, ...]) -> Array:
    """Return a leaf's mask as one array: lists of plain numbers are one, tuples of arrays too."""
    if not isinstance(mask, tuple | list):
        return np.asarray(mask)
    whole = _array_of(mask)
    if whole is not None and whole.shape == (*lead, width):
        return whole
    try:
        return _side_by_side(mask, lead)
    except ValueError as error:
        raise ValueError(
            f"the action mask{_of(leaf)} is in lists or tuples that make no array, expected one "
            f"of shape {[*lead, width]} for {leaf.space}: one flag for each choice"
        ) from error


def _side_by_side(mask: Any, lead: tuple[int, ...]) -> Array:
    """Return arrays in nested tuples, each with the environments in front, side by side."""
    if isinstance(mask, tuple | list):
        return np.concatenate([_part_of_row(one, lead) for one in mask], -1)
    return _by_row(np.asarray(mask), lead)


def _by_row(array: Array, lead: tuple[int, ...]) -> Array:
    """Return an array as `[*lead, ...]` with one axis more; of no rows -1 could be any size."""
    rows = math.prod(lead)
    return array.reshape(*lead, array.size // rows if rows else math.prod(array.shape[1:]))


def _part_of_row(mask: Any, lead: tuple[int, ...]) -> Array:
    if isinstance(mask, tuple | list):
        whole = _array_of(mask)
        if whole is not None and whole.shape[:-1] == lead:  # one entry's flags
            return whole
    return _side_by_side(mask, lead)


def _array_of(mask: Any) -> Array | None:
    """Return lists of one length each as an array."""
    with suppress(ValueError):  # of several lengths: those of a MultiDiscrete's entries
        return np.asarray(mask)
    return None

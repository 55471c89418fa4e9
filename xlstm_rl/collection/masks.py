"""Action masks of running environments, from their observations or their infos."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

import gymnasium
import numpy as np
from numpy.typing import NDArray

from xlstm_rl.collection.env_adapter import RawObservation
from xlstm_rl.collection.infos import Info, marked
from xlstm_rl.errors import EnvError
from xlstm_rl.policy.actions.distributions import make_distribution
from xlstm_rl.policy.actions.mask import ActionMask
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.policy import Policy

Flags = NDArray[np.bool_]


def read_masks(
    policy: Policy,
    observation: RawObservation,
    infos: Sequence[Info],
    autoreset: Flags,
    where: Callable[[int], str],
) -> Flags:
    """Return the flags `[B, num_outputs]` of which actions B environments allow.

    Args:
        policy: says where the masks are, and what they look like.
        observation: `[B, ...]`.
        infos: of a vector environment; where two of them have a mask for an environment, the later
            one holds.
        autoreset: `[B]`, true where the next action is ignored; its mask is not looked at.
        where: names an environment and its step, for errors, by its row.

    Raises:
        EnvError: an environment has no mask, one of another shape, or one that allows nothing.
    """
    reader, rows = policy.auxiliary_reader.mask, len(autoreset)
    if policy.auxiliary_reader.source == "observation":
        assert isinstance(observation, dict)
        flags = reader.read(policy.auxiliary_reader.mask_in(observation), rows)
    else:
        flags, found = _from_infos(policy, infos, rows)
        missing = np.flatnonzero(~found & ~autoreset)
        if missing.size:
            key = policy.policy_config.action_mask_key
            raise EnvError(
                f"{where(int(missing[0]))}: info has no {key!r}, which policy.action_mask='info' "
                "needs at every step and reset; set policy.action_mask_key, or let the "
                "environment give it"
            )
    flags[autoreset] = True
    nothing = reader.all_false(flags)
    if nothing is not None:
        row, part = nothing
        raise EnvError(
            f"{where(row)}: the action mask allows no action{part}; end the episode, or allow an "
            "action that does nothing"
        )
    return flags


def _from_infos(policy: Policy, infos: Sequence[Info], rows: int) -> tuple[Flags, Flags]:
    """Return the flags of the last info that has them, and which environments have any."""
    reader, key = policy.auxiliary_reader.mask, policy.policy_config.action_mask_key
    flags = np.ones((rows, reader.width), dtype=np.bool_)
    found = np.zeros(rows, dtype=np.bool_)
    for info in infos:
        if key in info:
            # environments that compute all episodes at once may leave out who has one
            has = marked(info, key, rows)
            flags[has] = reader.read(info[key], rows)[has]
            found |= has
    return flags, found


def mask_infos(policy: Policy, infos: Sequence[Info]) -> list[Info]:
    """Return of infos what a policy reads there: the masks of its actions, if any."""
    key = policy.policy_config.action_mask_key
    wanted = (key, f"_{key}") if policy.auxiliary_reader.source == "info" else ()
    return [{name: info[name] for name in wanted if name in info} for info in infos]


_TOLD: WeakSet[Policy] = WeakSet()


def tell_of_unread_masks(policy: Policy, infos: Sequence[Info]) -> bool:
    """Warn of action masks that a policy does not read, once, and return whether that was done."""
    if policy in _TOLD:
        return True
    key = policy.policy_config.action_mask_key
    if all(info.get(key) is None for info in infos):
        return False
    _TOLD.add(policy)
    warnings.warn(
        f"the environment has {key!r} in its info, and the policy does not read it: set "
        "policy.action_mask to 'info' so that only allowed actions are taken",
        UserWarning,
        stacklevel=2,
    )
    return True


def mask_check(config: PolicyConfig) -> "MaskCheck | None":
    """Return what looks at the mask of one environment, None where the policy reads none."""
    return None if config.action_mask == "none" else MaskCheck(config)


class MaskCheck:
    """Says what is wrong with the action mask of a single environment, while it still runs there.

    It may be sent to another process.

    Args:
        config: says where the masks are.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self._reader: ActionMask | None = None

    def __call__(
        self, action_space: gymnasium.Space[Any], observation: Any, info: dict[str, Any]
    ) -> str | None:
        """Return what is wrong: no mask, one of another shape, or one that allows nothing."""
        key, source = self._config.action_mask_key, self._config.action_mask
        if self._reader is None:  # not before: whether the spaces are supported is asked elsewhere
            distribution = make_distribution(action_space, self._config)
            self._reader = ActionMask(action_space, distribution)
        holder = observation if source == "observation" else info
        if key not in holder:
            return f"{source} has no {key!r}, which policy.action_mask={source!r} needs"
        mask = holder[key]
        if (
            isinstance(action_space, gymnasium.spaces.Discrete)
            and isinstance(mask, np.ndarray)
            and mask.shape == (action_space.n,)
            and mask.dtype.kind != "f"
            and mask.any()
        ):
            return None  # the most common case, in a quarter of the time
        try:
            flags = self._reader.read_one(mask)
        except ValueError as error:
            return str(error)
        nothing = self._reader.all_false(flags)
        return None if nothing is None else f"the action mask allows no action{nothing[1]}"

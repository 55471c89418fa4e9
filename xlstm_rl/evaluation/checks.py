"""What a policy may be shown: observations that are in its space and finite as float32."""

from collections.abc import Callable
from typing import Any

import numpy as np

from xlstm_rl.envs.faults.error_context import wrong_observation
from xlstm_rl.envs.spaces.leaves import take
from xlstm_rl.errors import EnvError
from xlstm_rl.policy.policy import Policy


def check_observations(policy: Policy, obs: Any, rows: int, place: Callable[[int], str]) -> None:
    """Refuse what is not in the space, and numbers that are not finite as float32.

    Args:
        policy: says what its space is.
        obs: `[B, ...]`, nested like the space.
        rows: B.
        place: names the episode and the step of a row, for errors.

    Raises:
        EnvError: an observation cannot be used.
    """
    for leaf in policy.reader.leaves:
        values = np.asarray(take(obs, leaf.path))
        wrong = wrong_observation(leaf, values, rows)
        if wrong is not None:
            raise EnvError(f"{place(wrong[0] or 0)}: {wrong[1]}")
        if values.dtype.kind != "f":
            continue
        with np.errstate(over="ignore"):
            finite = np.isfinite(values.astype(np.float32, copy=False))
        if not finite.all():
            row = int(np.argwhere(~finite)[0][0])
            what = f" {leaf.name!r}" if leaf.path else ""
            raise EnvError(
                f"{place(row)}: its observation{what} is not finite, or too large for float32: "
                f"{values[row]}"
            )

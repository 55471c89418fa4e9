"""Whether an episode succeeded, as its environment says."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

from xlstm_rl.collection.infos import SUCCESS, success_of


def read_success(info: Mapping[str, Any]) -> float | None:
    """Return what the info of an episode's last step says of its success, from 0 to 1.

    What is neither a bool nor a number in that range counts as nothing, with a warning.

    Returns:
        None: the environment says nothing.
    """
    value = info.get(SUCCESS)
    if value is None:
        return None
    success = success_of(value)
    if not math.isnan(success):
        return success
    warnings.warn(
        f"info[{SUCCESS!r}] is {' '.join(repr(value).split())}, expected a bool: the episode is "
        "left out of the success rate",
        RuntimeWarning,
        stacklevel=2,
    )
    return None

"""What environments say of themselves beyond their spaces."""

from typing import Any

from gymnasium.vector import AsyncVectorEnv

REQUIRES_PREVIOUS_ACTION = "obs_requires_prev_action"
"""POPGym's name for: an observation means little without the action that led to it."""


def requires_previous_action(vector_env: Any) -> bool:
    """Return whether all environments of a vector, or their wrappers, say so.

    The attribute `obs_requires_prev_action` is POPGym's, where the game that hides a card or a ship
    answers a choice, and the answer alone does not tell which choice it was.

    Args:
        vector_env: of any kind; the environment itself is asked, or each single one.
    """
    name, base = REQUIRES_PREVIOUS_ACTION, vector_env.unwrapped
    if isinstance(base, AsyncVectorEnv):  # asked for what it has not, a process ends with an error
        if not all(base.call("has_wrapper_attr", name)):
            return False
        return all(map(_is_true, base.call("get_wrapper_attr", name)))
    singles = getattr(base, "envs", None)
    if isinstance(singles, list) and singles:
        return all(_is_true(_of(single, name)) for single in singles)
    return _is_true(getattr(base, name, None))


def _of(single: Any, name: str) -> Any:
    try:
        return single.get_wrapper_attr(name)
    except AttributeError:
        return None


def _is_true(value: Any) -> bool:
    return value is True

"""What environments say of themselves beyond their spaces, by the attributes of POPGym's games."""

from typing import Any

from gymnasium.vector import AsyncVectorEnv

REQUIRES_PREVIOUS_ACTION = "obs_requires_prev_action"
"""POPGym's name for: an observation means little without the action that led to it."""

LIMITS = ("max_episode_length", "episode_length")
"""POPGym's names for the steps after which a game is over, which its ids are registered without."""


def wants_previous_action(vector_env: Any) -> bool:
    """Return whether all environments of a vector, or their wrappers, say so, or are POPGym's.

    Where a game hides a card or a ship, an observation answers the last choice, and the answer
    alone does not tell which choice that was. POPGym's own results have it in all of its games: in
    the others, where observations are noisy, it tells what the policy did (docs/defaults.md).

    Args:
        vector_env: of any kind; the environment itself is asked, or each single one.
    """
    found = declared(vector_env, REQUIRES_PREVIOUS_ACTION)
    if not all(isinstance(value, bool) for value in found):
        return False
    return all(found) or all(map(_is_of_popgym, declared(vector_env, "spec")))


def _is_of_popgym(spec: Any) -> bool:
    return str(getattr(spec, "entry_point", "")).startswith("popgym.")


def declared_limit(vector_env: Any) -> int | None:
    """Return the most steps of an episode in any environment of a vector; None: they do not say."""
    for name in LIMITS:
        found = declared(vector_env, name)
        if all(_is_count(value) for value in found):
            return int(max(found))
    return None


def declared(vector_env: Any, name: str) -> list[Any]:
    """Return an attribute of each environment of a vector, or of a wrapper; None where it has none.

    Args:
        vector_env: of any kind; one of its own kind is asked itself.
        name: of the attribute.
    """
    base = vector_env.unwrapped
    if isinstance(base, AsyncVectorEnv):  # asked for what it has not, a process ends with an error
        if not all(base.call("has_wrapper_attr", name)):
            return [None]
        return list(base.call("get_wrapper_attr", name))
    singles = getattr(base, "envs", None)
    if isinstance(singles, list) and singles:
        return [_of(single, name) for single in singles]
    return [getattr(base, name, None)]


def _of(single: Any, name: str) -> Any:
    try:
        return single.get_wrapper_attr(name)
    except AttributeError:
        return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

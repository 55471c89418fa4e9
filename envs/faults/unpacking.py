"""Wrappers that cannot unpack what an environment returned: their errors do not say what it is."""

from __future__ import annotations

from types import TracebackType

_PARTS = {
    "step": "observation, reward, terminated, truncated and info",
    "reset": "observation and info",
}
_WRAPPERS = ("gymnasium.wrappers.", "gymnasium.core", "xlstm_rl.envs.wrappers.")
_CHECKER = "gymnasium.utils.passive_env_checker"


def expected_answer(error: Exception) -> str:
    """Return what `step` or `reset` has to return, where a wrapper could not unpack it, else "".

    Args:
        error: raised by a wrapped environment.
    """
    place = _last(error.__traceback__)
    if place is None:
        return ""
    module, function = place
    if module == _CHECKER and function.endswith("_passive_checker"):
        parts = _PARTS.get(function.split("_")[1])
        # it checks what the parts are as well, in words that say it
        about = "unpack" in str(error) or "tuple" in str(error)
    else:
        parts = _PARTS.get(function)
        about = module.startswith(_WRAPPERS) and "unpack" in str(error)
    if parts is None or not about:
        return ""
    call = "step" if parts == _PARTS["step"] else "reset"
    return f"; its {call} has to return {parts}"


def _last(traceback: TracebackType | None) -> tuple[str, str] | None:
    """Return the module and the function in which an error arose."""
    if traceback is None:
        return None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    frame = traceback.tb_frame
    return str(frame.f_globals.get("__name__")), frame.f_code.co_name

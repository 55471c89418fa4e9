"""Calls the callbacks of a training, and names the one that fails."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from xlstm_rl.callbacks.base import Callback, Learner
from xlstm_rl.closing import Closing
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.config.errors import ConfigError, one_line
from xlstm_rl.errors import CallbackError
from xlstm_rl.options.arguments import plain_number

OnUpdate: TypeAlias = Callable[[int, dict[str, float]], object]
"""The short form of a callback: the steps done and the metrics; False stops."""

Callbacks: TypeAlias = Callback | OnUpdate | Iterable[Callback | OnUpdate] | None


class CallbackCalls(Closing):
    """The callbacks of one call of `learn`, in their order.

    Each method returns False where a callback asked to stop; the others are called all the same.

    Args:
        agent: that trains.
        configured: what the configuration asks for.
        callbacks: one or several; functions are called after each update.
        on_update: called last after each update.

    Raises:
        ConfigError: something among them is no callback.
    """

    def __init__(
        self,
        agent: Learner,
        configured: list[Callback],
        callbacks: Callbacks = None,
        on_update: OnUpdate | None = None,
    ) -> None:
        one = callbacks is None or callable(callbacks) or isinstance(callbacks, Callback)
        given: Any = [callbacks][callbacks is None :] if one else callbacks
        if not isinstance(given, Iterable):
            raise _no_callback("callbacks", callbacks)
        own = [_as_callback(f"callbacks[{i}]", callback) for i, callback in enumerate(given)]
        last = [] if on_update is None else [_as_callback("on_update", on_update)]
        self._callbacks = [*configured, *own, *last]
        for callback in self._callbacks:
            callback.agent = agent
        self._agent = agent

    def training_start(self) -> bool:
        """Call `on_training_start`."""
        return self._call("on_training_start")

    def rollout_end(self, rollout: Rollout) -> bool:
        """Call `on_rollout_end`."""
        return self._call("on_rollout_end", rollout)

    def update(self, step: int, metrics: dict[str, float]) -> bool:
        """Call `on_update`.

        Raises:
            CallbackError: one raised, or put something else than numbers into the metrics.
        """
        return self._call("on_update", step, metrics)

    def training_end(self) -> None:
        """Call `on_training_end`."""
        self._call("on_training_end")

    def close(self) -> None:
        """Call `close` of each, also where another one fails.

        Raises:
            CallbackError: one raised.
        """
        with ExitStack() as stack:
            for callback in reversed(self._callbacks):
                stack.callback(self._close, callback)

    def _close(self, callback: Callback) -> None:
        try:
            callback.close()
        except Exception as error:
            raise self._failure(callback, "close", error) from error

    def _call(self, hook: str, *args: Any) -> bool:
        go_on = True
        metrics = args[1] if hook == "on_update" else {}
        for callback in self._callbacks:
            if not _overrides(callback, hook):
                continue
            before = dict(metrics)
            try:
                answer = getattr(callback, hook)(*args)
                read_metrics(metrics)
            except ConfigError:  # one line already, of what the user may have written wrongly
                raise
            except Exception as error:
                metrics.clear()  # what the others added is logged all the same
                metrics.update(before)
                raise self._failure(callback, hook, error) from error
            go_on = go_on and not _is_false(answer)
        return go_on

    def _failure(self, callback: Callback, hook: str, error: Exception) -> CallbackError:
        why = one_line(error)
        return CallbackError(
            f"callback {_name(callback)}.{hook} at step {self._agent.steps_done}: "
            f"{type(error).__name__}{f': {why}' if why else ''}"
        )


class _Function(Callback):
    """A function in the place of a callback: what is called after each update."""

    def __init__(self, function: OnUpdate) -> None:
        self.function = function

    def on_update(self, step: int, metrics: dict[str, float]) -> bool | None:
        """Call the function."""
        return self.function(step, metrics)  # type: ignore[return-value]


def read_metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Return numbers by name, of whatever type they were; truth values are 1 and 0.

    Raises:
        ValueError: a name is no string or is taken, or a value is not one number.
    """
    return {_metric_name(name): _metric(name, value) for name, value in values.items()}


def _metric_name(name: object) -> str:
    if not isinstance(name, str) or name in ("", "step"):
        why = (
            ": every row has it already, choose another name"
            if name == "step"
            else ", expected a name"
        )
        raise ValueError(f"metric {name!r}{why}")
    return name


def _metric(name: str, value: object) -> float:
    if type(value) is float:  # nearly all are
        return value
    if isinstance(value, Tensor | np.ndarray) and value.shape == (1,):
        value = value[0]
    number = plain_number(value)
    if number is None:
        item = getattr(value, "item", lambda: value)() if getattr(value, "ndim", 0) == 0 else value
        if not isinstance(item, bool):
            shown = one_line(repr(value))[:60]
            raise ValueError(f"metric {name!r} is {shown}, expected a number")
        number = float(item)
    return float(number)


def _as_callback(where: str, value: object) -> Callback:
    if isinstance(value, type):
        name = value.__name__
        raise ConfigError(f"{where} is the class {name}: pass an object of it, {name}(...)")
    if isinstance(value, Callback):
        return value
    if not callable(value):
        raise _no_callback(where, value)
    return _Function(value)


def _no_callback(where: str, value: object) -> ConfigError:
    return ConfigError(
        f"{where} is of type {type(value).__name__}, expected a Callback of xlstm_rl.callbacks, or "
        "a function of the steps done and the metrics"
    )


def _overrides(callback: Callback, hook: str) -> bool:
    """Return whether a hook does anything."""
    return getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)


def _name(callback: Callback) -> str:
    if isinstance(callback, _Function):
        function = callback.function
        return str(getattr(function, "__qualname__", type(function).__name__))
    return type(callback).__name__


def _is_false(answer: object) -> bool:
    """Return whether a callback answered False: NumPy's and torch's too, no other empty value."""
    if isinstance(answer, Tensor | np.ndarray) and answer.ndim == 0:
        answer = answer.item()
    return isinstance(answer, bool | np.bool_) and not answer

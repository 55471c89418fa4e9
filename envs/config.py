"""The configuration of an environment and of its vector form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from xlstm_rl.envs.wrappers.registry import check_wrappers

Vectorization = Literal["auto", "sync", "async", "native", "envpool"]
OnError = Literal["stop", "restart"]
Autoreset = Literal["auto", "same_step", "next_step", "disabled"]

_SET_ELSEWHERE = {
    "num_envs": "set env.num_envs",
    "max_episode_steps": "set env.max_episode_steps",
    "vectorization_mode": "set env.vectorization",
    "autoreset_mode": "set env.autoreset",
    "render_mode": "give `render_mode` to make_env",
}


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, how many of them, and how they run side by side.

    Raises:
        ValueError: A field has a value it cannot have; the message says which and what to do.
    """

    id: str = "xlstm_rl/CartPoleNoVel-v1"
    """Gymnasium id, as in gymnasium.make; `module:Name-v0` imports the module first."""

    num_envs: int = 16
    """Environments that run side by side."""

    vectorization: Vectorization = "auto"
    """native: the environment's own vector form. sync: one after the other in this process.
    async: one process each. auto: native where there is one, else sync. envpool: EnvPool makes the
    environment, single ones too, and `id` and `kwargs` are its own; needs the extra envpool."""

    autoreset: Autoreset = "auto"
    """When a finished episode restarts: in the same step, in the next step (which then
    only resets), or not by itself. auto: same_step, or the only one that a native form has."""

    kwargs: dict[str, bool | int | float | str | None] = field(default_factory=dict)
    """Arguments of the environment, such as `length 32` of MemoryChain."""

    max_episode_steps: int | None = None
    """Truncate episodes after this many steps; None keeps the limit the id was registered with."""

    wrappers: dict[str, Any] = field(default_factory=dict)
    """Wrappers by name with their arguments, the first one innermost, such as
    `{Flicker: {probability: 0.2}, Delay: {steps: 2}}`; they are put around each environment."""

    on_error: OnError = "stop"
    """What happens when an environment raises, answers what is not in its space, not finite or a
    mask that allows nothing, or when its process dies: the run stops, or the environment is made
    anew and the broken episode is kept out of the loss. Not with a native vector form."""

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise ValueError(
                f"env.id={self.id!r}: expected the id of a registered environment such as "
                "'xlstm_rl/CartPoleNoVel-v1'; give a callable to the agent for one without an id"
            )
        _check_count("num_envs", self.num_envs)
        if self.max_episode_steps is not None:
            _check_count("max_episode_steps", self.max_episode_steps, " or none")
        _check_choice("vectorization", self.vectorization, get_args(Vectorization))
        _check_choice("on_error", self.on_error, get_args(OnError))
        _check_choice("autoreset", self.autoreset, get_args(Autoreset))
        if self.on_error == "restart" and self.vectorization == "native":
            raise ValueError(
                "env.on_error='restart' needs single environments: set env.vectorization to 'sync' "
                "or 'async'"
            )
        if self.vectorization == "envpool":
            self._check_envpool()
        _check_kwargs(self.kwargs)
        object.__setattr__(self, "kwargs", dict(self.kwargs))
        object.__setattr__(self, "wrappers", check_wrappers(self.wrappers))

    def _check_envpool(self) -> None:
        for name, value, why in (
            ("on_error", self.on_error == "restart", "needs single environments"),
            ("wrappers", bool(self.wrappers), "wrap single environments"),
            (
                "autoreset",
                self.autoreset not in ("auto", "next_step"),
                "must be auto or next_step there, the only mode EnvPool has",
            ),
        ):
            if value:
                raise ValueError(
                    f"env.{name}={getattr(self, name)!r} does not go with "
                    f"env.vectorization='envpool': env.{name} {why}"
                )


def _check_count(name: str, value: object, alternative: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"env.{name}={value!r}: expected a whole number of at least 1{alternative}"
        )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"env.{name}={value!r}: expected one of {', '.join(choices)}")


def _check_kwargs(kwargs: object) -> None:
    if not isinstance(kwargs, Mapping):
        raise ValueError(
            f"env.kwargs={kwargs!r}: expected a mapping from argument names to values, "
            "such as {'length': 32}"
        )
    for name, value in kwargs.items():
        if not isinstance(name, str):
            raise ValueError(f"env.kwargs has the key {name!r}: expected the name of an argument")
        if name in _SET_ELSEWHERE:
            raise ValueError(f"env.kwargs.{name}={value!r}: not set there; {_SET_ELSEWHERE[name]}")
        if not _is_plain(value):
            raise ValueError(
                f"env.kwargs.{name} is a {type(value).__name__}: expected a value that a YAML "
                "file can hold (number, string, true/false, null, lists and maps of those); "
                "give a callable that makes the environment instead"
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str)

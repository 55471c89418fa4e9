"""The configuration of an environment and of its vector form."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from xlstm_rl.options.arguments import plain_number
from xlstm_rl.options.fields import Count
from xlstm_rl.options.section import Section

Vectorization = Literal["auto", "sync", "async", "native", "envpool"]
OnError = Literal["stop", "restart"]
Autoreset = Literal["auto", "same_step", "next_step", "disabled"]

CUSTOM_ENV = "custom"
"""How the `id` begins of what was made by a callable, or handed over ready made."""


def custom_id(made_by: object) -> str:
    """Return the `id` that names what made environments, where that was no id."""
    if isinstance(made_by, partial):
        made_by = made_by.func
    named = made_by if hasattr(made_by, "__qualname__") else type(made_by)
    return f"{CUSTOM_ENV}({named.__module__}.{getattr(named, '__qualname__', '')})"


def is_custom(env_id: str) -> bool:
    """Return whether an `id` stands for a callable, or for a vector that was handed over."""
    return env_id == CUSTOM_ENV or env_id.startswith(f"{CUSTOM_ENV}(")


_SET_ELSEWHERE = {
    "num_envs": "set env.num_envs",
    "max_episode_steps": "set env.max_episode_steps",
    "vectorization_mode": "set env.vectorization",
    "autoreset_mode": "set env.autoreset",
    "render_mode": "give `render_mode` to make_env",
}


@dataclass(frozen=True)
class EnvConfig(Section):
    """Which environment, how many of them, and how they run side by side.

    Raises:
        ValueError: A field has a value it cannot have; the message says which and what to do.
    """

    section = "env"

    id: str = "xlstm_rl/CartPoleNoVel-v1"
    """Gymnasium id, as in gymnasium.make; `module:Name-v0` imports the module first."""

    num_envs: Count = 16
    """Environments that run side by side; under torchrun in each process."""

    vectorization: Vectorization = "auto"
    """native: the environment's own vector form. sync: one after the other in this process.
    async: one process each. auto: native where there is one, else sync. envpool: EnvPool makes the
    environment, single ones too, and `id` and `kwargs` are its own; needs the extra envpool."""

    autoreset: Autoreset = "auto"
    """When a finished episode restarts: in the same step, in the next step (which then
    only resets), or not by itself. auto: same_step, or the only one that a native form has."""

    kwargs: dict[str, bool | int | float | str | None] = field(default_factory=dict)
    """Arguments of the environment, such as `length 32` of MemoryChain."""

    max_episode_steps: Count | None = None
    """Truncate episodes after this many steps; None keeps the limit the id was registered with.
    They are counted below `env.wrappers`: of a wrapper that repeats actions, each repeat."""

    wrappers: dict[str, Any] = field(default_factory=dict)
    """Wrappers by name with their arguments, the first one innermost, such as
    `{Flicker: {probability: 0.2}, Delay: {steps: 2}}`; they are put around each environment."""

    on_error: OnError = "stop"
    """What happens when an environment raises, answers what is not in its space, not finite or a
    mask that allows nothing, or when its process dies: the run stops, or the environment is
    created again and the broken episode is kept out of the loss. Not with a native vector form."""

    info_keywords: tuple[str, ...] = ()
    """Keys of the info of an episode's last step, such as `coverage`, whose numbers are logged: the
    mean as `info/coverage` in the metrics, each in a column of episodes.csv."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.id:
            raise ValueError(
                "env.id='': expected the id of a registered environment such as "
                "'xlstm_rl/CartPoleNoVel-v1'; give a callable to the agent for one without an id"
            )
        if self.on_error == "restart" and self.vectorization == "native":
            raise ValueError(
                "env.on_error='restart' needs single environments: set env.vectorization to 'sync' "
                "or 'async'"
            )
        if self.vectorization == "envpool":
            self._check_envpool()
        object.__setattr__(self, "kwargs", _check_kwargs(self.kwargs))
        if self.wrappers:
            # Wrappers need torch, which the command line's help does not wait for.
            from xlstm_rl.envs.wrappers.registry import check_wrappers

            object.__setattr__(self, "wrappers", check_wrappers(_plain(self.wrappers)))

    def for_one(self) -> "EnvConfig":
        """Return the options of one environment in this process, made to be looked at."""
        here = "sync" if self.vectorization == "async" else self.vectorization
        return replace(self, num_envs=1, vectorization=here)

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


def _check_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    checked = {}
    for name, value in kwargs.items():
        if name in _SET_ELSEWHERE:
            raise ValueError(f"env.kwargs.{name}={value!r}: not set there; {_SET_ELSEWHERE[name]}")
        checked[name] = _plain(value)
        if not _is_plain(checked[name]):
            raise ValueError(
                f"env.kwargs.{name} is a {type(value).__name__}: expected a value that a YAML "
                "file can hold (number, string, true/false, null, lists and maps of those); "
                "give a callable that makes the environment instead"
            )
    return checked


def _plain(value: Any) -> Any:
    """A value with NumPy's and torch's numbers as Python's, so that a file can hold it."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    number = plain_number(value)
    return value if number is None else number


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str)

"""Wrappers by name, as a configuration asks for them."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import gymnasium as gym

from xlstm_rl.envs.extras import missing_package
from xlstm_rl.options.arguments import did_you_mean


class Registered(NamedTuple):
    """A wrapper that configurations know by its bare name."""

    where: str
    """`module:Name`; it is imported when it is asked for."""

    example: dict[str, Any]
    """Arguments with which it can be tried on an environment whose observations suit it."""


def _ours(where: str, **example: Any) -> Registered:
    return Registered(f"xlstm_rl.envs.wrappers.{where}", example)


WRAPPERS = {
    "NoVelocity": _ours("no_velocity:NoVelocity", velocities=[1]),
    "Flicker": _ours("flicker:Flicker", probability=0.2),
    "ObservationNoise": _ours("observation_noise:ObservationNoise", scale=0.1),
    "Delay": _ours("delay:Delay", steps=2),
    "RandomStartCue": _ours("random_start_cue:RandomStartCue", max_wait=3),
    "Symbols": _ours("symbols:Symbols", sizes=[4, 4]),
    "WithoutBackground": _ours("without_background:WithoutBackground"),
}
"""The wrappers that `env.wrappers` knows by their bare name: one line each."""

_FOREIGN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def list_wrappers() -> list[str]:
    """Return one line for each wrapper: its name with its arguments, then what it does."""
    lines = {}
    for name in WRAPPERS:
        arguments = [
            argument if parameter.default is parameter.empty else f"{argument}={parameter.default}"
            for argument, parameter in _parameters(name).items()
        ]
        lines[f"{name}({', '.join(arguments)})"] = find_wrapper(name)
    width = max(map(len, lines))
    return [
        f"{call:<{width}}  {(inspect.getdoc(wrapper) or '').partition(chr(10))[0]}"
        for call, wrapper in lines.items()
    ]


def check_wrappers(wrappers: object) -> dict[str, dict[str, Any]]:
    """Return a checked copy of a mapping from wrappers' names to their arguments.

    A name of the form `module:Name` is a wrapper of another package. It is not imported before it
    is needed, so that a configuration can be read where the package is missing.

    Raises:
        ValueError: A name or an argument is unknown, or an argument is missing; the message lists
            what is known.
    """
    example = "such as {Flicker: {probability: 0.2}}"
    if not isinstance(wrappers, Mapping):
        raise ValueError(
            f"env.wrappers: {wrappers!r} came, expected a mapping from names to arguments {example}"
        )
    checked = {}
    for name, arguments in wrappers.items():
        foreign = isinstance(name, str) and _FOREIGN.fullmatch(name) is not None
        if name not in WRAPPERS and not foreign:
            hint = did_you_mean(str(name), WRAPPERS) or ";"
            raise ValueError(
                f"env.wrappers: no wrapper {name!r} is known{hint} "
                f"There are {', '.join(WRAPPERS)}, and those of other packages as 'module:Name'"
            )
        if not isinstance(arguments, Mapping):
            raise ValueError(
                f"env.wrappers: {name} has {arguments!r}, expected its arguments, {example}"
            )
        if foreign:
            checked[name] = dict(arguments)
            continue
        parameters = _parameters(name)
        unknown = [argument for argument in arguments if argument not in parameters]
        missing = [
            argument
            for argument, parameter in parameters.items()
            if parameter.default is parameter.empty and argument not in arguments
        ]
        if unknown or missing:
            what = f"has no argument {unknown[0]!r}" if unknown else f"needs {missing[0]!r}"
            raise ValueError(
                f"env.wrappers: {name} {what}; its arguments are {', '.join(parameters)}"
            )
        checked[str(name)] = dict(arguments)
    return checked


def wrap(env: gym.Env[Any, Any], wrappers: Mapping[str, Mapping[str, Any]]) -> gym.Env[Any, Any]:
    """Put wrappers around an environment, the first one innermost.

    Raises:
        ValueError: A wrapper cannot be found, does not fit the environment, or one of its arguments
            is wrong.
    """
    for name, arguments in wrappers.items():
        wrapper = find_wrapper(name)
        if name in WRAPPERS:
            env = wrapper(env, **arguments)
            continue
        try:
            env = wrapper(env, **arguments)
        except gym.error.DependencyNotInstalled as error:
            raise ValueError(missing_package(f"env.wrappers: {name}", error)) from error
        except (TypeError, AssertionError, gym.error.Error) as error:
            # an assertion of Gymnasium's before 1.4 says nothing
            why = str(error) or type(error).__name__
            raise ValueError(f"env.wrappers: {name} cannot be put there: {why}") from error
        if not isinstance(env, gym.Env):
            raise ValueError(
                f"env.wrappers: {name} made a {type(env).__name__}, expected a gymnasium.Env"
            )
    return env


def find_wrapper(name: str) -> Any:
    """Return the class of a wrapper: of one of `WRAPPERS` by its name, of another by `module:Name`.

    Raises:
        ValueError: There is none.
    """
    where = WRAPPERS[name].where if name in WRAPPERS else name
    module, _, attribute = where.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise ValueError(missing_package(f"env.wrappers: {name}", error)) from error
    except AttributeError as error:
        raise ValueError(f"env.wrappers: the module {module!r} has no {attribute!r}") from error


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(find_wrapper(name)).parameters)
    del parameters["env"]
    return parameters

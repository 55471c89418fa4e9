"""`xlstm-rl list`."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import getdoc
from typing import Any, Literal

from tyro.conf import Positional

from xlstm_rl.cli.options import read_options
from xlstm_rl.config import list_configs
from xlstm_rl.options.kinds import Registry
from xlstm_rl.terminal import described, terminal_width

What = Literal["configs", "distributions", "envs", "loggers", "memories", "wrappers"]


@dataclass(frozen=True)
class ListOptions:
    """Show what there is."""

    what: Positional[What]
    """Configurations for --config, environments of this library, wrappers for env.wrappers, or the
    kinds of memory, action distribution and logger."""


def run(args: Sequence[str]) -> int:
    """Print one line per thing of the kind that is asked for."""
    options = read_options(ListOptions, args, "list")
    show = {
        "configs": _configs,
        "distributions": _distributions,
        "envs": _envs,
        "loggers": _loggers,
        "memories": _memories,
        "wrappers": _wrappers,
    }
    print("\n".join(show[options.what]()))
    return 0


def _configs() -> list[str]:
    configs = list_configs()
    return described([*configs.items()], terminal_width(), max(map(len, configs)) + 2)


def _envs() -> list[str]:
    from xlstm_rl.envs import list_envs

    return [*list_envs(), "and every environment registered with Gymnasium"]


def _distributions() -> list[str]:
    from xlstm_rl.policy.config import DISTRIBUTIONS

    return _kinds(DISTRIBUTIONS)


def _loggers() -> list[str]:
    from xlstm_rl.runs.loggers.config import LOGGERS

    return _kinds(LOGGERS)


def _memories() -> list[str]:
    from xlstm_rl.memory.config import MEMORIES

    return _kinds(MEMORIES)


def _kinds(registry: Registry) -> list[str]:
    """One line per registered kind: its name, then what it is."""
    kinds = [
        (kind, _first_line(registry.target(kind) or options))
        for kind, options in registry.classes.items()
    ]
    return described(kinds, terminal_width(), 14)


def _first_line(described: Any) -> str:
    return (getdoc(described) or "").partition("\n")[0]


def _wrappers() -> list[str]:
    from xlstm_rl.envs import list_wrappers

    return list_wrappers()

"""`xlstm-rl list`."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import getdoc
from typing import Any, Literal

from tyro.conf import Positional

from xlstm_rl.cli.options import read_options
from xlstm_rl.config import list_configs


@dataclass(frozen=True)
class ListOptions:
    """Show what there is."""

    what: Positional[Literal["configs", "envs", "memories", "wrappers"]]
    """Configurations for --config, environments of this library, kinds of memory, or wrappers for
    env.wrappers."""


def run(args: Sequence[str]) -> int:
    """Print one line per configuration, environment, memory or wrapper."""
    options = read_options(ListOptions, args, "list")
    show = {"configs": _configs, "envs": _envs, "memories": _memories, "wrappers": _wrappers}
    print("\n".join(show[options.what]()))
    return 0


def _configs() -> list[str]:
    configs = list_configs()
    width = max(map(len, configs)) + 2
    return [f"{name:<{width}}{what}" for name, what in configs.items()]


def _envs() -> list[str]:
    from xlstm_rl.envs import list_envs

    return [*list_envs(), "and every environment registered with Gymnasium"]


def _memories() -> list[str]:
    from xlstm_rl.memory.config import MEMORIES

    return [f"{kind:<14}{_first_line(MEMORIES.target(kind))}" for kind in MEMORIES.classes]


def _first_line(described: Any) -> str:
    return (getdoc(described) or "").partition("\n")[0]


def _wrappers() -> list[str]:
    from xlstm_rl.envs import list_wrappers

    return list_wrappers()

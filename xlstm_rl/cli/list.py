"""`xlstm-rl list`."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import getdoc
from typing import Literal, get_args, get_type_hints

from tyro.conf import Positional

from xlstm_rl.cli.options import read_options
from xlstm_rl.config import list_configs


@dataclass(frozen=True)
class ListOptions:
    """Show what there is."""

    what: Positional[Literal["configs", "envs", "memories"]]
    """Configurations for --config, environments of this library, or kinds of memory."""


def run(args: Sequence[str]) -> int:
    """Print one line per configuration, environment or memory."""
    options = read_options(ListOptions, args, "list")
    show = {"configs": _configs, "envs": _envs, "memories": _memories}
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
    from xlstm_rl.memory import MemoryConfig, make_memory

    kinds = get_args(get_type_hints(MemoryConfig)["kind"])
    memories = {kind: make_memory(MemoryConfig(kind=kind)) for kind in kinds}
    return [
        f"{kind:<14}{(getdoc(memory) or '').partition(chr(10))[0]}"
        for kind, memory in memories.items()
    ]

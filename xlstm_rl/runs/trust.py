"""Which code a file may name: `module:Name` of a run from elsewhere is imported for nobody.

A configuration names environments, wrappers, memories, encoders, distributions and loggers of other
packages as `module:Name`, and to import a module is to run it. What this process was itself told
to train with is trusted, and for the id of an environment the packages that an extra of this
library installs; what a run folder names beside that only where somebody says so.
"""

import re
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xlstm_rl.envs.extras import is_extra
from xlstm_rl.errors import CheckpointError

_NAME = re.compile(r"\s*([A-Za-z_][\w.]*):[A-Za-z_][^\s,]*\s*")
_OURS = "xlstm_rl"

_TEXT = {
    "run_dir",
    "device",
    "logger.project",
    "logger.name",
    "logger.group",
    "logger.tags",
    "logger.entity",
    "logger.notes",
}
"""Options whose words are never imported."""

_configured: set[str] = set()


def code_names(config: Any) -> dict[str, str]:
    """Return what a configuration, as plain data, names of other packages, with its path."""
    found: dict[str, str] = {}
    for path, text in _texts(config, "", set()):
        for word in text.split(","):
            match = _NAME.fullmatch(word)
            if match and match[1].partition(".")[0] != _OURS:
                found.setdefault(word.strip(), path)
    return found


def foreign_names(config: Any) -> dict[str, str]:
    """Return those of `code_names` that another process imports only where it is told to."""
    return {
        name: path
        for name, path in code_names(config).items()
        if not (path == "env.id" and _is_installed_extra(name))
    }


def trust_configuration(config: Any) -> None:
    """Trust, as long as this process lives, what somebody configured a training with here."""
    _configured.update(code_names(config))


def refuse_foreign_code(config: Any, source: object, trust_code: bool) -> None:
    """Refuse a configuration from a file that names code of other packages.

    Args:
        config: as plain data, before anything is made of it.
        source: the file, for the error.
        trust_code: refuse nothing.

    Raises:
        CheckpointError: it names some; nothing was imported.
    """
    names = {} if trust_code else foreign_names(config)
    for name, path in names.items():
        if name not in _configured:
            raise CheckpointError(
                f"{source}: {path} names {name}, code of another package that would be run: if "
                "you trust this folder, say so with trust_code=True (--trust-code)"
            )


def _is_installed_extra(name: str) -> bool:
    """Whether a package of an extra is meant: the installed one, and no file in its place."""
    module = name.partition(":")[0]
    if not is_extra(module):
        return False
    spec = find_spec(module.partition(".")[0])  # which runs nothing of it
    where = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    return where is not None and any(folder in where.parents for folder in installed)


def _texts(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, str]]:
    """Yield every text, keys of mappings included, with its path."""
    if isinstance(value, str):
        yield path, value
        return
    if not isinstance(value, Mapping | list | tuple) or id(value) in seen:
        return
    seen.add(id(value))  # YAML's aliases could make a short file take for ever
    if isinstance(value, Mapping):
        for key, one in value.items():
            inner = f"{path}.{key}" if path else str(key)
            if inner not in _TEXT:
                yield path, str(key)
                yield from _texts(one, inner, seen)
    else:
        for one in value:
            yield from _texts(one, path, seen)

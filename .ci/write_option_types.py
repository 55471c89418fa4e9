#!/usr/bin/env python
"""Write agents/option_types.py from the classes of options; `--check`: only say whether it is so.

Editors complete the keys of a section from it: `RecurrentPPO(memory={"pattern": ...})`.
"""

import ast
import sys
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.options.fields import bare, is_mapping, is_sequence, members, own_fields
from xlstm_rl.options.kinds import classes_of, is_section, kinds_of

FILE = Path(__file__).parents[1] / "agents" / "option_types.py"

HEAD = '''"""The keys of each section, for completion in editors and for type checkers.

Written by `.ci/write_option_types.py` from the classes of options; a test holds them equal.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict
'''

_NAMES = {"ppo": "PPO", "a2c": "A2C"}


def text() -> str:
    """Return what the file should hold."""
    blocks: list[str] = []
    for name, (_, annotation) in own_fields(TrainConfig).items():
        if is_section(annotation):
            _write(name, annotation, blocks)
    return "\n\n".join([HEAD, *blocks])


def is_current() -> bool:
    """Return whether the file holds that, however it is laid out."""
    mine = ast.dump(ast.parse(text()))
    return ast.dump(ast.parse(FILE.read_text(encoding="utf-8"))) == mine


def _write(name: str, annotation: Any, blocks: list[str]) -> str:
    """Append the class of a section behind those inside it; return the type of its values."""
    kinds, classes = kinds_of(annotation), classes_of(annotation)
    if name == "agent":  # each class of agents takes the options of its own
        return " | ".join(
            _class(f"{_NAMES[word]}Options", [cls], None, blocks) for word, cls in classes.items()
        )
    title = "".join(part.title() for part in name.split("_"))
    tag = None if kinds is None else kinds.tag
    return _class(f"{title}Options", list(classes.values()), tag, blocks)


def _class(title: str, classes: list[Any], tag: str | None, blocks: list[str]) -> str:
    keys: dict[str, list[str]] = {}
    for cls in classes:
        for name, (_, kind) in own_fields(cls).items():
            if is_section(kind):
                shown = f"{_write(name, kind, blocks)} | Mapping[str, Any] | str"
            else:
                shown = " | ".join(_show(one) for one in members(kind))
            if name == tag:  # `module:Name` too, and of loggers several
                shown = "str | Sequence[str]" if classes[0].section == "logger" else "str"
            keys.setdefault(name, []).append(shown)
    lines = [
        f'class {title}(TypedDict, total=False):\n    """Options of `{classes[0].section}`."""\n'
    ]
    for name, shown_by in keys.items():
        lines.append(f"    {name}: {' | '.join(dict.fromkeys(shown_by))}")
    blocks.append("\n".join(lines) + "\n")
    return title


def _show(kind: Any) -> str:
    kind = bare(kind)
    if get_origin(kind) is Literal:
        return "Literal[" + ", ".join(f'"{word}"' for word in get_args(kind)) + "]"
    if is_mapping(kind):
        return "Mapping[str, Any]"
    if is_sequence(kind):
        (item, *_) = get_args(kind)
        return f"Sequence[{_show(item)}]"
    return "None" if kind is NoneType else str(kind.__name__)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(not is_current())
    FILE.write_text(text(), encoding="utf-8")

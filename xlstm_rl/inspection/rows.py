"""What is drawn of an episode, row under row on one time axis, in pictures and on the page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xlstm_rl.inspection.trace import Columns

Numbers = NDArray[np.float64]

_MOST_LINES = 8


@dataclass(frozen=True)
class Row:
    """Lines over the steps of an episode."""

    key: str
    """What it shows: rows of two policies with the same key stand side by side."""

    title: str
    """In words."""

    about: str
    """What the numbers are, and their unit."""

    lines: dict[str, Numbers]
    """`[T]` by label."""

    offset: int = 0
    """Which colour the first line has: that of a head is the same in all rows."""

    is_log: bool = False
    """Whether the axis is logarithmic."""

    limits: tuple[float, float] | None = None
    """Of the axis; None: of the numbers."""

    bars: bool = False
    """Whether they are bars and not lines."""

    bands: dict[str, tuple[Numbers, Numbers]] = field(default_factory=dict)
    """Lower and upper ends around lines."""

    dots: dict[str, Numbers] = field(default_factory=dict)
    """What was done, beside what was likely."""


_OF_A_HEAD = {
    "input_gate": ("input gate", "how much of a step is written; exponential gates have no bound"),
    "forget_gate": ("forget gate", "how much of the state is kept in a step"),
    "length": ("memory length", "steps after which the forget gate leaves 1/e"),
    "age": ("age of what is held", "mean age in steps of what was written, by what is left of it"),
}
_LOG = ("input_gate", "length")


def rows_of(columns: Columns) -> list[Row]:
    """Return the rows of an episode, from what was seen to what is held.

    Args:
        columns: as `trace` returns them.
    """
    rows = [*_observations(columns), *_actions(columns)]
    about = "expected return from here on, discounted, in the units of training's rewards"
    rows.append(Row("value", "value", about, {"value": columns["value"]}))
    about = "what each action was paid"
    rows.append(Row("reward", "reward", about, {"reward": columns["reward"]}, bars=True))
    return [*rows, *_memories(columns)]


def _observations(columns: Columns) -> Iterator[Row]:
    names = [name for name in columns if name.split("/")[0] == "observation"]
    for leaf, lines in _grouped(columns, names).items():
        title = leaf.replace("/", " ")
        about = "as the environment answers it"
        if len(lines) > _MOST_LINES:
            about += f"; the first {_MOST_LINES} of its numbers"
        yield Row(leaf, title, about, dict([*lines.items()][:_MOST_LINES]))


def _actions(columns: Columns) -> Iterator[Row]:
    names = [name for name in columns if re.search(r"(^|/)probability/", name)]
    for group, lines in _grouped(columns, names).items():
        leaf = group.replace("/probability", "").replace("probability", "")
        title = f"action probability {leaf.strip('/')}".strip()
        most = sorted(lines, key=lambda name: -float(lines[name].max()))[:_MOST_LINES]
        shown = {name: one for name, one in lines.items() if name in most}
        yield Row(group, title, "of each choice, at each step", shown, limits=(0.0, 1.0))
    means = [name for name in columns if re.search(r"(^|/)mean/", name)]
    for group, lines in _grouped(columns, means).items():
        leaf = re.sub(r"(^|/)mean", "", group)
        shown = dict([*lines.items()][:_MOST_LINES])
        deviations = {index: columns[f"{group[:-4]}std/{index}"] for index in shown}
        bands = {i: (one - deviations[i], one + deviations[i]) for i, one in shown.items()}
        taken = {index: columns.get(_action(leaf, index, len(lines))) for index in shown}
        dots = {index: one for index, one in taken.items() if one is not None}
        title, about = f"action {leaf}".strip(), "mean, one deviation around it, and what was done"
        yield Row(group, title, about, shown, bands=bands, dots=dots)


def _action(leaf: str, index: str, count: int) -> str:
    name = "/".join(part for part in ("action", leaf) if part)
    return name if count == 1 else f"{name}/{index}"


def _memories(columns: Columns) -> Iterator[Row]:
    names = [name for name in columns if re.match(r"(critic_)?memory/", name)]
    owners = dict.fromkeys(name.split("/")[0] for name in names)
    for owner in owners:
        whose = "critic: " if owner.startswith("critic") and len(owners) > 1 else ""
        found: dict[str, dict[str, Numbers]] = {}
        heads: dict[str, None] = {}
        for name in names:
            if name.split("/")[0] == owner:
                part, _, what = name.partition("/")[2].rpartition("/")
                kind = "head" if "." in part else "block"
                label = f"{kind} {part}" if part else "state"
                found.setdefault(what, {})[label] = columns[name]
                heads[label] = None
        for what, lines in found.items():
            title, about = _OF_A_HEAD.get(what, ("", ""))
            limits = (0.0, 1.0) if what == "forget_gate" else None
            if not title:
                tensor = what.removeprefix("norm_")
                title, about = f"norm of {tensor}", "of the state, Euclidean, without its scale"
            is_log = what in _LOG and any(float(one.max()) > 1.0 for one in lines.values())
            offset = [*heads].index(next(iter(lines)))
            title = f"{whose}{title}"
            yield Row(f"{owner}/{what}", title, about, lines, offset, is_log, limits)


def _grouped(columns: Columns, names: list[str]) -> dict[str, dict[str, Numbers]]:
    """Return columns by what is before their last part, if that is a number, and by it."""
    groups: dict[str, dict[str, Numbers]] = {}
    for name in names:
        group, _, last = name.rpartition("/")
        if not re.fullmatch(r"-?\d+", last):
            group, last = name, name.rpartition("/")[2]
        groups.setdefault(group, {})[last] = columns[name]
    return groups

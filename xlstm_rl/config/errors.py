"""The error of everything a user may have written wrongly."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """Bad usage or configuration: one line with what came, what was expected, what to do."""


def one_line(message: object) -> str:
    """A message with its line breaks and runs of blanks folded into single blanks."""
    return " ".join(str(message).split())


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` where something known is close to `name`, else an empty string.

    The last part of a dotted name counts first: `num_envs` and `agent.num_envs` both suggest
    `env.num_envs`.
    """
    known = list(known)
    tails: dict[str, list[str]] = {}
    for full in known:
        tails.setdefault(_tail(full), []).append(full)
    close = difflib.get_close_matches(name, tails.get(_tail(name), []), n=1, cutoff=0.0)
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:
        tail = difflib.get_close_matches(_tail(name), tails, n=1, cutoff=0.6)
        close = [tails[word][0] for word in tail]
    return f"; did you mean {close[0]}?" if close else ""


def _tail(name: str) -> str:
    return name.rpartition(".")[2]

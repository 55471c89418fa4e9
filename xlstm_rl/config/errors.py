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

    A name without its section finds the full one: `num_envs` suggests `env.num_envs`.
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:
        tails = {full.rpartition(".")[2]: full for full in reversed(known)}
        tail = difflib.get_close_matches(name.rpartition(".")[2], tails, n=1, cutoff=0.6)
        close = [tails[word] for word in tail]
    return f"; did you mean {close[0]}?" if close else ""

"""Says where no episode has what `env.info_keywords` asks for."""

import math
from collections.abc import Collection, Mapping, Sequence

from xlstm_rl.options.arguments import did_you_mean
from xlstm_rl.terminal import tell


class KeywordCheck:
    """Looks at the first episodes that end, once: a misspelt key would give empty columns.

    A key that some of them have is none: many environments say things of some episodes alone.

    Args:
        keywords: the keys that were asked for.
    """

    def __init__(self, keywords: Sequence[str]) -> None:
        self._keywords = tuple(keywords)

    def look(
        self, said: Mapping[str, Sequence[float]], episodes: int, keys: Collection[str]
    ) -> None:
        """Tell of keys without a number.

        Args:
            said: by key, the numbers of the episodes that ended, NaN where there is none.
            episodes: how many ended.
            keys: what the infos of their last steps have.
        """
        if not episodes:
            return
        lacking = [key for key in self._keywords if not any(map(math.isfinite, said.get(key, ())))]
        self._keywords = ()
        if lacking:
            names = ", ".join(f"{key}{_hint(key, keys)}" for key in lacking)
            there = ", ".join(sorted(keys)) or "no keys"
            tell(
                "xlstm_rl: env.info_keywords: the info at the end of an episode has no number "
                f"under {names}; it has {there}"
            )


def _hint(key: str, keys: Collection[str]) -> str:
    hint = "" if key in keys else did_you_mean(key, keys)
    return f" ({hint.removeprefix('; ')})" if hint else ""

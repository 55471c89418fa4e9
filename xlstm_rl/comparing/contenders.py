"""What is compared: memories, each written as `kind:option=value,option=value`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xlstm_rl.config import ConfigError
from xlstm_rl.config.yaml_file import parse_yaml
from xlstm_rl.memory.config import MEMORIES, MemoryConfig
from xlstm_rl.options.fields import own_fields
from xlstm_rl.options.foreign import suggest


@dataclass(frozen=True)
class Contender:
    """A memory as somebody wrote it; without a kind it is that of the configuration."""

    text: str
    """Such as `xlstm:pattern=ms,width=64`."""

    kind: str | None
    options: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return re.sub(r"[^\w.=,+-]+", "_", self.text)

    def memory(self, own: MemoryConfig, width: int | None = None) -> MemoryConfig:
        """Return the options of this memory in a configuration.

        Args:
            own: the configuration's memory. One of the same kind keeps its options, another kind
                has its own defaults and the same width.
            width: a width that stands in the place of each of these.

        Raises:
            ConfigError: they do not fit together.
        """
        options = dict(self.options) if width is None else {**self.options, "width": width}
        try:
            if self.kind in (None, own.kind):
                return replace(own, **options)
            return MemoryConfig(**{"kind": self.kind, "width": own.width, **options})
        except ValueError as error:
            raise ConfigError(f"--memories {self.text}: {error}") from None


def configured(kinds: Iterable[str]) -> Contender:
    """Return the memory that the configurations have themselves, called by its kind.

    Args:
        kinds: of the memory of each.
    """
    own = set(kinds)
    return Contender(own.pop() if len(own) == 1 else "memory", None, {})


def read_contenders(words: Sequence[str]) -> list[Contender]:
    """Read memories, apart by blanks or commas: `xlstm:pattern=ms,width=64 lstm` or `lstm,gru`.

    Raises:
        ConfigError: a kind or an option is unknown, or a memory stands there twice.
    """
    parts: list[list[str]] = []
    for word in words:
        is_first = True
        for part in word.split(","):
            head, equals, _ = part.partition("=")
            if equals and ":" not in head and not is_first:
                parts[-1].append(part)  # one more option of the memory before it
            elif part:
                parts.append([part])
            is_first = False
    found = [_read(group) for group in parts]
    texts = [one.text for one in found]
    for text in texts:
        if texts.count(text) > 1:
            raise ConfigError(
                f"--memories {text}: given twice; --seeds trains several seeds of each"
            )
    folders = [one.folder for one in found]
    for one in found:
        if folders.count(one.folder) > 1:
            raise ConfigError(f"--memories {one.text}: another one gets the same folder name")
    return found


def _read(parts: Sequence[str]) -> Contender:
    parts = [re.sub(r"\s*([:=])\s*", r"\1", part.strip()) for part in parts]
    text = ",".join(parts)  # one memory has one name, however it is spaced
    kind, first = parts[0], []
    before, colon, behind = kind.partition(":")
    if colon and "=" not in kind and before in MEMORIES.classes:
        raise ConfigError(
            f"--memories {text}: expected {before}:option=value, got no value for {behind!r}"
        )
    if "=" in parts[0]:
        head, _, value = parts[0].partition("=")
        kind, colon, name = head.rpartition(":")
        if not colon:
            raise ConfigError(
                f"--memories {text}: an option without a memory; expected kind:option=value, such "
                "as xlstm:pattern=ms,width=64"
            )
        first = [f"{name}={value}"]
    try:
        known = own_fields(MEMORIES.find(kind))
    except ValueError as error:
        raise ConfigError(f"--memories {text}: {error}") from None
    options: dict[str, Any] = {}
    for part in [*first, *parts[1:]]:
        name, _, value = part.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known or name == "kind":
            hint = suggest(name, known) or f"; it has {', '.join(sorted(known.keys() - {'kind'}))}"
            raise ConfigError(f"--memories {text}: {kind} has no option {name!r}{hint}")
        if name in options:
            raise ConfigError(f"--memories {text}: {name} is given twice")
        options[name] = parse_yaml(value)
    return Contender(text, kind, options)

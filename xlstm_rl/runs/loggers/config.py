"""Where metrics go: the kinds of logger, and a class of options for each."""

from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from xlstm_rl.options.fields import own_fields
from xlstm_rl.options.kinds import Registry
from xlstm_rl.options.section import Section, short_repr


class LoggerRegistry(Registry):
    """Kinds of which several may be at work: `csv,wandb` has the options of both."""

    def names(self, word: str) -> list[str]:
        """Return the kinds in a word such as `csv,wandb`."""
        return [name.strip() for name in word.split(",")]

    def word(self, value: Any) -> str:
        """Return the word that a name, or a list of names, stands for."""
        names = self.names(",".join(value) if isinstance(value, list | tuple) else str(value))
        return ",".join(dict.fromkeys(names))

    def find(self, word: str) -> type:
        """Return the options of a kind, or of several together.

        Raises:
            ValueError: There is no such kind, or one does not go with the others.
        """
        names = self.names(word)
        if len(names) == 1:
            return super().find(word)
        if "none" in names:
            raise ValueError(f"expected none alone, or other kinds, got {word!r}")
        return self._together(word, tuple(super(LoggerRegistry, self).find(one) for one in names))

    def word_of(self, cls: type) -> str:
        """Return the word of a class that was found."""
        return str(own_fields(cls)[self.tag][0].default)

    @cache  # noqa: B019 - the registry lives as long as the program
    def _together(self, word: str, options: tuple[type, ...]) -> type:
        return make_dataclass(
            "LoggersConfig",
            [(self.tag, str, word)],
            bases=options,
            frozen=True,
            namespace={"__repr__": _repr_of_several},
        )


def _repr_of_several(self: "LoggerConfig") -> str:
    """Return the call that makes them, with the kinds, which their class does not say."""
    others = short_repr(self).partition("(")[2]
    return f"LoggerConfig({self.kind!r}{'' if others == ')' else ', '}{others}"


LOGGERS = LoggerRegistry("kind")
"""The kinds of logger: the options of each, and its class."""


@dataclass(frozen=True)
class LoggerConfig(Section):
    """Where metrics go, besides the metrics.csv of every kind but `none`.

    Called, it makes the options of that kind, or of several together: `LoggerConfig("csv,wandb")`.
    Those of a logger of your own derive from it.
    """

    section = "logger"
    kinds = LOGGERS

    kind: str = ""
    """The logger, or several: `csv,wandb`. It decides the other options of this section."""

    if TYPE_CHECKING:  # every kind has options of its own

        def __init__(self, kind: str = "csv", **options: Any) -> None: ...

    def __reduce__(self) -> tuple[Any, ...]:
        # The class of several kinds together has no name to be found by.
        return _restore, ({name: getattr(self, name) for name in own_fields(type(self))},)

    @classmethod
    def upgrade(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Drop W&B's options from a file of version 0.1, which held them for every kind."""
        if not options.keys() >= {"kind", "project", "name", "group", "tags"}:
            return dict(options)
        known = own_fields(LOGGERS.find(LOGGERS.word(options["kind"])))
        return {name: value for name, value in options.items() if name in known}


def _restore(options: dict[str, Any]) -> LoggerConfig:
    return LoggerConfig(**options)


@dataclass(frozen=True)
class CsvConfig(LoggerConfig):
    """metrics.csv in the run folder."""

    kind: Literal["csv"] = "csv"
    """`csv`: metrics.csv in the run folder. `tensorboard`, `wandb`, `jsonl`, `module:Name`: that
    and metrics.csv. Several: `csv,wandb`. The kind decides the other options of this section:
    `--logger.kind wandb --help` shows those of W&B."""


@dataclass(frozen=True)
class TensorBoardConfig(LoggerConfig):
    """TensorBoard's event files in the run folder."""

    kind: Literal["tensorboard"] = "tensorboard"
    """The logger, or several: `csv,tensorboard`. It decides the other options of this section."""


@dataclass(frozen=True)
class WandbConfig(LoggerConfig):
    """Weights & Biases."""

    kind: Literal["wandb"] = "wandb"
    """The logger, or several: `csv,wandb`. It decides the other options of this section."""

    project: str | None = None
    """W&B project; None: that of `WANDB_PROJECT`, or `xlstm_rl`."""

    entity: str | None = None
    """W&B user or team; None: that of `WANDB_ENTITY`, or your own."""

    name: str | None = None
    """W&B name of the run; None: that of `WANDB_NAME`, or the name of the run folder."""

    group: str | None = None
    """W&B group, such as one name for all seeds of an experiment; None: `WANDB_RUN_GROUP`."""

    tags: tuple[str, ...] = ()
    """W&B tags; none: `WANDB_TAGS`."""

    notes: str | None = None
    """W&B notes; None: `WANDB_NOTES`."""

    checkpoints: bool = True
    """Keep every checkpoint as a version of an artifact, with the aliases latest and best."""


@dataclass(frozen=True)
class JsonLinesConfig(LoggerConfig):
    """metrics.jsonl in the run folder: a JSON object per row."""

    kind: Literal["jsonl"] = "jsonl"
    """The logger, or several: `jsonl,wandb`. It decides the other options of this section."""


@dataclass(frozen=True)
class NoLoggerConfig(LoggerConfig):
    """No metrics."""

    kind: Literal["none"] = "none"
    """The logger, or several: `csv,wandb`. It decides the other options of this section."""


def register_logger(options: type[LoggerConfig], logger: Any) -> None:
    """Register a logger under the default of `kind` in its options.

    Args:
        options: The class of the logger's options.
        logger: The class of the destination (`Sink`); or `module:Name` of it, which is then
            imported when the first one is made.
    """
    LOGGERS.add(options, logger)


register_logger(CsvConfig, "xlstm_rl.runs.loggers.csv_logger:CsvSink")
register_logger(TensorBoardConfig, "xlstm_rl.runs.loggers.tensorboard_logger:TensorBoardSink")
register_logger(WandbConfig, "xlstm_rl.runs.loggers.wandb_logger:WandbSink")
register_logger(JsonLinesConfig, "xlstm_rl.runs.loggers.jsonl_logger:JsonLinesSink")
register_logger(NoLoggerConfig, None)

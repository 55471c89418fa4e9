"""What a learner asks of the place where its actors play, and what they answer."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from torch import Tensor

from xlstm_rl.config.errors import ConfigError
from xlstm_rl.distributed.actors.task import ActorTask
from xlstm_rl.errors import EnvError, TrainingError

Message: TypeAlias = tuple[int, float, Any]
"""The number of the last rollout that may begin, the version of new weights, and where they are."""


class Died(Exception):  # noqa: N818 - no error of the run: the actor is replaced
    """An actor has ended without a word."""


class Part(NamedTuple):
    """One actor's rollout."""

    tensors: Mapping[str, Tensor]
    said: dict[str, Any]
    versions: tuple[float, float]
    """Of the weights that it was begun with, and of those it was collected with on average: the
    number of updates before them."""
    seconds: float
    """That collecting took."""


class Actor(Protocol):
    """An actor as the learner sees it."""

    task: ActorTask

    @property
    def name(self) -> str:
        """What it is called in a message."""

    def tell(self, message: Message) -> None:
        """Tell it what it may begin and of new weights; one that died is found out by `take`."""

    def take(self) -> Part | None:
        """Return the rollout that came; None: something else did.

        Raises:
            Died: it has ended.
            EnvError: its environments failed.
            TrainingError: something else did.
        """

    def ending(self) -> str:
        """Return how it ended, once it has."""

    def close(self) -> None:
        """End it."""


class Place(Protocol):
    """Where actors play: processes of this machine, or a cluster."""

    def start(self, task: ActorTask, first: int) -> Any:
        """Return a new actor whose first rollout has this number."""

    def publish(self, block: int, tensors: Mapping[str, Tensor]) -> Any:
        """Put weights where actors find them, and return what a message says of that.

        Args:
            block: which of the `2 * task.blocks` that are in use in turn.
            tensors: the weights.
        """

    def wait(self, actors: Sequence[Any]) -> list[Any]:
        """Wait until there is something to take from one of these actors; return those."""

    def close(self, actors: Sequence[Any]) -> None:
        """End the actors."""


def refuse(actor: int, kind: str, line: str) -> None:
    """Raise what an actor met.

    Args:
        actor: its number.
        kind: name of the error's class.
        line: the error in one line.
    """
    known = {"EnvError": EnvError, "ConfigError": ConfigError, "ValueError": ConfigError}
    name = "" if kind in known else f"{kind}: "
    raise known.get(kind, TrainingError)(f"actor {actor}: {name}{line}")


def refuse_other_spaces(actor: int) -> None:
    """Raise that an actor's policy has not the weights of the learner's."""
    raise TrainingError(f"actor {actor}: its environments have other spaces than the learner's")

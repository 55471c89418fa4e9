"""An actor as the learner sees it: its process, its connection and its rollouts."""

import os
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, NamedTuple, TypeAlias

from gymnasium.vector.utils import CloudpickleWrapper
from torch import Tensor

from xlstm_rl.closing import Closing
from xlstm_rl.config.errors import ConfigError
from xlstm_rl.distributed.actors.memory import Blocks, Layout
from xlstm_rl.distributed.actors.task import ActorTask
from xlstm_rl.errors import EnvError, TrainingError

_PATIENCE = 2.0  # seconds that an actor has to end by itself
_START = "import sys; from xlstm_rl.distributed.actors.worker import main; main(int(sys.argv[1]))"


class Died(Exception):  # noqa: N818 - no error of the run: the actor is replaced
    """An actor's process has ended without a word."""


Message: TypeAlias = tuple[int, float, int]
"""The number of the last rollout that may begin, the version of new weights, and their block."""


class Part(NamedTuple):
    """One actor's rollout."""

    tensors: dict[str, Tensor]
    said: dict[str, Any]
    versions: tuple[float, float]
    """Of the weights that it was begun with, and of those it was collected with on average: the
    number of updates before them."""
    seconds: float
    """That collecting took."""


class ActorProcess(Closing):
    """The process of one actor.

    It is a new interpreter and no fork, which would carry along the learner's threads and GPU, and
    it never imports the user's main module.

    Args:
        task: what it does.
        weights: the blocks that the learner writes its weights into.
        first: number of its first rollout.
    """

    def __init__(self, task: ActorTask, weights: Blocks, first: int) -> None:
        self.task, self._weights = task, weights
        self._slots: Any = ()  # they come before the first rollout
        self._message: Message | None = None
        self._is_ready = False
        self.connection: Connection[Any, Any]
        self.connection, theirs = Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        anything: Any = task  # the wrapper is typed for what makes environments
        self._send(sys.path)
        self._send((CloudpickleWrapper(anything), first))

    def tell(self, message: "Message") -> None:
        """Tell it what it may begin and of new weights.

        One that died is found out when it is listened to.
        """
        self._message = message
        if self._is_ready:
            self._send(message)

    def take(self) -> Part | None:
        """Return the rollout that came; None: something else did.

        Raises:
            Died: it has ended.
            EnvError: its environments failed.
            TrainingError: something else did.
        """
        try:
            kind, *rest = self.connection.recv()
            if kind == "ready":
                self._hand_weights(*rest)
            elif kind == "slots":
                file = recv_handle(self.connection)
                self._slots = Blocks(rest[0], self.task.blocks, file)
                self._slots.close()
            elif kind == "error":
                self._refuse(*rest)
            else:
                number, versions, seconds, said = rest
                return Part(self._slots[number], said, versions, seconds)
        except (EOFError, OSError) as error:
            raise Died from error
        return None

    def _hand_weights(self, layout: Layout) -> None:
        if layout != self._weights.layout:
            raise TrainingError(
                f"actor {self.task.index}: its environments have other spaces than the learner's"
            )
        send_handle(self.connection, self._weights.file, 0)
        self._is_ready = True
        if self._message is not None:
            self._send(self._message)

    def _refuse(self, kind: str, line: str) -> None:
        known = {"EnvError": EnvError, "ConfigError": ConfigError, "ValueError": ConfigError}
        name = "" if kind in known else f"{kind}: "
        raise known.get(kind, TrainingError)(f"actor {self.task.index}: {name}{line}")

    def _send(self, message: Any) -> None:
        with suppress(ConnectionError):  # it has ended: `take` says so
            self.connection.send(message)

    def ending(self) -> str:
        """Return how the process ended, once it has."""
        try:
            status = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        return f"killed by signal {-status}" if status < 0 else f"exit status {status}"

    def close(self) -> None:
        """End it."""
        self.connection.close()
        self.process.terminate()
        self.ending()

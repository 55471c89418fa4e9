"""Actors as processes of the learner's machine: shared memory, and a connection with each."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

from gymnasium.vector.utils import CloudpickleWrapper
from torch import Tensor

from xlstm_rl.closing import Closing
from xlstm_rl.distributed.actors.memory import Blocks, Layout
from xlstm_rl.distributed.actors.place import Died, Message, Part, refuse, refuse_other_spaces
from xlstm_rl.distributed.actors.task import ActorTask

_PATIENCE = 2.0  # seconds that an actor has to end by itself
_START = "import sys; from xlstm_rl.distributed.actors.worker import main; main(int(sys.argv[1]))"


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

    @property
    def name(self) -> str:
        """What it is called in a message."""
        return f"process {self.process.pid}"

    def tell(self, message: Message) -> None:
        """Tell it what it may begin and of new weights; one that died is found out by `take`."""
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
                refuse(self.task.index, *rest)
            else:
                number, versions, seconds, said = rest
                return Part(self._slots[number], said, versions, seconds)
        except (EOFError, OSError) as error:
            raise Died from error
        return None

    def _hand_weights(self, layout: Layout) -> None:
        if layout != self._weights.layout:
            refuse_other_spaces(self.task.index)
        send_handle(self.connection, self._weights.file, 0)
        self._is_ready = True
        if self._message is not None:
            self._send(self._message)

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


class ThisMachine:
    """Processes of the learner's machine as the place where actors play.

    Args:
        layout: of the weights.
        count: blocks of weights that are in use in turn.
    """

    def __init__(self, layout: Layout, count: int) -> None:
        self._weights = Blocks(layout, count)

    def start(self, task: ActorTask, first: int) -> ActorProcess:
        """Return a new actor whose first rollout has this number."""
        return ActorProcess(task, self._weights, first)

    def publish(self, block: int, tensors: Mapping[str, Tensor]) -> int:
        """Copy weights into a block of shared memory, and return its number."""
        self._weights.write(block, tensors)
        return block

    def wait(self, actors: Sequence[ActorProcess]) -> list[ActorProcess]:
        """Wait until one of these actors has said something; return those."""
        said = wait([actor.connection for actor in actors])
        return [actor for actor in actors if actor.connection in said]

    def close(self, actors: Sequence[ActorProcess]) -> None:
        """End the actors."""
        for actor in actors:
            actor.process.terminate()
        for actor in actors:
            actor.close()

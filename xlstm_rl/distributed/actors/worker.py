"""The process of an actor on the learner's machine."""

import select
import signal
import sys
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

from xlstm_rl.config.errors import one_line
from xlstm_rl.distributed.actors.memory import Blocks, Layout
from xlstm_rl.distributed.actors.parts import said_of, tensors_of
from xlstm_rl.distributed.actors.player import Player, Weights
from xlstm_rl.distributed.actors.task import ActorTask


def main(file: int) -> None:
    """Be an actor, until the learner is gone.

    Args:
        file: descriptor of the connection with the learner.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the learner, which ends this one
    learner: Connection[Any, Any] = Connection(file)
    try:
        sys.path[:] = learner.recv()  # before what is found there comes
        try:
            task, first = learner.recv()
            _work(learner, task.fn, first)
        except (EOFError, ConnectionError):
            raise
        except Exception as error:
            learner.send(("error", type(error).__name__, one_line(error)))
    except (EOFError, ConnectionError):
        return


class _Mail:
    """What the learner has said: which rollout may begin, and where its newest weights are."""

    def __init__(self, learner: "Connection[Any, Any]") -> None:
        self._learner = learner
        self._arrived = select.poll()  # asked at every step: Connection.poll makes one each time
        self._arrived.register(learner, select.POLLIN)
        self.weights: Blocks | None = None
        self.released = -1
        self._version, self._block = -1.0, -1

    def read(self) -> None:
        """Take in everything that has come; the first time, wait for it."""
        while self._arrived.poll(0) or self.released < 0:
            self.released, newest, where = self._learner.recv()
            if newest > self._version:
                self._version, self._block = newest, where

    def wait(self, number: int) -> None:
        """Wait until a rollout may begin."""
        while self.released < number:
            wait([self._learner])
            self.read()

    def newest(self) -> Weights | None:
        """Return the newest weights, if they are new."""
        self.read()
        block, self._block = self._block, -1
        if block < 0 or self.weights is None:
            return None
        # nobody writes there now: for the block to be taken again the learner needs the rollout
        # that is played here, or that begins here
        return self._version, self.weights[block]


def _work(learner: "Connection[Any, Any]", task: ActorTask, number: int) -> None:
    """Collect one rollout after the other, from the given number on."""
    mail = _Mail(learner)
    player = Player(task, mail.newest)
    learner.send(("ready", player.layout))
    mail.weights = Blocks(player.layout, 2 * task.blocks, recv_handle(learner))
    slots: Blocks | None = None
    while True:
        mail.wait(number)
        rollout, versions, seconds = player.play()
        tensors = tensors_of(rollout)
        if slots is None or slots.layout != Layout.of(tensors):
            slots = Blocks(Layout.of(tensors), task.blocks)
            learner.send(("slots", slots.layout))
            send_handle(learner, slots.file, 0)
        slots.write(number, tensors)
        learner.send(("rollout", number, versions, seconds, said_of(rollout)))
        number += 1

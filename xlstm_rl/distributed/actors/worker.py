"""The process of an actor: it plays with the newest weights that it was told of."""

import signal
import sys
import time
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

from xlstm_rl.config.errors import one_line
from xlstm_rl.distributed.actors.memory import Blocks, Layout
from xlstm_rl.distributed.actors.parts import said_of, tensors_of
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


def _work(learner: "Connection[Any, Any]", task: ActorTask, number: int) -> None:
    """Collect one rollout after the other, from the given number on."""
    collector = task.make_collector()
    layout = Layout.of(collector.policy.state_dict())
    learner.send(("ready", layout))
    weights = Blocks(layout, 2 * task.blocks, recv_handle(learner))
    slots: Blocks | None = None
    released, version = -1, -1.0
    versions: list[float] = []

    def listen() -> None:
        """Take over the newest weights, if there are any."""
        nonlocal released, version
        block = None
        while learner.poll() or released < 0:
            released, newest, where = learner.recv()
            if newest > version:
                version, block = newest, where
        if block is not None:
            # nobody writes there now: for the block to be taken again the learner needs the
            # rollout that is played here, or that begins here
            collector.policy.load_state_dict(weights[block])
        versions.append(version)

    if task.max_staleness:
        collector.on_step = listen
    while True:
        while released < number:
            wait([learner])
            listen()
        versions.clear()
        versions.append(version)
        began = time.perf_counter()
        rollout = collector.collect()
        seconds = time.perf_counter() - began
        tensors = tensors_of(rollout)
        if slots is None or slots.layout != Layout.of(tensors):
            slots = Blocks(Layout.of(tensors), task.blocks)
            learner.send(("slots", slots.layout))
            send_handle(learner, slots.file, 0)
        slots.write(number, tensors)
        mean = sum(versions) / len(versions)
        learner.send(("rollout", number, (versions[0], mean), seconds, said_of(rollout)))
        number += 1

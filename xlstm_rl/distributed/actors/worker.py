"""The process of an actor: it collects rollouts with the newest weights that it was told of."""

import signal
import sys
import time
from multiprocessing.connection import Connection
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
    weights = Blocks(layout, task.max_staleness + 1, recv_handle(learner))
    version = loaded = -1
    slots: Blocks | None = None
    while True:
        while version < max(number - task.max_staleness, 0) or learner.poll():
            version = learner.recv()
        if version != loaded:
            # nobody writes there: that block is taken again max_staleness + 1 updates later, for
            # which the learner needs the rollout that begins here
            collector.policy.load_state_dict(weights[version])
            loaded = version
        began = time.perf_counter()
        rollout = collector.collect()
        seconds = time.perf_counter() - began
        tensors = tensors_of(rollout)
        if slots is None or slots.layout != Layout.of(tensors):
            slots = Blocks(Layout.of(tensors), task.max_staleness + 1)
            learner.send(("slots", slots.layout))
            send_handle(learner, slots.file, 0)
        slots.write(number, tensors)
        learner.send(("rollout", number, version, seconds, said_of(rollout)))
        number += 1

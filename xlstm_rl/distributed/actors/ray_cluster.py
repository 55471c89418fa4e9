"""Actors on a Ray cluster; needs the extra `ray`."""

import os
import sys
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import cloudpickle
import numpy as np
import ray
from ray.exceptions import RayActorError, RayError
from torch import Tensor

from xlstm_rl.config.errors import ConfigError, one_line
from xlstm_rl.distributed.actors.memory import Layout
from xlstm_rl.distributed.actors.parts import said_of, tensors_of
from xlstm_rl.distributed.actors.place import Died, Message, Part, refuse, refuse_other_spaces
from xlstm_rl.distributed.actors.player import Player, Weights
from xlstm_rl.distributed.actors.task import ActorTask

Packed: TypeAlias = tuple[Layout, Any]
"""Tensors as one array of bytes, which Ray carries without pickling it."""

_Method: TypeAlias = Callable[..., None]

_WEIGHTS = "weights"
_beside: Callable[[_Method], _Method] = ray.method(concurrency_group=_WEIGHTS)
"""Weights come beside the rollout that is being played."""


class RayWorker:
    """What runs on the cluster: a `Player`, and the newest weights beside it.

    Args:
        task: cloudpickled.
        path: the learner's `sys.path`, where it is on the same machine; else empty.
    """

    def __init__(self, task: bytes, path: list[str]) -> None:
        self._task, self._path = task, path
        self._player: Player | None = None
        self._layout: Layout | None = None
        self._version = -1.0
        self._packed: Packed | None = None

    @_beside
    def weights(self, version: float, packed: Packed) -> None:
        """Keep weights for the next step, if they are newer."""
        self._keep(version, packed)

    def _keep(self, version: float, packed: Packed) -> None:
        if version > self._version:
            self._version, self._packed = version, packed

    def play(self, version: float, packed: Packed) -> tuple[Any, ...]:
        """Return a rollout that begins with these weights, or with newer ones; or the error."""
        try:
            self._keep(version, packed)
            if self._player is None:
                self._player = self._start(packed[0])
            rollout, versions, seconds = self._player.play()
            return "rollout", pack(tensors_of(rollout)), said_of(rollout), versions, seconds
        except Exception as error:
            return "error", type(error).__name__, one_line(error)

    def _start(self, layout: Layout) -> Player:
        if self._path:
            sys.path[:] = self._path  # before what is found there comes
        task: ActorTask = cloudpickle.loads(self._task)
        player = Player(task, self._newest)
        if player.layout != layout:
            refuse_other_spaces(task.index)
        return player

    def _newest(self) -> Weights | None:
        packed, self._packed = self._packed, None
        return None if packed is None else (self._version, unpack(packed))


class RayActor:
    """An actor on the cluster as the learner sees it.

    Args:
        task: what it does.
        first: number of its first rollout.
        path: see `RayWorker`.
    """

    def __init__(self, task: ActorTask, first: int, path: list[str]) -> None:
        self.task, self._next = task, first
        self.name = f"Ray actor {uuid.uuid4().hex[:8]}"
        self._rollouts: list[Any] = []
        self._how = "it is gone"
        remote: Any = ray.remote(num_cpus=1, concurrency_groups={_WEIGHTS: 1})(RayWorker)
        self.worker = remote.options(name=self.name).remote(cloudpickle.dumps(task), path)

    @property
    def rollout(self) -> Any:
        """What stands for the rollout that comes next."""
        return self._rollouts[0]

    def tell(self, message: Message) -> None:
        """Tell it what it may begin and of new weights; one that died is found out by `take`."""
        released, version, where = message
        with suppress(RayActorError):
            if self.task.max_staleness:
                self.worker.weights.remote(version, where)
            for _ in range(self._next, released + 1):
                self._rollouts.append(self.worker.play.remote(version, where))
        self._next = max(self._next, released + 1)

    def take(self) -> Part | None:
        """Return the rollout that came.

        Raises:
            Died: it has ended.
            EnvError: its environments failed.
            TrainingError: something else did.
        """
        try:
            kind, *rest = ray.get(self._rollouts.pop(0))
        except RayError as error:
            self._how = one_line(error)[:200]
            raise Died from error
        if kind == "error":
            refuse(self.task.index, *rest)
        packed, said, versions, seconds = rest
        return Part(unpack(packed), said, versions, seconds)

    def ending(self) -> str:
        """Return how it ended."""
        return self._how

    def close(self) -> None:
        """End it."""
        if ray.is_initialized():  # else it is gone with the connection
            with suppress(RayError):
                ray.kill(self.worker)


class RayCluster:
    """A Ray cluster as the place where actors play.

    One that this process is connected to already is used as it is.

    Args:
        address: `ray://host:port`; `ray`: the cluster that RAY_ADDRESS names, else one of this
            machine, which ends with the actors.

    Raises:
        ConfigError: it cannot be reached.
    """

    def __init__(self, address: str) -> None:
        self._is_own = not ray.is_initialized()
        self._path: list[str] = []
        options: dict[str, Any] = {"logging_level": "ERROR"}
        if address != "ray":
            options["address"] = address
        elif "RAY_ADDRESS" not in os.environ:
            options |= {"address": "local", "include_dashboard": False}
            self._path = [part for part in sys.path if part]
        if not self._is_own:
            return
        try:
            with warnings.catch_warnings():  # the error says it
                warnings.simplefilter("ignore")
                ray.init(**options)
        except (RayError, OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"agent.actors={address}: {one_line(error)[:200]}; the versions of Ray and Python "
                "and RAY_AUTH_MODE must be those of the cluster"
            ) from error

    @property
    def cpus(self) -> int:
        """How many actors it has CPUs for."""
        return int(ray.cluster_resources().get("CPU", 0))

    def start(self, task: ActorTask, first: int) -> RayActor:
        """Return a new actor whose first rollout has this number."""
        return RayActor(task, first, self._path)

    def publish(self, block: int, tensors: Mapping[str, Tensor]) -> Any:
        """Put weights into the cluster's memory, from where each machine fetches them once."""
        return ray.put(pack(tensors))

    def wait(self, actors: Sequence[RayActor]) -> list[RayActor]:
        """Wait until a rollout of one of these actors is there; return those."""
        expected = {actor.rollout: actor for actor in actors}
        there, _ = ray.wait(list(expected), num_returns=1)
        return [expected[one] for one in there]

    def close(self, actors: Sequence[RayActor]) -> None:
        """End the actors."""
        for actor in actors:
            actor.close()

    def leave(self) -> None:
        """End the connection if it is this object's own, and a cluster that it has started."""
        if self._is_own:
            ray.shutdown()


def pack(tensors: Mapping[str, Tensor]) -> Packed:
    """Return tensors as one array of bytes."""
    layout = Layout.of(tensors)
    memory = np.empty(max(layout.size, 1), np.uint8)
    for name, place in layout.views(memory).items():
        place.copy_(tensors[name])
    return layout, memory


def unpack(packed: Packed) -> dict[str, Tensor]:
    """Return the tensors of an array of bytes, as copies."""
    layout, memory = packed
    return layout.views(bytearray(memory))

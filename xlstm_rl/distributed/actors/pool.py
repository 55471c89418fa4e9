"""The actors of a learner: their rollouts become its batches, its weights become theirs."""

import sys
import time
import weakref
from dataclasses import replace
from multiprocessing.connection import wait

from xlstm_rl.closing import Closing, closed_on_error
from xlstm_rl.collection.rollout import Rollout
from xlstm_rl.distributed.actors.memory import Blocks, Layout
from xlstm_rl.distributed.actors.parts import joined_rollout
from xlstm_rl.distributed.actors.process import ActorProcess, Died, Part
from xlstm_rl.distributed.actors.task import ActorTask
from xlstm_rl.errors import TrainingError
from xlstm_rl.policy.policy import Policy
from xlstm_rl.profiling import NO_PROFILE, Profile
from xlstm_rl.seeding import spawn_seed

_MOST_DEATHS = 3


class ActorPool(Closing):
    """Collects rollouts in processes of their own, ahead of the updates by a bound.

    Update k takes rollout k of every actor. An actor begins rollout k with the newest weights, once
    `k - max_staleness` updates are done: so no rollout is older than that, none is thrown away, and
    none is used twice. With a bound of 0 actors and learner take turns.

    An actor whose process dies is replaced; its environments begin new episodes.

    Args:
        task: of the first actor, with the environments of all.
        count: how many actors there are; divides the number of environments.
        policy: whose weights and statistics the actors get.
        steps_done: environment steps of the run so far, for the seeds of actors that take over.
    """

    def __init__(self, task: ActorTask, count: int, policy: Policy, steps_done: int) -> None:
        self.is_cut_off = False
        self._policy, self._steps_done = policy, steps_done
        self._num_envs = task.env.num_envs
        tensors = policy.state_dict()
        self._weights = Blocks(Layout.of(tensors), task.max_staleness + 1)
        self._version, self._replaced = 0, 0
        self._publish()
        self._actors: list[ActorProcess] = []
        self._parts: dict[int, Part] = {}
        self._deaths = 0
        self._last: tuple[float, int] | None = None
        self._finalizer = weakref.finalize(self, _close_all, self._actors)
        with closed_on_error(self.close):
            for index in range(count):
                own = task.at(index, self._num_envs // count)
                self._actors.append(self._started(own))

    def _started(self, task: ActorTask) -> ActorProcess:
        return ActorProcess(task, self._weights, self._version)

    def _publish(self) -> None:
        self._weights.write(self._version, self._policy.state_dict())

    def collect(self, profile: Profile = NO_PROFILE) -> Rollout:
        """Hand out the weights as they are now, and return the next rollout of every actor, joined.

        Raises:
            TrainingError: an environment failed, or an actor dies as often as it is replaced.
        """
        began = time.perf_counter()
        busy = None if self._last is None else began - self._last[0]
        if self._last is not None and self._last[1] == self._version:
            self._version += 1
            self._publish()
            for actor in self._actors:
                actor.publish(self._version)
        with profile.part("environment"):
            while len(self._parts) < len(self._actors):
                self._listen()
        with profile.part("storage"):
            parts = [self._parts[index] for index in range(len(self._actors))]
            self._parts = {}
            rollout = joined_rollout(
                [part.tensors for part in parts], [part.said for part in parts], self._policy.device
            )
        now = time.perf_counter()
        self._steps_done += rollout.data.numel()
        rollout.is_stale = any(part.version != self._version for part in parts)
        rollout.metrics = self._metrics(parts, rollout.data.numel(), now - began, busy)
        self._last = (now, self._version)
        return rollout

    def _metrics(
        self, parts: list[Part], steps: int, waited: float, busy: float | None
    ) -> dict[str, float]:
        """Return staleness in updates, and environment steps per second of either side."""
        staleness = [float(self._version - part.version) for part in parts]
        own = steps / len(parts)
        found = {
            "actors/staleness": sum(staleness) / len(staleness),
            "actors/max_staleness": max(staleness),
            "actors/sps": sum(own / max(part.seconds, 1e-9) for part in parts),
            "actors/waited": waited,
            "actors/replaced": float(self._replaced),
        }
        if busy is not None:
            found["actors/learner_sps"] = steps / max(busy, 1e-9)
        return found

    def _listen(self) -> None:
        """Take what has come from actors whose rollout is still missing."""
        missing = {
            actor.connection: index
            for index, actor in enumerate(self._actors)
            if index not in self._parts
        }
        for connection in wait(list(missing)):
            index = missing[connection]  # type: ignore[index]
            try:
                part = self._actors[index].take()
            except Died:
                self._replace(index)
                continue
            if part is not None:
                self._parts[index] = part
                self._deaths = 0

    def _replace(self, index: int) -> None:
        old = self._actors[index]
        how = old.ending()
        self._deaths += 1
        if self._deaths > _MOST_DEATHS * len(self._actors):
            raise TrainingError(
                f"actor {index} (process {old.process.pid}) died ({how}), and so did those that "
                "took its place, before a rollout was there; agent.actors=0 shows why"
            )
        print(
            f"actor {index} (process {old.process.pid}) died ({how}): another one takes its place, "
            f"and its {old.task.env.num_envs} environments begin new episodes",
            file=sys.stderr,
        )
        old.close()
        self._replaced += 1
        seed = spawn_seed(old.task.seed, "resuming", self._steps_done + self._replaced)
        self._actors[index] = self._started(replace(old.task, seed=seed))

    def close(self) -> None:
        """End the actors."""
        self._finalizer()


def _close_all(actors: list[ActorProcess]) -> None:
    for actor in actors:
        actor.process.terminate()
    for actor in actors:
        actor.close()

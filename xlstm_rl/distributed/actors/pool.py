"""The actors of a learner: their rollouts become its batches, its weights become theirs."""

import time
import weakref
from dataclasses import replace

from xlstm_rl.closing import Closing, closed_on_error
from xlstm_rl.collection.rollout import Rollout
from xlstm_rl.distributed.actors.parts import joined_rollout
from xlstm_rl.distributed.actors.place import Actor, Died, Message, Part, Place
from xlstm_rl.distributed.actors.task import ActorTask
from xlstm_rl.errors import TrainingError
from xlstm_rl.policy.policy import Policy
from xlstm_rl.profiling import NO_PROFILE, Profile
from xlstm_rl.seeding import spawn_seed
from xlstm_rl.terminal import tell

_MOST_DEATHS = 3
_MARGIN = 1.25  # of the time that a rollout takes


class ActorPool(Closing):
    """Collects rollouts in processes of their own, ahead of the updates by a bound.

    Update k takes rollout k of every actor. An actor may begin rollout k once update
    `k - max_staleness` has begun: so no rollout is older than that, none is thrown away, and none
    is used twice. Where the learner takes longer than the actors, it lets them begin late in that
    update, with the weights of that moment; where they take longer, they go on with the new weights
    as soon as there are any. With a bound of 0 actors and learner take turns.

    An actor whose process dies is replaced; its environments begin new episodes. After a call that
    was cut off, by an interrupt or an error, all are: what came of it is unknown.

    Args:
        place: where the actors play.
        task: of the first actor, with the environments of all.
        count: how many actors there are; divides the number of environments.
        policy: whose weights and statistics the actors get.
        steps_done: environment steps of the run so far, for the seeds of actors that take over.
    """

    def __init__(
        self, place: Place, task: ActorTask, count: int, policy: Policy, steps_done: int
    ) -> None:
        self.is_cut_off = False
        self._place, self._policy, self._steps_done = place, policy, steps_done
        self._num_envs = task.env.num_envs
        self._bound = task.max_staleness
        self._taken, self._released, self._replaced = 0, -1, 0
        self._collecting = self._updating = 0.0
        self._actors: list[Actor] = []
        self._parts: dict[int, Part] = {}
        self._message: Message | None = None
        self._deaths = 0
        self._ended: float | None = None
        self._finalizer = weakref.finalize(self, place.close, self._actors)
        with closed_on_error(self.close):
            for index in range(count):
                own = task.at(index, self._num_envs // count)
                self._actors.append(place.start(own, 0))
        if self._bound:
            self._release(self._bound - 1, 0.0)

    def _release(self, number: int, version: float) -> None:
        """Let actors begin rollouts up to a number, with the weights as they are now."""
        self._released = number
        self._tell(2 * (number % (self._bound + 1)), version)

    def _tell(self, block: int, version: float) -> None:
        where = self._place.publish(block, self._policy.state_dict())
        self._message = (self._released, version, where)
        for actor in self._actors:
            actor.tell(self._message)

    def ahead(self, done: float, later: float) -> None:
        """Let actors begin what the updates to come need, if it is time.

        Args:
            done: share of the update that is done.
            later: share that will be done at the next call.
        """
        number = self._taken - 1 + self._bound
        left = (1.0 - later) * self._updating
        if self._released < number and (not self._updating or left < _MARGIN * self._collecting):
            self._release(number, self._taken - 1 + done)

    def collect(self, profile: Profile = NO_PROFILE) -> Rollout:
        """Hand out the weights as they are now, and return the next rollout of every actor, joined.

        Raises:
            TrainingError: an environment failed, or an actor dies as often as it is replaced.
        """
        if self.is_cut_off:
            self._parts = {}
            for index in range(len(self._actors)):
                self._begin_anew(index)
        self.is_cut_off = True  # until a whole rollout is there
        began = time.perf_counter()
        if self._ended is not None:
            self._updating, self._ended = began - self._ended, None
        if self._released < self._taken:
            self._release(self._taken, float(self._taken))
        elif self._taken:  # for what is being played
            self._tell(2 * (self._taken % (self._bound + 1)) + 1, float(self._taken))
        with profile.part("environment"):
            while len(self._parts) < len(self._actors):
                self._listen()
        with profile.part("storage"):
            parts = [self._parts[index] for index in range(len(self._actors))]
            self._parts = {}
            rollout = joined_rollout(
                [part.tensors for part in parts], [part.said for part in parts], self._policy.device
            )
        self._ended = time.perf_counter()
        self._steps_done += rollout.data.numel()
        self._collecting = max(part.seconds for part in parts)
        rollout.metrics = self._metrics(parts, rollout.data.numel(), self._ended - began)
        self._taken += 1
        self.is_cut_off = False
        return rollout

    def _metrics(self, parts: list[Part], steps: int, waited: float) -> dict[str, float]:
        """Return staleness in updates, and environment steps per second of either side."""
        staleness = [self._taken - part.versions[1] for part in parts]
        own = steps / len(parts)
        found = {
            "actors/staleness": sum(staleness) / len(staleness),
            "actors/max_staleness": max(self._taken - part.versions[0] for part in parts),
            "actors/sps": sum(own / max(part.seconds, 1e-9) for part in parts),
            "actors/waited": waited,
            "actors/replaced": float(self._replaced),
        }
        if self._updating:
            found["actors/learner_sps"] = steps / self._updating
        return found

    def _listen(self) -> None:
        """Take what has come from actors whose rollout is still missing."""
        missing = [one for index, one in enumerate(self._actors) if index not in self._parts]
        for actor in self._place.wait(missing):
            index = self._actors.index(actor)
            try:
                part = actor.take()
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
                f"actor {index} ({old.name}) died ({how}), and so did its replacements, before "
                "they collected a rollout; agent.actors=0 shows why"
            )
        tell(
            f"actor {index} ({old.name}) died ({how}): another one takes its place, "
            f"and its {old.task.env.num_envs} environments begin new episodes"
        )
        self._begin_anew(index)

    def _begin_anew(self, index: int) -> None:
        """Start an actor in the place of another one, which is ended."""
        old = self._actors[index]
        old.close()
        self._replaced += 1
        seed = spawn_seed(old.task.seed, "resuming", self._steps_done + self._replaced)
        task = replace(old.task, seed=seed)
        self._actors[index] = self._place.start(task, self._taken)
        if self._message is not None:
            self._actors[index].tell(self._message)

    def close(self) -> None:
        """End the actors."""
        self._finalizer()

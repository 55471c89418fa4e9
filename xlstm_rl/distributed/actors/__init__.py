"""Actors apart from the learner: processes that collect rollouts while the policy is updated."""

from xlstm_rl.distributed.actors.pool import ActorPool
from xlstm_rl.distributed.actors.task import ActorTask, SpacesOnly, spec_of

__all__ = ["ActorPool", "ActorTask", "SpacesOnly", "spec_of"]

"""Actors apart from the learner: processes that collect rollouts while the policy is updated."""

from xlstm_rl.distributed.actors.pool import ActorPool
from xlstm_rl.distributed.actors.task import ActorTask, SpacesOnly, registered_kinds, spec_of

__all__ = ["ActorPool", "ActorTask", "SpacesOnly", "registered_kinds", "spec_of"]

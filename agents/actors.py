"""An agent whose environments are played by actors, apart from it."""

import importlib.util
import socket
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from gymnasium.vector import VectorEnv

from xlstm_rl.agents.actor_options import ActorPlan, most_actors
from xlstm_rl.closing import closed_on_error
from xlstm_rl.collection.collector import Collector
from xlstm_rl.collection.resuming import collector_state
from xlstm_rl.config import ConfigError
from xlstm_rl.config.errors import one_line
from xlstm_rl.distributed.actors import (
    ActorPool,
    ActorTask,
    SpacesOnly,
    registered_kinds,
    spec_of,
)
from xlstm_rl.distributed.actors.memory import Layout
from xlstm_rl.distributed.actors.process import ThisMachine
from xlstm_rl.envs.config import EnvConfig

if TYPE_CHECKING:
    from xlstm_rl.agents.setup import AgentSetup

_PATIENCE = 5.0  # seconds that a cluster has to answer
PLAYED_APART = "actors play the environments apart from the learner, and keep their state"


def environments_of_actors(
    actors: int | str, config: EnvConfig, custom: Any, check: Any
) -> VectorEnv[Any, Any, Any]:
    """Return what stands for the environments in the learner.

    Raises:
        ConfigError: a ready vector environment is given, which stays in its process; or the Ray
            cluster cannot be used.
        ValueError: the environment cannot be made.
    """
    if isinstance(custom, VectorEnv):
        raise ConfigError(
            "agent.actors: a ready vector environment cannot be played in other processes; give an "
            "id or a callable that makes one environment"
        )
    cluster = _join_cluster(ActorPlan.of(actors))
    with closed_on_error(cluster.leave) if cluster else nullcontext():
        return SpacesOnly(config, custom, check, cluster)


def _join_cluster(plan: ActorPlan) -> Any:
    """Return the Ray cluster of a plan; None: the actors are processes of this machine.

    Raises:
        ConfigError: the package is missing, or the cluster cannot be reached.
    """
    if plan.cluster is None:
        return None
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            f"agent.actors={plan.cluster} needs a package that is not installed: install it with "
            '`pip install "xlstm_rl[ray]"`'
        )
    if plan.host:  # Ray itself tries for half a minute
        try:
            socket.create_connection((plan.host, plan.port), _PATIENCE).close()
        except OSError as error:
            raise ConfigError(
                f"agent.actors={plan.cluster}: nothing answers there ({one_line(error)}); on the "
                "cluster's head, `ray start --head` opens port 10001 for it"
            ) from error
    from xlstm_rl.distributed.actors.ray_cluster import RayCluster

    return RayCluster(plan.cluster)


def make_actors(agent: "AgentSetup", seed: int) -> ActorPool:
    """Start the actors of an agent.

    Args:
        agent: whose policy they play.
        seed: of their environments and actions.
    """
    config = agent.config
    cluster = getattr(agent.env, "cluster", None)
    blocks = 2 * (agent.algorithm.max_staleness + 1)
    place = cluster or ThisMachine(Layout.of(agent.policy.state_dict()), blocks)
    cpus = cluster.cpus if cluster else 0
    count = ActorPlan.of(agent.algorithm.actors).count or most_actors(agent.env.num_envs, cpus)
    task = ActorTask(
        env=config.env,
        make_env=agent.policy.trained_on.callable,
        spec=spec_of(config.env),
        kinds=registered_kinds(config.memory, config.policy),
        memory=config.memory,
        policy=config.policy,
        normalization=config.normalization,
        rollout_steps=agent.algorithm.rollout_length,
        segment_steps=agent.algorithm.sequence_steps(),
        seed=seed,
        first_env=agent.ranks.index * agent.env.num_envs,
        index=agent.ranks.index * count,
        threads=config.threads,
        max_staleness=agent.algorithm.max_staleness,
    )
    return ActorPool(place, task, count, agent.policy, agent.steps_done)


def playing_state(
    collector: Collector | ActorPool | None, is_untrained: bool = False
) -> dict[str, Any]:
    """Return the state of what plays, for a checkpoint; that of actors stays with them.

    Args:
        collector: what plays.
        is_untrained: its last rollout was not trained on: to go on behind it would leave that out.
    """
    if isinstance(collector, ActorPool):
        return {"problem": PLAYED_APART}
    if is_untrained and collector is not None and not collector.is_cut_off:
        return {"problem": "the run was saved before its last rollout was trained on"}
    return collector_state(collector)

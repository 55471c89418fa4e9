"""An agent whose environments are played by actors, apart from it."""

import importlib.util
import socket
from typing import TYPE_CHECKING, Any

from gymnasium.vector import VectorEnv

from xlstm_rl.agents.actor_options import ActorPlan, most_actors
from xlstm_rl.collection.collector import Collector
from xlstm_rl.collection.resuming import collector_state
from xlstm_rl.config import ConfigError
from xlstm_rl.config.errors import one_line
from xlstm_rl.distributed.actors import ActorPool, ActorTask, SpacesOnly, spec_of
from xlstm_rl.distributed.actors.memory import Layout
from xlstm_rl.distributed.actors.process import ThisMachine
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.policy.policy import Policy

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
    reach_cluster(ActorPlan.of(actors))
    return SpacesOnly(config, custom, check)


def reach_cluster(plan: ActorPlan) -> None:
    """Refuse a Ray cluster that cannot be used, before anything is made for it.

    Raises:
        ConfigError: the package is missing, or nothing listens there.
    """
    if plan.cluster is None:
        return
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            f"agent.actors={plan.cluster} needs a package that is not installed: install it with "
            '`pip install "xlstm_rl[ray]"`'
        )
    if plan.host:
        try:
            socket.create_connection((plan.host, plan.port), _PATIENCE).close()
        except OSError as error:
            raise ConfigError(
                f"agent.actors={plan.cluster}: nothing answers there ({one_line(error)}); on the "
                "cluster's head, `ray start --head` opens port 10001 for it"
            ) from error


def _place(plan: ActorPlan, policy: Policy, blocks: int) -> tuple[Any, int]:
    """Return where actors play, and how many there may be at most."""
    if plan.cluster is None:
        return ThisMachine(Layout.of(policy.state_dict()), 2 * blocks), 0
    from xlstm_rl.distributed.actors.ray_cluster import RayCluster

    cluster = RayCluster(plan.cluster)
    return cluster, cluster.cpus


def make_actors(agent: "AgentSetup", seed: int) -> ActorPool:
    """Start the actors of an agent.

    Args:
        agent: whose policy they play.
        seed: of their environments and actions.
    """
    config = agent.config
    plan = ActorPlan.of(agent.algorithm.actors)
    place, cpus = _place(plan, agent.policy, agent.algorithm.max_staleness + 1)
    count = plan.count or most_actors(agent.env.num_envs, cpus)
    task = ActorTask(
        env=config.env,
        make_env=agent.policy.trained_on.callable,
        spec=spec_of(config.env),
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


def playing_state(collector: Collector | ActorPool | None) -> dict[str, Any]:
    """Return the state of what plays, for a checkpoint; that of actors stays with them."""
    if isinstance(collector, ActorPool):
        return {"problem": PLAYED_APART}
    return collector_state(collector)

"""An agent whose environments are played by actors, apart from it."""

from typing import TYPE_CHECKING, Any

from gymnasium.vector import VectorEnv

from xlstm_rl.collection.collector import Collector
from xlstm_rl.collection.resuming import collector_state
from xlstm_rl.config import ConfigError
from xlstm_rl.distributed.actors import ActorPool, ActorTask, SpacesOnly, spec_of
from xlstm_rl.envs.config import EnvConfig

if TYPE_CHECKING:
    from xlstm_rl.agents.setup import AgentSetup

PLAYED_APART = "actors play the environments apart from the learner, and keep their state"


def environments_of_actors(config: EnvConfig, custom: Any, check: Any) -> VectorEnv[Any, Any, Any]:
    """Return what stands for the environments in the learner.

    Raises:
        ConfigError: a ready vector environment is given, which stays in its process.
        ValueError: the environment cannot be made.
    """
    if isinstance(custom, VectorEnv):
        raise ConfigError(
            "agent.actors: a ready vector environment cannot be played in other processes; give an "
            "id or a callable that makes one environment"
        )
    return SpacesOnly(config, custom, check)


def make_actors(agent: "AgentSetup", seed: int) -> ActorPool:
    """Start the actors of an agent.

    Args:
        agent: whose policy they play.
        seed: of their environments and actions.
    """
    config = agent.config
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
        index=agent.ranks.index * agent.algorithm.actors,
        threads=config.threads,
        max_staleness=agent.algorithm.max_staleness,
    )
    return ActorPool(task, agent.algorithm.actors, agent.policy, agent.steps_done)


def playing_state(collector: Collector | ActorPool | None) -> dict[str, Any]:
    """Return the state of what plays, for a checkpoint; that of actors stays with them."""
    if isinstance(collector, ActorPool):
        return {"problem": PLAYED_APART}
    return collector_state(collector)

"""What an actor is told to do: everything that it makes its environments and its policy from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from xlstm_rl.closing import closed_on_error
from xlstm_rl.collection.collector import Collector
from xlstm_rl.collection.masks import mask_check
from xlstm_rl.envs import make_vector_env
from xlstm_rl.envs.config import EnvConfig, is_custom
from xlstm_rl.envs.declared import declared_limit, wants_previous_action
from xlstm_rl.envs.faults.processes import close
from xlstm_rl.envs.registration import find_spec
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.memory.kinds import MEMORIES
from xlstm_rl.normalization_config import NormalizationConfig
from xlstm_rl.policy.config import DISTRIBUTIONS, PolicyConfig
from xlstm_rl.policy.policy import Policy
from xlstm_rl.seeding import reset_seed, spawn_seed


@dataclass(frozen=True)
class ActorTask:
    """The task of one actor."""

    env: EnvConfig
    """With the number of its own environments."""

    make_env: Callable[..., Any] | None
    """What makes a single environment; None: `env.id`."""

    spec: EnvSpec | None
    """Of the id, as the learner has it registered."""

    kinds: tuple[tuple[type, Any] | None, ...]
    """Those of the memory and of the action distribution, as the learner has them registered."""

    memory: MemoryConfig
    policy: PolicyConfig
    normalization: NormalizationConfig
    rollout_steps: int
    segment_steps: int

    seed: int
    """Of its environments and its actions."""

    first_env: int
    """Number of its first environment among those of all."""

    index: int
    threads: int

    max_staleness: int
    """Updates that may lie between the weights of a rollout and its own update."""

    @property
    def blocks(self) -> int:
        """Rollouts that may be under way or waiting at the same time, and weights for them."""
        return self.max_staleness + 1

    def at(self, index: int, num_envs: int) -> "ActorTask":
        """Return the task of one of several actors with so many environments each."""
        env = replace(self.env, num_envs=num_envs)
        return replace(self, env=env, index=index, first_env=self.first_env + index * num_envs)

    def make_collector(self) -> Collector:
        """Make environments and policy, in the actor's process."""
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.spec is not None:
            gymnasium.registry.setdefault(self.spec.id, self.spec)
        for registry, kind in zip((MEMORIES, DISTRIBUTIONS), self.kinds, strict=True):
            if kind is not None:
                registry.add(*kind)
        env = make_vector_env(self.env, self.make_env, "cpu", mask_check(self.policy))
        policy = Policy(
            env.single_observation_space,
            env.single_action_space,
            self.memory,
            self.policy,
            self.normalization,
            self.env,
        )
        generator = torch.Generator()
        generator.manual_seed(spawn_seed(self.seed, "actions", self.index))
        return Collector(
            *(env, policy, self.rollout_steps, self.segment_steps),
            *(reset_seed(env, self.seed, self.first_env), generator, self.env.info_keywords),
        )


class SpacesOnly(VectorEnv[Any, Any, Any]):
    """Stands in the learner for environments that its actors play: what they say, and their number.

    Args:
        config: of all of them.
        make_env: what makes a single one; None: `config.id`.
        check: as `make_vector_env` takes it.
        cluster: where the actors play, which is left when these are closed; None: this machine.

    Raises:
        ValueError: the environment cannot be made.
    """

    def __init__(
        self,
        config: EnvConfig,
        make_env: Callable[..., Any] | None,
        check: Any = None,
        cluster: Any = None,
    ) -> None:
        self.cluster = cluster
        probe = make_vector_env(config.for_one(), make_env, "cpu", check)
        with closed_on_error(lambda: close(probe)):
            self.num_envs = config.num_envs
            self.single_observation_space = probe.single_observation_space
            self.single_action_space = probe.single_action_space
            self.metadata = probe.metadata
            self.obs_requires_prev_action = wants_previous_action(probe)
            self.max_episode_length = declared_limit(probe)
        close(probe)

    def close(self, **kwargs: Any) -> None:
        """Leave the cluster, if there is one: there are no environments here."""
        if self.cluster is not None:
            self.cluster.leave()


def registered_kinds(
    memory: MemoryConfig, policy: PolicyConfig
) -> tuple[tuple[type, Any] | None, ...]:
    """Return how this process registered the kinds of memory and action distribution."""
    return MEMORIES.registered(memory), DISTRIBUTIONS.registered(policy.action_distribution)


def spec_of(config: EnvConfig) -> EnvSpec | None:
    """Return how this process registered the id of a configuration; None: it did not."""
    if is_custom(config.id) or config.vectorization == "envpool":
        return None
    return find_spec(config.id)

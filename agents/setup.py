"""What an agent is made of: configuration, environments, policy, optimiser, random streams."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import torch
from torch.optim import Optimizer
from typing_extensions import Self

from xlstm_rl.agents import option_types as options
from xlstm_rl.agents.actors import environments_of_actors, make_actors, playing_state
from xlstm_rl.agents.advantage_scale import AdvantageScale
from xlstm_rl.agents.arguments import Environment, read_config
from xlstm_rl.agents.automatic import resolved
from xlstm_rl.agents.config import AlgorithmConfig, CheckpointConfig, TrainConfig
from xlstm_rl.agents.copying import Copying
from xlstm_rl.agents.device import resolve_device, torch_threads
from xlstm_rl.agents.episode_metrics import RecentEpisodes
from xlstm_rl.agents.optimization import load_optimizer
from xlstm_rl.agents.origin import Origin
from xlstm_rl.agents.schedules import Schedules
from xlstm_rl.agents.step_budget import StepBudget
from xlstm_rl.callbacks.config import EvaluationConfig
from xlstm_rl.callbacks.memory_watch import MemoryWatch
from xlstm_rl.closing import closed_on_error
from xlstm_rl.collection.collector import Collector
from xlstm_rl.collection.masks import mask_check
from xlstm_rl.config import ConfigError, config_to_dict
from xlstm_rl.distributed import current_ranks
from xlstm_rl.distributed.actors import ActorPool
from xlstm_rl.envs import make_vector_env
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.faults.processes import close
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import RewardNormalizer
from xlstm_rl.normalization_config import NormalizationConfig
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.policy import Policy
from xlstm_rl.policy.trained_on import TrainedOn
from xlstm_rl.runs.loggers import LoggerConfig
from xlstm_rl.runs.metric_row import MetricRow
from xlstm_rl.runs.run import Run
from xlstm_rl.runs.trust import trust_configuration
from xlstm_rl.seeding import reset_seed, spawn_seed, streams_state, torch_stream_restored

Given: TypeAlias = Mapping[str, Any] | None
"""A section whose keys nobody has looked at, or none."""


class AgentSetup(Copying, ABC):
    """The parts of an agent, made from arguments or from a configuration.

    Args:
        environment: an id, a callable that makes one environment, or a ready vector environment;
            None: `env.id`.
        seed: of the initial weights, the environments and the sampled actions.
        total_steps: environment steps of the whole training, over which schedules run, however many
            calls of `learn` it is parted into; None: the configuration's default.
        horizon: environment steps after which schedules reach their end; None: `total_steps`.
        device: `auto`, `cpu`, `cuda`, ...
        threads: CPU threads torch may use for the initial weights and while learning; 0: torch's
            own choice.
        run_dir: folder of the run, which must be new or empty; None: a new one under `runs/`.
        env, normalization, memory, policy, agent, logger, checkpoint, evaluation: the sections of
            `TrainConfig`, each a mapping or its config object.

    Raises:
        ConfigError: a value is unknown, of the wrong type, or does not fit the others.
    """

    algo: ClassVar[str]
    """The `agent.algo` of a configuration that this class runs."""

    algorithm: AlgorithmConfig
    """The section `agent` of the configuration."""

    def __init__(
        self,
        environment: Environment = None,
        /,
        *,
        seed: int = 0,
        total_steps: int | None = None,
        horizon: int | None = None,
        device: str = "auto",
        threads: int = 1,
        run_dir: str | None = None,
        env: options.EnvOptions | Given | EnvConfig = None,
        normalization: options.NormalizationOptions | Given | NormalizationConfig = None,
        memory: options.MemoryOptions | Given | MemoryConfig | str = None,
        policy: options.PolicyOptions | Given | PolicyConfig = None,
        agent: options.PPOOptions | options.A2COptions | Given | AlgorithmConfig = None,
        logger: options.LoggerOptions | Given | LoggerConfig | str = None,
        checkpoint: options.CheckpointOptions | Given | CheckpointConfig = None,
        evaluation: options.EvaluationOptions | Given | EvaluationConfig = None,
    ) -> None:
        """Make an agent; its class says what the arguments are."""
        top: dict[str, Any] = {
            "seed": seed,
            "horizon": horizon,
            "device": device,
            "threads": threads,
            "run_dir": run_dir,
        }
        if total_steps is not None:
            top["total_steps"] = total_steps
        sections = {
            "env": env,
            "normalization": normalization,
            "memory": memory,
            "policy": policy,
            "agent": agent,
            "logger": logger,
            "checkpoint": checkpoint,
            "evaluation": evaluation,
        }
        config = read_config(self.algo, environment, top, sections)
        self._setup(config, environment)

    @classmethod
    def from_config(cls, config: TrainConfig) -> Self:
        """Return an agent for a whole configuration."""
        agent = cls.__new__(cls)
        agent._setup(config, None)
        return agent

    def _setup(self, config: TrainConfig, environment: Environment) -> None:
        if config.agent.algo != self.algo:
            raise ConfigError(
                f"agent.algo={config.agent.algo}: {type(self).__name__} runs {self.algo}; use the "
                f"class of that algorithm, or agent options of {self.algo}"
            )
        self.config = config
        trust_configuration(config_to_dict(config))
        self.algorithm = config.agent
        self.ranks = current_ranks()
        self.device = resolve_device(config.device, self.ranks.device_index)
        custom = None if isinstance(environment, str) else environment
        check = mask_check(config.policy)
        if config.agent.actors:
            self.env = environments_of_actors(config.agent.actors, config.env, custom, check)
        else:
            self.env = make_vector_env(config.env, custom, self.device, check)
        with nullcontext() if self.env is custom else closed_on_error(lambda: close(self.env)):
            self.config = config = resolved(config, self.env, self.ranks.size)
            self.algorithm = config.agent
            self._make_parts(config, TrainedOn(custom))

    def _make_parts(self, config: TrainConfig, trained_on: TrainedOn) -> None:
        """Make what an agent is, beside its environments."""
        with torch_stream_restored(), torch_threads(config.threads):
            # the generator that is restored; torch.manual_seed would seed those of the GPUs too
            torch.default_generator.manual_seed(spawn_seed(config.seed, "weights"))
            self.policy = Policy(
                self.env.single_observation_space,
                self.env.single_action_space,
                config.memory,
                config.policy,
                config.normalization,
                config.env,
            ).to(self.device)
        self.policy.trained_on = trained_on
        self.parameters = list(self.policy.network.parameters())
        self.optimizer = self.make_optimizer()
        self.schedules = Schedules(self.algorithm)
        self.sample_generator = torch.Generator(self.device)
        rank = self.ranks.index
        self.sample_generator.manual_seed(spawn_seed(config.seed, "actions", rank))
        self.shuffle_generator = torch.Generator()
        self.shuffle_generator.manual_seed(spawn_seed(config.seed, "shuffling", rank))
        self.reward_normalizer = (
            RewardNormalizer(self.env.num_envs, config.agent.gamma, config.normalization)
            if config.normalization.reward
            else None
        )
        self.advantage_scale = AdvantageScale(config.agent.advantage_scale_decay)
        self.steps_done = 0
        self._budget = StepBudget(
            config.agent.rollout_length * self.env.num_envs * self.ranks.size,
            config.total_steps,
            config.horizon,
        )
        self._collector: Collector | ActorPool | None = None
        self._episodes = RecentEpisodes()
        self._origin: Origin | None = None
        self._is_untrained = False
        """A rollout was begun, and is not trained on yet."""
        self._own_values: dict[str, float] = {}
        self._row = MetricRow(config.agent.log_interval)
        self._watch = MemoryWatch()
        is_first = self.ranks.is_first
        self._run = Run(
            config_to_dict(config),
            config.logger if is_first else LoggerConfig(kind="none"),
            config.run_dir if is_first else None,
            config.checkpoint.keep,
        )
        self._has_folder = False

    @abstractmethod
    def make_optimizer(self) -> Optimizer:
        """Return the optimiser of `self.parameters`."""

    def _make_collector(self) -> Collector | ActorPool:
        origin = self._origin
        seed = self.config.seed
        if origin is not None:  # the episodes of before are not to be played again
            seed = spawn_seed(seed, "resuming", self.steps_done)
        if self.algorithm.actors:
            if origin is not None:
                origin.hand_over(None, self.ranks)
            return make_actors(self, seed)
        collector = Collector(
            self.env,
            self.policy,
            self.algorithm.rollout_length,
            self.algorithm.sequence_steps(),
            reset_seed(self.env, seed, self.ranks.index * self.env.num_envs),
            self.sample_generator,
            self.config.env.info_keywords,
        )
        if origin is not None:
            origin.hand_over(collector, self.ranks)
        return collector

    def load_trainer_state(self, state: Mapping[str, Any], origin: Origin) -> None:
        """Go on from what `trainer_state` returned, with the weights of that moment.

        Args:
            state: of a policy of the same shape.
            origin: hands over what the collector and the environments need, at the first rollout.
        """
        self._origin = origin
        own = origin.own_state(self.ranks)
        self.steps_done = int(state["steps_done"])
        self._budget.load_state(self.steps_done, state["budget"], state["config"])
        self._episodes.load_state(state["recent_episodes"])
        if "metric_row" in state:  # not in what version 0.2 wrote
            self._row.load_state(state["metric_row"])
        load_optimizer(self.optimizer, state["optimizer"])
        normalizer, saved = self.reward_normalizer, state["reward_normalizer"]
        if normalizer is not None and saved is not None:
            normalizer.load({**saved, **own["rewards"]})
        # Absent from checkpoints of before there was one.
        self.advantage_scale.load_state(state.get("advantage_scale", 0.0), self.device)
        generators = own["generators"]
        fresh = spawn_seed(self.config.seed, "resuming", self.steps_done + self.ranks.index)
        if generators["device"] == self.device.type:
            self.sample_generator.set_state(generators["actions"])
        else:  # another device draws other numbers, and so does a process that was not there
            self.sample_generator.manual_seed(fresh)
        if "shuffling" in generators:
            self.shuffle_generator.set_state(generators["shuffling"])
        else:
            self.shuffle_generator.manual_seed(fresh)

    def go_on_in(self, run_dir: Path, state: Mapping[str, Any]) -> None:
        """Write into the folder of a run that has come to the state of a checkpoint."""
        if self.ranks.is_first:
            whole = self._row.rows_until(self.steps_done)
            self._run.resume(run_dir, self.steps_done, state["config"].get("run_dir"), whole)

    def trainer_state(self) -> dict[str, Any]:
        """Return what training needs beyond the policy, as plain values and tensors."""
        normalizer = self.reward_normalizer
        return {
            "config": self._run.config,
            "steps_done": self.steps_done,
            "budget": self._budget.state(),
            "optimizer": self.optimizer.state_dict(),
            "reward_normalizer": None if normalizer is None else normalizer.state_dict(),
            "advantage_scale": self.advantage_scale.state(),
            "recent_episodes": self._episodes.state(),
            "metric_row": self._row.state(),
            **self._streams(),
        }

    def _streams(self) -> dict[str, Any]:
        """Return what each of several processes has for itself: random streams and episodes."""
        return {
            "generators": {
                "device": self.device.type,
                "actions": self.sample_generator.get_state(),
                "shuffling": self.shuffle_generator.get_state(),
                "global": streams_state(),
            },
            "collector": playing_state(self._collector, self._is_untrained),
        }

"""The base of every agent: collect, update, log, checkpoint."""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch.optim import Optimizer
from typing_extensions import Self

from xlstm_rl.agents.algorithms import AlgorithmConfig
from xlstm_rl.agents.config import TrainConfig
from xlstm_rl.collection.collector import Collector, Rollout
from xlstm_rl.collection.masks import mask_check
from xlstm_rl.config import ConfigError, config_from_dict, config_to_dict
from xlstm_rl.envs import make_vector_env
from xlstm_rl.normalization import RewardNormalizer
from xlstm_rl.policy.policy import Policy
from xlstm_rl.runs.checkpoint import write_checkpoint
from xlstm_rl.runs.folder import create_run_folder, new_checkpoint
from xlstm_rl.runs.loggers import Logger, make_logger
from xlstm_rl.seeding import reset_seed, spawn_seed

OnUpdate = Callable[[int, dict[str, float]], None]
Section = Mapping[str, Any] | object | None

CUSTOM_ENV = "custom"
"""The `env.id` of a run whose environment was handed over as an object."""

_RECENT_EPISODES = 100


class RecurrentAgent(ABC):
    """An on-policy agent with a recurrent policy.

    Args:
        environment: an id, a callable that makes one environment, or a ready vector environment;
            None: `env.id`.
        seed: of the initial weights, the environments and the sampled actions.
        device: `auto`, `cpu`, `cuda`, ...
        threads: CPU threads torch may use for the initial weights and while learning; 0: torch's
            own choice.
        run_dir: folder of the run, which must be new or empty; None: a new one under `runs/`.
        env, normalization, memory, policy, agent, logger, checkpoint: the sections of
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
        environment: str | Callable[[], Any] | VectorEnv[Any, Any, Any] | None = None,
        /,
        *,
        seed: int = 0,
        device: str = "auto",
        threads: int = 1,
        run_dir: str | None = None,
        env: Section = None,
        normalization: Section = None,
        memory: Section = None,
        policy: Section = None,
        agent: Section = None,
        logger: Section = None,
        checkpoint: Section = None,
    ) -> None:
        given = {
            "env": env,
            "normalization": normalization,
            "memory": memory,
            "policy": policy,
            "agent": agent,
            "logger": logger,
            "checkpoint": checkpoint,
        }
        sections: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        top = {"seed": seed, "device": device, "threads": threads, "run_dir": run_dir}
        sections["env"] = _env_section(environment, sections.get("env"))
        if isinstance(agent, Mapping) or agent is None:
            sections["agent"] = {"algo": self.algo, **(agent or {})}
        self._setup(config_from_dict(TrainConfig, {**top, **sections}), environment)

    @classmethod
    def from_config(cls, config: TrainConfig) -> Self:
        """Return an agent for a whole configuration."""
        agent = cls.__new__(cls)
        agent._setup(config, None)
        return agent

    def _setup(
        self,
        config: TrainConfig,
        environment: str | Callable[[], Any] | VectorEnv[Any, Any, Any] | None,
    ) -> None:
        custom = None if isinstance(environment, str) else environment
        if config.agent.algo != self.algo:
            raise ConfigError(
                f"agent.algo={config.agent.algo}: {type(self).__name__} runs {self.algo}; use the "
                f"class of that algorithm, or agent options of {self.algo}"
            )
        self.config = config
        self.algorithm = config.agent
        self.device = resolve_device(config.device)
        self.env = make_vector_env(config.env, custom, self.device, mask_check(config.policy))
        with torch.random.fork_rng(devices=[]), _threads(config.threads):
            # the generator that is forked here; torch.manual_seed would seed those of the GPUs too
            torch.default_generator.manual_seed(spawn_seed(config.seed, "weights"))
            self.policy = Policy(
                self.env.single_observation_space,
                self.env.single_action_space,
                config.memory,
                config.policy,
                config.normalization,
                config.env if custom is None else None,
            ).to(self.device)
        self.parameters = list(self.policy.network.parameters())
        self.optimizer = self.make_optimizer()
        self.sample_generator = torch.Generator(self.device)
        self.sample_generator.manual_seed(spawn_seed(config.seed, "actions"))
        self.shuffle_generator = torch.Generator().manual_seed(spawn_seed(config.seed, "shuffling"))
        self.reward_normalizer = (
            RewardNormalizer(self.env.num_envs, config.agent.gamma, config.normalization)
            if config.normalization.reward
            else None
        )
        self.steps_done = 0
        self.run_dir: Path | None = None
        self._made: set[Path] = set()
        self._collector: Collector | None = None
        self._logger: Logger | None = None
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT_EPISODES)

    @abstractmethod
    def make_optimizer(self) -> Optimizer:
        """Return the optimiser of `self.parameters`."""

    @abstractmethod
    def update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Improve the policy on a rollout and return what to log."""

    def learn(self, total_steps: int | None = None, on_update: OnUpdate | None = None) -> Self:
        """Train for `total_steps` more environment steps, in whole rollouts.

        The number of rollouts is rounded down, so that the budget is kept, but is at least one.

        Args:
            total_steps: environment steps, summed over the environments; None: the
                configuration's.
            on_update: called after each update with the steps done and the metrics.

        Raises:
            TrainingError: a loss, an observation or a reward is not finite.
        """
        total = self.config.total_steps if total_steps is None else total_steps
        if total < 1:
            raise ConfigError(f"total_steps={total}: expected 1 or more")
        try:
            with _threads(self.config.threads):
                self._open_logger()
                self._learn(total, on_update)
        finally:
            if self._logger is not None:
                self._logger.close()
                self._logger = None
        return self

    def _learn(self, total: int, on_update: OnUpdate | None) -> None:
        per_rollout = self.algorithm.rollout_steps * self.env.num_envs
        start, updates = self.steps_done, max(1, total // per_rollout)
        every = self.config.checkpoint.every_steps
        if self._collector is None:
            self._collector = self._make_collector()
        for done in range(updates):
            began = time.perf_counter()
            rollout = self._collector.collect()
            self._prepare(rollout)
            metrics = self.update(rollout, done / updates)
            self.steps_done = start + (done + 1) * per_rollout
            self._recent.extend(zip(rollout.episode_returns, rollout.episode_lengths, strict=True))
            metrics = {**self._episode_metrics(), **metrics}
            metrics["time/sps"] = per_rollout / (time.perf_counter() - began)
            if self._logger is not None:
                self._logger.log(self.steps_done, metrics)
            if every and self.steps_done // every > (self.steps_done - per_rollout) // every:
                self._save_to_run()
            if on_update is not None:
                on_update(self.steps_done, metrics)
        self._save_to_run()

    def _make_collector(self) -> Collector:
        return Collector(
            self.env,
            self.policy,
            self.algorithm.rollout_steps,
            self.algorithm.sequence_steps(),
            reset_seed(self.env, self.config.seed),
            self.sample_generator,
        )

    def _prepare(self, rollout: Rollout) -> None:
        """Scale the rewards and bring the running statistics up to date, after collecting."""
        data = rollout.data
        valid = None if rollout.all_valid() else data["valid"]
        self.policy.update_statistics(rollout.raw_observation, data["reward"], valid)
        if self.reward_normalizer is not None:
            done = data["terminated"] | data["truncated"]
            reward = self.reward_normalizer(
                data["reward"].cpu(), done.cpu(), None if valid is None else valid.cpu()
            )
            data["reward"] = reward.to(self.device)

    def _episode_metrics(self) -> dict[str, float]:
        """Return the means over the most recent episodes, up to 100; NaN before the first."""
        returns, lengths = zip(*self._recent, strict=True) if self._recent else ((), ())
        return {
            "episode/return": float(np.mean(returns)) if returns else float("nan"),
            "episode/length": float(np.mean(lengths)) if lengths else float("nan"),
        }

    def open_run(self) -> Path:
        """Make the run folder, unless it is there, and return it.

        `learn` does this by itself where there is a logger or a `run_dir`; without either, it
        writes nothing unless this was called.

        Raises:
            ConfigError: the folder exists; nothing in it is touched.
        """
        if self.run_dir is None:
            self.run_dir = self._create_run_folder(self.config.run_dir)
        return self.run_dir

    def _open_logger(self) -> None:
        if self.config.logger.kind != "none" or self.config.run_dir is not None:
            self.open_run()
        if self.run_dir is not None:
            self._logger = make_logger(
                self.config.logger, self.run_dir, config_to_dict(self.config)
            )

    def _save_to_run(self) -> None:
        if self.run_dir is not None:
            self._write(self.run_dir)

    def save(self, run_dir: str | Path) -> Path:
        """Write the policy and the trainer's state into a run folder and return it.

        The folder is new or empty, or one that this agent made before.

        Raises:
            ConfigError: the folder holds something else; nothing in it is touched.
        """
        path = Path(run_dir)
        if path.resolve() not in self._made:
            self._create_run_folder(path)
        self._write(path)
        return path

    def _create_run_folder(self, path: str | Path | None) -> Path:
        config = self.config
        folder = create_run_folder(
            path,
            config_to_dict(config),
            env=config.env.id,
            memory=config.memory.kind,
            seed=config.seed,
        )
        self._made.add(folder.resolve())
        return folder

    def _write(self, run_dir: Path) -> None:
        with new_checkpoint(run_dir, self.steps_done, self.config.checkpoint.keep) as folder:
            write_checkpoint(folder, self.policy, self.trainer_state())

    def trainer_state(self) -> dict[str, Any]:
        """Return what training needs beyond the policy, as plain values and tensors."""
        normalizer = self.reward_normalizer
        return {
            "steps_done": self.steps_done,
            "optimizer": self.optimizer.state_dict(),
            "reward_normalizer": None if normalizer is None else normalizer.state_dict(),
            "sample_generator": self.sample_generator.get_state(),
            "shuffle_generator": self.shuffle_generator.get_state(),
            "recent_episodes": [list(episode) for episode in self._recent],
        }

    def close(self) -> None:
        """Close the environments."""
        self.env.close()


def resolve_device(name: str) -> torch.device:
    """Return the device for a configuration's name.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device={name!r} cannot be used here ({reason}): try auto") from error
    return device


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads, 0: as many as it likes.

    Sums are rounded differently by other numbers of them, and so are the orthogonal matrices that
    the weights start from: a seed gives the same run in every shell only with a fixed number.
    """
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _env_section(environment: Any, section: Any) -> Any:
    """Merge an environment given as the first argument into the `env` section."""
    values = dict(section) if isinstance(section, Mapping) else {}
    if section is not None and not isinstance(section, Mapping):
        values = config_to_dict(section)
    if environment is None:
        return values
    values["id"] = environment if isinstance(environment, str) else CUSTOM_ENV
    if isinstance(environment, VectorEnv):
        values["num_envs"] = environment.num_envs
    return values

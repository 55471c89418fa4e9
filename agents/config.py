"""Configuration of a training run: one class of options per section."""

from dataclasses import dataclass, field

from xlstm_rl.agents.algorithm_config import A2CConfig, PPOConfig
from xlstm_rl.agents.base_config import AlgorithmConfig
from xlstm_rl.callbacks.config import EvaluationConfig
from xlstm_rl.config.errors import ConfigError
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.memory.config import MemoryConfig
from xlstm_rl.normalization_config import NormalizationConfig
from xlstm_rl.options.fields import Count, CountOrZero, Seed
from xlstm_rl.options.section import Section
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.runs.loggers import LoggerConfig

__all__ = ["A2CConfig", "AlgorithmConfig", "CheckpointConfig", "PPOConfig", "TrainConfig"]


@dataclass(frozen=True)
class CheckpointConfig(Section):
    """When the policy and the trainer's state are written to the run folder."""

    section = "checkpoint"

    every_steps: CountOrZero = 25_000
    """Environment steps between two checkpoints; 0: only at the end of training."""

    keep: Count = 3
    """How many checkpoints stay on disk; older ones are removed."""

    def refuse_without_folder(self) -> None:
        """Refuse to train without the folder that checkpoints were asked for in.

        Raises:
            ConfigError: they were asked for.
        """
        if self.every_steps not in (0, CheckpointConfig.every_steps):
            raise ConfigError(
                f"checkpoint.every_steps={self.every_steps}: without a run folder no checkpoint is "
                "written; give run_dir, or a logger, which has one"
            )


@dataclass(frozen=True)
class TrainConfig(Section):
    """Everything that decides a training run."""

    seed: Seed = 0
    """Seed of the networks' initial weights, of the environments and of the sampled actions."""

    total_steps: Count = 100_000
    """Environment steps to train for, summed over the environments (and processes)."""

    horizon: Count | None = None
    """Environment steps after which schedules reach their end; None: `total_steps`."""

    device: str = "auto"
    """`auto` (cuda where there is one, else cpu), `cpu`, `cuda`, `cuda:1`, ... On a CUDA device the
    memory tasks compute there too, unless `env.kwargs` has a `device` or `tensors: false`."""

    threads: CountOrZero = 1
    """CPU threads of the native backend, and of torch where the network does not run in C; small
    networks are fastest with one. 0: torch's own choice."""

    run_dir: str | None = None
    """Folder of the run, which must be new or empty; None: a new one under `runs/`."""

    env: EnvConfig = field(default_factory=EnvConfig)
    """The environment."""

    normalization: NormalizationConfig = field(default_factory=NormalizationConfig)
    """Running normalisation of observations and rewards."""

    memory: MemoryConfig = field(default_factory=MemoryConfig)
    """The memory."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """Encoder and heads."""

    agent: AlgorithmConfig = field(default_factory=PPOConfig)
    """The algorithm: `agent.algo` says which, the other options of the section are its own."""

    logger: LoggerConfig = field(default_factory=LoggerConfig)
    """Where metrics go."""

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When the run is saved."""

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Evaluation while training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.agent.check_num_envs(self.env.num_envs)

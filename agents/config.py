"""Configuration of a whole training run: one section per part of the library."""

from dataclasses import dataclass, field

from xlstm_rl.agents.algorithms import A2CConfig, PPOConfig
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.runs.loggers import LoggerConfig


@dataclass(frozen=True)
class CheckpointConfig:
    """When the policy and the trainer's state are written to the run folder."""

    every_steps: int = 25_000
    """Environment steps between two checkpoints; 0: only at the end of training."""

    keep: int = 3
    """How many checkpoints stay on disk; older ones are removed."""

    def __post_init__(self) -> None:
        if self.every_steps < 0:
            raise ValueError(f"checkpoint.every_steps={self.every_steps}: expected 0 or more")
        if self.keep < 1:
            raise ValueError(f"checkpoint.keep={self.keep}: expected 1 or more")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run."""

    seed: int = 0
    """Seed of the networks' initial weights, of the environments and of the sampled actions."""

    total_steps: int = 100_000
    """Environment steps to train for, summed over the environments."""

    device: str = "auto"
    """`auto` (cuda where there is one, else cpu), `cpu`, `cuda`, `cuda:1`, ... On a CUDA device the
    memory tasks compute there too, unless `env.kwargs` has a `device` or `tensors: false`."""

    threads: int = 1
    """CPU threads torch may use; small networks are fastest with one. 0: torch's own choice."""

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

    agent: PPOConfig | A2CConfig = field(default_factory=PPOConfig)
    """The algorithm: `agent.algo` says which, the other options of the section are its own."""

    logger: LoggerConfig = field(default_factory=LoggerConfig)
    """Where metrics go."""

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When the run is saved."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: expected 0 or more")
        if self.total_steps < 1:
            raise ValueError(f"total_steps={self.total_steps}: expected 1 or more")
        if self.threads < 0:
            raise ValueError(f"threads={self.threads}: expected 0 or more")
        self.agent.check_num_envs(self.env.num_envs)

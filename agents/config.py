"""Configuration of a whole training run: one section per part of the library."""

from dataclasses import dataclass, field
from typing import Literal

from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.loggers import LoggerConfig
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy.config import PolicyConfig


@dataclass(frozen=True)
class PPOConfig:
    """Recurrent proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    algo: Literal["ppo"] = "ppo"
    """The algorithm."""

    rollout_steps: int = 64
    """Steps collected from each environment between two updates (T of a rollout `[B, T]`)."""

    epochs: int = 10
    """Passes over each rollout."""

    minibatches: int = 4
    """Parts into which the sequences of a rollout are split in each pass; must divide them."""

    segment_steps: int | None = None
    """Train on time segments of this length, each from the state stored when it was collected.
    None: every sequence is the whole rollout. Must divide `rollout_steps`."""

    learning_rate: float = 1e-3
    """Adam's step size at the start."""

    learning_rate_end: float = 0.0
    """The fraction of `learning_rate` left at the last step; linear in between (1: constant)."""

    adam_eps: float = 1e-5
    """Adam's epsilon."""

    gamma: float = 0.99
    """Discount per step."""

    gae_lambda: float = 0.8
    """Lambda of generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438)."""

    clip: float = 0.2
    """Clip range of the probability ratio at the start."""

    clip_end: float = 0.0
    """The fraction of `clip` left at the last step; linear in between (1: constant)."""

    value_clip: float | None = None
    """Clip range of the value's change per update; None: no clipping."""

    value_coef: float = 0.5
    """Weight of the value loss."""

    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""

    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm."""

    target_kl: float | None = None
    """Stop the epochs of an update once the approximate KL divergence exceeds this."""

    normalize_advantage: bool = True
    """Shift and scale the advantages of each minibatch to mean 0 and standard deviation 1."""

    def __post_init__(self) -> None:
        for name in ("rollout_steps", "epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"agent.{name}={getattr(self, name)}: expected 1 or more")
        for name in ("gamma", "gae_lambda", "learning_rate_end", "clip_end"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"agent.{name}={getattr(self, name)}: expected 0 to 1")
        for name in ("learning_rate", "adam_eps", "clip", "max_grad_norm"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"agent.{name}={getattr(self, name)}: expected more than 0")
        for name in ("value_clip", "target_kl"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ValueError(f"agent.{name}={value}: expected more than 0, or none")
        segment = self.segment_steps
        if segment is not None and (segment < 1 or self.rollout_steps % segment):
            raise ValueError(
                f"agent.segment_steps={segment} does not divide "
                f"agent.rollout_steps={self.rollout_steps}"
            )

    def segments(self) -> int:
        """Sequences that each environment contributes to a rollout."""
        return self.rollout_steps // (self.segment_steps or self.rollout_steps)


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
    """`auto` (cuda where there is one, else cpu), `cpu`, `cuda`, `cuda:1`, ..."""

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

    agent: PPOConfig = field(default_factory=PPOConfig)
    """The algorithm."""

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
        sequences = self.env.num_envs * self.agent.segments()
        if sequences % self.agent.minibatches:
            raise ValueError(
                f"agent.minibatches={self.agent.minibatches} does not divide the {sequences} "
                f"sequences of a rollout (env.num_envs={self.env.num_envs} x "
                f"{self.agent.segments()} segments): use a divisor of {sequences}"
            )

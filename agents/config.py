"""Configuration of a training run, and of the algorithms: one class of options per section."""

from dataclasses import dataclass, field
from typing import Literal

from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.memory.config import MemoryConfig
from xlstm_rl.normalization_config import NormalizationConfig
from xlstm_rl.options.fields import Count, CountOrZero, Fraction, Positive, Seed
from xlstm_rl.options.section import Section, refuse_unused
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.runs.loggers import LoggerConfig


@dataclass(frozen=True)
class AlgorithmConfig(Section):
    """What every on-policy algorithm here needs to know."""

    section = "agent"

    algo: str
    """The algorithm."""

    rollout_steps: Count = 64
    """Steps collected from each environment between two updates (T of a rollout `[B, T]`)."""

    epochs: Count = 1
    """Passes over each rollout."""

    learning_rate: Positive = 1e-3
    """The optimiser's step size at the start."""

    learning_rate_end: Fraction = 0.0
    """The fraction of `learning_rate` left at the last step; linear in between (1: constant)."""

    gamma: Fraction = 0.99
    """Discount per step."""

    gae_lambda: Fraction = 0.95
    """Lambda of generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438)."""

    value_coef: float = 0.5
    """Weight of the value loss."""

    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""

    max_grad_norm: Positive = 0.5
    """Gradients are scaled down to this global norm."""

    normalize_advantage: bool = True
    """Shift and scale the advantages of each gradient step to mean 0 and standard deviation 1."""

    def sequence_steps(self) -> int:
        """Length of a training sequence; the memory's state is stored before each."""
        return self.rollout_steps

    def check_num_envs(self, num_envs: int) -> None:
        """Refuse a number of environments that the algorithm cannot divide as it is told to.

        Raises:
            ValueError: it does not divide.
        """


@dataclass(frozen=True)
class PPOConfig(AlgorithmConfig):
    """Recurrent proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    algo: Literal["ppo"] = "ppo"
    """The algorithm, ppo or a2c, which decides the other options of this section:
    `--agent.algo a2c --help` shows those of A2C."""

    epochs: Count = 10
    """Passes over each rollout."""

    minibatches: Count = 4
    """Parts into which the sequences of a rollout are split in each pass; must divide them."""

    segment_steps: Count | None = None
    """Train on time segments of this length, each from the state stored when it was collected.
    None: every sequence is the whole rollout. Must divide `rollout_steps`."""

    adam_eps: Positive = 1e-5
    """Adam's epsilon."""

    clip: Positive = 0.2
    """Clip range of the probability ratio at the start."""

    clip_end: Fraction = 0.0
    """The fraction of `clip` left at the last step; linear in between (1: constant)."""

    value_clip: Positive | None = None
    """Clip range of the value's change per update; None: no clipping."""

    target_kl: Positive | None = None
    """Stop the epochs of an update once the approximate KL divergence exceeds this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        segment = self.segment_steps
        if segment is not None and self.rollout_steps % segment:
            raise ValueError(
                f"agent.segment_steps={segment} does not divide "
                f"agent.rollout_steps={self.rollout_steps}"
            )

    def sequence_steps(self) -> int:
        """Length of a training sequence: a whole rollout, or a segment of it."""
        return self.segment_steps or self.rollout_steps

    def segments(self) -> int:
        """Sequences that each environment contributes to a rollout."""
        return self.rollout_steps // self.sequence_steps()

    def check_num_envs(self, num_envs: int) -> None:
        """Refuse a number of sequences that `minibatches` does not divide.

        Raises:
            ValueError: it does not divide them.
        """
        sequences = num_envs * self.segments()
        if sequences % self.minibatches:
            raise ValueError(
                f"agent.minibatches={self.minibatches} does not divide the {sequences} "
                f"sequences of a rollout (env.num_envs={num_envs} x "
                f"{self.segments()} segments): use a divisor of {sequences}"
            )


@dataclass(frozen=True)
class A2CConfig(AlgorithmConfig):
    """Recurrent advantage actor-critic (A2C: Mnih et al. 2016, arXiv:1602.01783, synchronous)."""

    algo: Literal["a2c"] = "a2c"
    """The algorithm, ppo or a2c, which decides the other options of this section."""

    rollout_steps: Count = 32
    """Steps collected from each environment between two updates (T of a rollout `[B, T]`)."""

    epochs: Count = 1
    """Gradient steps on each rollout, each on all of it; more than one needs
    `advantages` vtrace."""

    learning_rate: Positive = 2e-3
    """The optimiser's step size at the start."""

    entropy_coef: float = 0.01
    """Weight of the entropy bonus."""

    normalize_advantage: bool = False
    """Shift and scale the advantages of each gradient step to mean 0 and standard deviation 1.
    Without PPO's clipping, this also enlarges the noise that is left once the critic is good."""

    advantages: Literal["gae", "n_step", "vtrace"] = "gae"
    """gae: generalised advantage estimation. n_step: returns to the rollout's end, as in the
    paper, where `gae_lambda` has no meaning. vtrace: weighted by importance (Espeholt et al. 2018,
    arXiv:1802.01561), with `gae_lambda` as its lambda; equal to gae while the policy that acted
    is the policy that learns."""

    rho_bar: Positive = 1.0
    """V-trace: importance weights of single steps are clipped here."""

    c_bar: Positive = 1.0
    """V-trace: importance weights of what follows a step are clipped here."""

    optimizer: Literal["adam", "rmsprop"] = "adam"
    """adam, or RMSprop as the paper has it, epsilon inside the root."""

    optimizer_eps: Positive = 1e-5
    """The optimiser's epsilon."""

    rmsprop_alpha: Fraction = 0.99
    """RMSprop: what is kept of the average of squared gradients at each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.advantages != "vtrace":
            owner = f"agent.advantages=vtrace, but agent.advantages is {self.advantages}"
            refuse_unused(self, ("rho_bar", "c_bar"), owner)
        if self.advantages == "n_step":
            owner = "agent.advantages=gae or vtrace, but agent.advantages is n_step"
            refuse_unused(self, ("gae_lambda",), owner)
        if self.optimizer != "rmsprop":
            owner = f"agent.optimizer=rmsprop, but agent.optimizer is {self.optimizer}"
            refuse_unused(self, ("rmsprop_alpha",), owner)
        if self.epochs > 1 and self.advantages != "vtrace":
            raise ValueError(
                f"agent.epochs={self.epochs} with agent.advantages={self.advantages}: after one "
                "gradient step the rollout is another policy's; use agent.advantages=vtrace, "
                "which corrects for it, or agent.epochs=1"
            )


@dataclass(frozen=True)
class CheckpointConfig(Section):
    """When the policy and the trainer's state are written to the run folder."""

    section = "checkpoint"

    every_steps: CountOrZero = 25_000
    """Environment steps between two checkpoints; 0: only at the end of training."""

    keep: Count = 3
    """How many checkpoints stay on disk; older ones are removed."""


@dataclass(frozen=True)
class TrainConfig(Section):
    """Everything that decides a training run."""

    seed: Seed = 0
    """Seed of the networks' initial weights, of the environments and of the sampled actions."""

    total_steps: Count = 100_000
    """Environment steps to train for, summed over the environments."""

    horizon: Count | None = None
    """Environment steps after which schedules reach their end; None: `total_steps`."""

    device: str = "auto"
    """`auto` (cuda where there is one, else cpu), `cpu`, `cuda`, `cuda:1`, ... On a CUDA device the
    memory tasks compute there too, unless `env.kwargs` has a `device` or `tensors: false`."""

    threads: CountOrZero = 1
    """CPU threads for torch and the native backend; small networks are fastest with one. 0: torch's
    own choice."""

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
        super().__post_init__()
        self.agent.check_num_envs(self.env.num_envs)

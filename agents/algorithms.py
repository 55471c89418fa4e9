"""Configuration of the algorithms: what they share, and one class for each."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AlgorithmConfig:
    """What every on-policy algorithm here needs to know."""

    algo: str
    """The algorithm."""

    rollout_steps: int = 64
    """Steps collected from each environment between two updates (T of a rollout `[B, T]`)."""

    epochs: int = 1
    """Passes over each rollout."""

    learning_rate: float = 1e-3
    """The optimiser's step size at the start."""

    learning_rate_end: float = 0.0
    """The fraction of `learning_rate` left at the last step; linear in between (1: constant)."""

    gamma: float = 0.99
    """Discount per step."""

    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438)."""

    value_coef: float = 0.5
    """Weight of the value loss."""

    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""

    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm."""

    normalize_advantage: bool = True
    """Shift and scale the advantages of each gradient step to mean 0 and standard deviation 1."""

    def __post_init__(self) -> None:
        self._check_counts("rollout_steps", "epochs")
        self._check_fractions("gamma", "gae_lambda", "learning_rate_end")
        self._check_positive("learning_rate", "max_grad_norm")

    def _check_counts(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"agent.{name}={getattr(self, name)}: expected 1 or more")

    def _check_fractions(self, *names: str) -> None:
        for name in names:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"agent.{name}={getattr(self, name)}: expected 0 to 1")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) > 0.0:
                raise ValueError(f"agent.{name}={getattr(self, name)}: expected more than 0")

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

    epochs: int = 10
    """Passes over each rollout."""

    minibatches: int = 4
    """Parts into which the sequences of a rollout are split in each pass; must divide them."""

    segment_steps: int | None = None
    """Train on time segments of this length, each from the state stored when it was collected.
    None: every sequence is the whole rollout. Must divide `rollout_steps`."""

    adam_eps: float = 1e-5
    """Adam's epsilon."""

    clip: float = 0.2
    """Clip range of the probability ratio at the start."""

    clip_end: float = 0.0
    """The fraction of `clip` left at the last step; linear in between (1: constant)."""

    value_clip: float | None = None
    """Clip range of the value's change per update; None: no clipping."""

    target_kl: float | None = None
    """Stop the epochs of an update once the approximate KL divergence exceeds this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_counts("minibatches")
        self._check_fractions("clip_end")
        self._check_positive("adam_eps", "clip")
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

    rollout_steps: int = 32
    """Steps collected from each environment between two updates (T of a rollout `[B, T]`)."""

    epochs: int = 1
    """Gradient steps on each rollout, each on all of it; more than one needs
    `advantages` vtrace."""

    learning_rate: float = 2e-3
    """The optimiser's step size at the start."""

    entropy_coef: float = 0.01
    """Weight of the entropy bonus."""

    normalize_advantage: bool = False
    """Shift and scale the advantages of each gradient step to mean 0 and standard deviation 1.
    Without PPO's clipping, this also enlarges the noise that is left once the critic is good."""

    advantages: Literal["gae", "n_step", "vtrace"] = "gae"
    """gae: generalised advantage estimation. n_step: returns to the rollout's end, as in the
    paper; `gae_lambda` is then not used. vtrace: weighted by importance (Espeholt et al. 2018,
    arXiv:1802.01561), with `gae_lambda` as its lambda; equal to gae while the policy that acted
    is the policy that learns."""

    rho_bar: float = 1.0
    """V-trace: importance weights of single steps are clipped here."""

    c_bar: float = 1.0
    """V-trace: importance weights of what follows a step are clipped here."""

    optimizer: Literal["adam", "rmsprop"] = "adam"
    """adam, or RMSprop as the paper has it, epsilon inside the root."""

    optimizer_eps: float = 1e-5
    """The optimiser's epsilon."""

    rmsprop_alpha: float = 0.99
    """RMSprop: what is kept of the average of squared gradients at each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_fractions("rmsprop_alpha")
        self._check_positive("rho_bar", "c_bar", "optimizer_eps")
        if self.epochs > 1 and self.advantages != "vtrace":
            raise ValueError(
                f"agent.epochs={self.epochs} with agent.advantages={self.advantages}: after one "
                "gradient step the rollout is another policy's; use agent.advantages=vtrace, "
                "which corrects for it, or agent.epochs=1"
            )

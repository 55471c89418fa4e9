"""Options of the algorithms."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from xlstm_rl.agents.actor_options import check_targets
from xlstm_rl.agents.base_config import AlgorithmConfig, Bonus, register_algorithm
from xlstm_rl.options.fields import Count, Fraction, Limit, Positive, PositiveOrZero
from xlstm_rl.options.section import refuse_unused

Minibatches = Count | Literal["auto"]
TargetKL = Limit | Literal["auto"] | None

_USUAL_MINIBATCHES = 4


@dataclass(frozen=True)
class PPOConfig(AlgorithmConfig):
    """Recurrent proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    former = {"entropy_coef_end": (1.0,), "advantage_scale_decay": (0.0,)}  # noqa: RUF012

    algo: Literal["ppo"] = "ppo"
    """The algorithm, ppo or a2c, or `module:Name` of another; it decides the other options of this
    section: `--agent.algo a2c --help` shows those of A2C."""

    epochs: Count = 10
    """Passes over each rollout."""

    entropy_coef: Bonus = "auto"
    """Weight of the entropy bonus. auto: 0.01 where every action is a choice, else 0: it would keep
    the noise of numbers (Box) wide as long as it lasts."""

    entropy_coef_end: Fraction = 0.0
    """The fraction of `entropy_coef` left at the last step (1: constant)."""

    log_barrier_coef: PositiveOrZero = 0.003
    """Weight of the log barrier, the mean over all choices of their log-probabilities: unlike the
    entropy it keeps pushing where a choice is nearly lost (Agarwal et al. 2021, section 5.2).
    Numbers (Box) have none. 0: none."""

    step_baseline: bool = True
    """Take from each advantage the mean of those of the other environments at the same step, as far
    as it is more than chance: what the critic gets wrong in all of them alike. It helps where
    episodes of one length run side by side."""

    advantage_scale_decay: Fraction = 0.99
    """The divisor of `normalize_advantage` falls to this fraction of itself with each rollout, and
    not faster, so that the noise that is left of a solved task stays small. 0: no limit."""

    minibatches: Minibatches = "auto"
    """Parts into which the sequences of a rollout are split in each pass; must divide them. auto:
    the largest divisor up to 4."""

    segment_steps: Count | None = None
    """Train on time segments of this length, each from the state stored when it was collected.
    None: every sequence is the whole rollout. Must divide `rollout_steps`."""

    adam_eps: Positive = 1e-5
    """Epsilon of `optimizer` adam."""

    clip: Limit = 0.2
    """Clip range of the probability ratio at the start."""

    clip_end: Fraction = 1.0
    """The fraction of `clip` left at the last step (1: constant)."""

    clip_schedule: str = "linear"
    """How it gets there, as `learning_rate_schedule`."""

    value_clip: Limit | None = None
    """Clip range of the value's change per update; None: no clipping."""

    target_kl: TargetKL = "auto"
    """Stop the epochs of an update once the approximate KL divergence exceeds this; None: never.
    auto: 0.02 where a part of an action is a number (Box), whose noise fades too early else."""

    scheduled = (*AlgorithmConfig.scheduled, "clip")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer != "adam":
            owner = f"agent.optimizer=adam, but agent.optimizer is {self.optimizer}"
            refuse_unused(self, ("adam_eps",), owner)
        segment = self.segment_steps
        if segment is not None and self.rollout_steps == "auto":
            raise ValueError(
                f"agent.segment_steps={segment} with agent.rollout_steps=auto, whose length is not "
                "known yet: give rollout_steps a multiple of it"
            )
        if segment is not None and self.rollout_length % segment:
            raise ValueError(
                f"agent.segment_steps={segment} does not divide agent.rollout_steps="
                f"{self.rollout_steps}: use a divisor of {self.rollout_steps}"
            )

    @property
    def kl_limit(self) -> float | None:
        """What ends an update; an agent's configuration has no `auto` in its place.

        Raises:
            ValueError: it is not known before the actions are.
        """
        if isinstance(self.target_kl, str):
            raise ValueError("agent.target_kl=auto: known once there is an action space")
        return self.target_kl

    def sequence_steps(self) -> int:
        """Length of a training sequence: a whole rollout, or a segment of it."""
        return self.segment_steps or self.rollout_length

    def segments(self) -> int:
        """Sequences that each environment contributes to a rollout."""
        if self.segment_steps is None:
            return 1
        return self.rollout_length // self.segment_steps

    def minibatches_of(self, sequences: int) -> int:
        """Return into how many parts so many sequences are split."""
        if isinstance(self.minibatches, str):
            return max(n for n in range(1, _USUAL_MINIBATCHES + 1) if sequences % n == 0)
        return self.minibatches

    def check_num_envs(self, num_envs: int) -> None:
        """Refuse a number of sequences that `minibatches` does not divide.

        Raises:
            ValueError: it does not divide them.
        """
        super().check_num_envs(num_envs)
        sequences = num_envs * self.segments()
        if sequences % self.minibatches_of(sequences):
            raise ValueError(
                f"agent.minibatches={self.minibatches} does not divide the {sequences} "
                f"sequences of a rollout (env.num_envs={num_envs} x "
                f"{self.segments()} segments): use a divisor of {sequences}"
            )


@dataclass(frozen=True)
class A2CConfig(AlgorithmConfig):
    """Recurrent advantage actor-critic (A2C: Mnih et al. 2016, arXiv:1602.01783, synchronous)."""

    algo: Literal["a2c"] = "a2c"
    """The algorithm, which decides the other options of this section."""

    usual_rollout: ClassVar[int] = 32

    longest_part: ClassVar[int] = 32

    epochs: Count = 1
    """Gradient steps on each rollout, each on all of it; more than one needs
    `advantages` vtrace."""

    learning_rate: Positive = 2e-3
    """The optimiser's step size at the start."""

    entropy_coef: Bonus = "auto"
    """Weight of the entropy bonus. auto: 0.01 where every action is a choice, else 0: it would keep
    the noise of numbers (Box) wide as long as it lasts."""

    log_interval: Count = 4
    """Updates of which a row of the metrics is the mean."""

    normalize_advantage: bool = False
    """Shift and scale the advantages of each gradient step to mean 0 and standard deviation 1.
    Without PPO's clipping, this also enlarges the noise that is left once the critic is good."""

    advantages: Literal["gae", "n_step", "vtrace"] = "gae"
    """gae: generalised advantage estimation. n_step: returns to the rollout's end, as in the
    paper, where `gae_lambda` has no meaning. vtrace: weighted by importance (Espeholt et al. 2018,
    arXiv:1802.01561), with `gae_lambda` as its lambda; equal to gae while the policy that acted
    is the policy that learns."""

    rho_bar: Limit = 1.0
    """V-trace: importance weights of single steps are clipped here."""

    c_bar: Limit = 1.0
    """V-trace: importance weights of what follows a step are clipped here."""

    optimizer: str = "adam"
    """adam; rmsprop as the paper has it, epsilon inside the root; or an optimiser of torch.optim by
    the name of its class: AdamW, RMSprop, SGD, ..."""

    optimizer_eps: Positive = 1e-5
    """Epsilon of `optimizer` adam and rmsprop."""

    rmsprop_alpha: Fraction = 0.99
    """RMSprop: what is kept of the average of squared gradients at each step."""

    own_optimizers = ("adam", "rmsprop")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer not in self.own_optimizers:
            owner = f"agent.optimizer=adam or rmsprop, but agent.optimizer is {self.optimizer}"
            refuse_unused(self, ("optimizer_eps",), owner)
        if self.advantages != "vtrace":
            owner = f"agent.advantages=vtrace, but agent.advantages is {self.advantages}"
            refuse_unused(self, ("rho_bar", "c_bar"), owner)
        if self.advantages == "n_step":
            owner = "agent.advantages=gae or vtrace, but agent.advantages is n_step"
            refuse_unused(self, ("gae_lambda",), owner)
        if self.optimizer != "rmsprop":
            owner = f"agent.optimizer=rmsprop, but agent.optimizer is {self.optimizer}"
            refuse_unused(self, ("rmsprop_alpha",), owner)
        if self.advantages == "vtrace":
            owner = "agent.advantages=gae or n_step, but agent.advantages is vtrace"
            refuse_unused(self, ("step_baseline",), owner)
        check_targets(self.actors, self.advantages)
        if self.epochs > 1 and self.advantages != "vtrace":
            raise ValueError(
                f"agent.epochs={self.epochs} with agent.advantages={self.advantages}: after one "
                "gradient step the rollout is another policy's; use agent.advantages=vtrace, "
                "which corrects for it, or agent.epochs=1"
            )


register_algorithm(PPOConfig, "xlstm_rl.agents.ppo:RecurrentPPO")
register_algorithm(A2CConfig, "xlstm_rl.agents.a2c:RecurrentA2C")

"""Options of the algorithms."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from xlstm_rl.agents.actor_options import check_actors, check_targets
from xlstm_rl.options.arguments import did_you_mean
from xlstm_rl.options.fields import Count, CountOrZero, Fraction, Positive
from xlstm_rl.options.kinds import Registry
from xlstm_rl.options.section import Section, refuse_unused

_SCHEDULES = ("constant", "linear", "cosine")

ALGORITHMS = Registry("algo")
"""The algorithms: the options of each, and its class."""


@dataclass(frozen=True)
class AlgorithmConfig(Section):
    """What every on-policy algorithm here needs to know; `algo` says which, and what else it needs.

    Called, it makes the options of that algorithm: `AlgorithmConfig(algo="a2c")` is an `A2CConfig`.
    """

    section = "agent"
    kinds = ALGORITHMS

    algo: str = ""
    """The algorithm."""

    rollout_steps: Count = 64
    """Steps collected from each environment between two updates (T of a rollout `[B, T]`)."""

    epochs: Count = 1
    """Passes over each rollout."""

    learning_rate: Positive = 1e-3
    """The optimiser's step size at the start."""

    learning_rate_end: Fraction = 0.0
    """The fraction of `learning_rate` left at the last step (1: constant)."""

    learning_rate_schedule: str = "linear"
    """How it gets there: constant, linear, cosine; or `module:Name`, in Python a function too, of
    the progress from 0 to 1, whose result `learning_rate` is multiplied with."""

    learning_rate_warmup: Fraction = 0.0
    """Share of training in which the step size rises from 0, before its schedule."""

    optimizer: str = "adam"
    """adam, or an optimiser of torch.optim by the name of its class: AdamW, RAdam, SGD, ..."""

    optimizer_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of an optimiser of torch.optim, such as `weight_decay 0.01`."""

    gamma: Fraction = 0.99
    """Discount per step."""

    gae_lambda: Fraction = 0.95
    """Lambda of generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438)."""

    value_coef: float = 0.5
    """Weight of the value loss."""

    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""

    entropy_coef_end: Fraction = 1.0
    """The fraction of `entropy_coef` left at the last step (1: constant)."""

    entropy_coef_schedule: str = "linear"
    """How it gets there, as `learning_rate_schedule`."""

    max_grad_norm: Positive = 0.5
    """Gradients are scaled down to this global norm."""

    normalize_advantage: bool = True
    """Shift and scale the advantages of each gradient step to mean 0 and standard deviation 1."""

    actors: CountOrZero = 0
    """Processes that play the environments, apart from the one that learns, ahead of its updates.
    Each has an equal part of `env.num_envs`. 0: playing and learning take turns."""

    max_staleness: CountOrZero = 1
    """Updates that may lie between the weights of an actor's rollout and the update that takes it;
    0: actors and learner take turns."""

    scheduled: ClassVar[tuple[str, ...]] = ("learning_rate", "entropy_coef")
    """Options that have a schedule."""

    own_optimizers: ClassVar[tuple[str, ...]] = ("adam",)
    """Optimisers with options of their own; the others are torch's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.scheduled:
            self._check_schedule(name)
        if not self.actors:
            owner = "actors, but agent.actors is 0"
            refuse_unused(self, ("max_staleness",), owner)
        if self.entropy_coef == 0.0:
            owner = "an entropy bonus, but agent.entropy_coef is 0"
            refuse_unused(self, ("entropy_coef_end", "entropy_coef_schedule"), owner)
        if self.optimizer in self.own_optimizers:
            owner = f"an optimiser of torch.optim, but agent.optimizer is {self.optimizer}"
            refuse_unused(self, ("optimizer_kwargs",), owner)
        elif not self.optimizer[:1].isupper():
            known = (*self.own_optimizers, "AdamW", "RAdam", "NAdam", "SGD", "RMSprop", "Adagrad")
            raise ValueError(
                f"agent.optimizer={self.optimizer!r}: expected {', '.join(self.own_optimizers)}, "
                "or the name of a class of torch.optim such as AdamW"
                f"{did_you_mean(self.optimizer, known)}"
            )

    def _check_schedule(self, name: str) -> None:
        option, end = f"{name}_schedule", f"{name}_end"
        word: str = getattr(self, option)
        if word in ("linear", "cosine"):
            if word != "linear" and getattr(self, end) == 1.0:
                owner = f"agent.{end} below 1, but agent.{end} is 1"
                refuse_unused(self, (option,), owner)
            return
        if word != "constant" and ":" not in word and not word.startswith("<"):
            hint = did_you_mean(word, _SCHEDULES)
            expected = "constant, linear, cosine or module:Name"
            raise ValueError(f"agent.{option}={word!r}: expected {expected}{hint}")
        owner = f"agent.{option}=linear or cosine, but agent.{option} is {word}"
        refuse_unused(self, (end,), owner)

    def sequence_steps(self) -> int:
        """Length of a training sequence; the memory's state is stored before each."""
        return self.rollout_steps

    def check_num_envs(self, num_envs: int) -> None:
        """Refuse a number of environments that the algorithm cannot divide as it is told to.

        Raises:
            ValueError: it does not divide.
        """
        check_actors(self.actors, num_envs)


@dataclass(frozen=True)
class PPOConfig(AlgorithmConfig):
    """Recurrent proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    algo: Literal["ppo"] = "ppo"
    """The algorithm, ppo or a2c, or `module:Name` of another; it decides the other options of this
    section: `--agent.algo a2c --help` shows those of A2C."""

    epochs: Count = 10
    """Passes over each rollout."""

    minibatches: Count = 4
    """Parts into which the sequences of a rollout are split in each pass; must divide them."""

    segment_steps: Count | None = None
    """Train on time segments of this length, each from the state stored when it was collected.
    None: every sequence is the whole rollout. Must divide `rollout_steps`."""

    adam_eps: Positive = 1e-5
    """Epsilon of `optimizer` adam."""

    clip: Positive = 0.2
    """Clip range of the probability ratio at the start."""

    clip_end: Fraction = 0.0
    """The fraction of `clip` left at the last step (1: constant)."""

    clip_schedule: str = "linear"
    """How it gets there, as `learning_rate_schedule`."""

    value_clip: Positive | None = None
    """Clip range of the value's change per update; None: no clipping."""

    target_kl: Positive | None = None
    """Stop the epochs of an update once the approximate KL divergence exceeds this."""

    scheduled = (*AlgorithmConfig.scheduled, "clip")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer != "adam":
            owner = f"agent.optimizer=adam, but agent.optimizer is {self.optimizer}"
            refuse_unused(self, ("adam_eps",), owner)
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
        super().check_num_envs(num_envs)
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
    """The algorithm, which decides the other options of this section."""

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
        check_targets(self.actors, self.advantages)
        if self.epochs > 1 and self.advantages != "vtrace":
            raise ValueError(
                f"agent.epochs={self.epochs} with agent.advantages={self.advantages}: after one "
                "gradient step the rollout is another policy's; use agent.advantages=vtrace, "
                "which corrects for it, or agent.epochs=1"
            )


def register_algorithm(options: type[AlgorithmConfig], algorithm: Any) -> None:
    """Give `agent.algo` one name more: the default of `algo` in the options.

    Args:
        options: the class of the algorithm's options.
        algorithm: its `RecurrentAgent`; or `module:Name` of it, which is then imported when the
            first one is made.
    """
    ALGORITHMS.add(options, algorithm)


register_algorithm(PPOConfig, "xlstm_rl.agents.ppo:RecurrentPPO")
register_algorithm(A2CConfig, "xlstm_rl.agents.a2c:RecurrentA2C")

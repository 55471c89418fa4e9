"""The options that every algorithm has, and the registry of algorithms."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from xlstm_rl.agents.actor_options import ActorPlan, check_actors
from xlstm_rl.options.arguments import did_you_mean
from xlstm_rl.options.fields import Count, CountOrZero, Fraction, Limit, Positive, PositiveOrZero
from xlstm_rl.options.kinds import Registry
from xlstm_rl.options.section import Section, refuse_unused

RolloutSteps = Count | Literal["auto"]
Bonus = float | Literal["auto"]
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

    rollout_steps: RolloutSteps = "auto"
    """Steps collected from each environment between two updates (T of a rollout `[B, T]`). auto:
    whole episodes where their length is known, up to 256 where they are long and the budget is
    large, else 64 (A2C: 32)."""

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

    entropy_coef: Bonus = 0.0
    """Weight of the entropy bonus. auto: 0.01 where every action is a choice, else 0: it would keep
    the noise of numbers (Box) wide as long as it lasts."""

    entropy_coef_end: Fraction = 1.0
    """The fraction of `entropy_coef` left at the last step (1: constant)."""

    entropy_coef_schedule: str = "linear"
    """How it gets there, as `learning_rate_schedule`."""

    log_barrier_coef: PositiveOrZero = 0.0
    """Weight of the log barrier, the mean over all choices of their log-probabilities: unlike the
    entropy it keeps pushing where a choice is nearly lost (Agarwal et al. 2021, section 5.2). Try
    0.003. Numbers (Box) have none. 0: none."""

    log_barrier_coef_end: Fraction = 0.0
    """The fraction of `log_barrier_coef` left at the last step (1: constant)."""

    log_barrier_coef_schedule: str = "linear"
    """How it gets there, as `learning_rate_schedule`."""

    max_grad_norm: Limit = 0.5
    """Gradients are scaled down to this global norm."""

    normalize_advantage: bool = True
    """Shift and scale the advantages of each gradient step to mean 0 and standard deviation 1."""

    advantage_scale_decay: Fraction = 0.0
    """Advantages are divided by at least this share of the last rollout's divisor, so that a
    solved task's noise is not blown up; try 0.99. 0: by their own standard deviation alone."""

    step_baseline: bool = False
    """Take from each advantage the mean of those of the other environments at the same step, as far
    as it is more than chance: what the critic gets wrong in all of them alike. It helps where
    episodes of one length run side by side."""

    log_interval: Count = 1
    """Updates of which a row of the metrics is the mean (A2C: 4, whose updates are short)."""

    actors: CountOrZero | str = 0
    """Processes that play the environments, apart from the one that learns, ahead of its updates.
    Each has an equal part of `env.num_envs`. 0: playing and learning take turns. `ray://host:port`:
    on a Ray cluster; `ray`: on one of this machine. `ray/8`: 8 actors there; else one a CPU."""

    max_staleness: CountOrZero = 1
    """Updates that may lie between the weights of an actor's rollout and the update that takes it;
    0: actors and learner take turns."""

    usual_rollout: ClassVar[int] = 64
    """The steps of a rollout where `auto` knows of no episode's length."""

    longest_part: ClassVar[int] = 256
    """The steps of a rollout where `auto` knows that episodes are long, and the budget is large."""

    scheduled: ClassVar[tuple[str, ...]] = ("learning_rate", "entropy_coef", "log_barrier_coef")
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
        ActorPlan.of(self.actors)
        if not self.normalize_advantage:
            owner = "normalised advantages, but agent.normalize_advantage is false"
            refuse_unused(self, ("advantage_scale_decay",), owner)
        if self.entropy_coef == 0.0:
            owner = "an entropy bonus, but agent.entropy_coef is 0"
            refuse_unused(self, ("entropy_coef_end", "entropy_coef_schedule"), owner)
        if self.log_barrier_coef == 0.0:
            owner = "a log barrier, but agent.log_barrier_coef is 0"
            refuse_unused(self, ("log_barrier_coef_end", "log_barrier_coef_schedule"), owner)
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

    @property
    def rollout_length(self) -> int:
        """The steps of a rollout; an agent's configuration has a number in the place of `auto`.

        Raises:
            ValueError: they are not known before the environment is.
        """
        if isinstance(self.rollout_steps, str):
            raise ValueError("agent.rollout_steps=auto: known once there is an environment")
        return self.rollout_steps

    @property
    def entropy_bonus(self) -> float:
        """The weight of the entropy; an agent's configuration has a number in the place of `auto`.

        Raises:
            ValueError: it is not known before the actions are.
        """
        if isinstance(self.entropy_coef, str):
            raise ValueError("agent.entropy_coef=auto: known once there is an action space")
        return self.entropy_coef

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
        return self.rollout_length

    def check_num_envs(self, num_envs: int) -> None:
        """Refuse a number of environments that the algorithm cannot divide as it is told to.

        Raises:
            ValueError: it does not divide.
        """
        check_actors(self.actors, num_envs)


def register_algorithm(options: type[AlgorithmConfig], algorithm: Any) -> None:
    """Register an algorithm under the default of `algo` in its options.

    Args:
        options: the class of the algorithm's options.
        algorithm: its `RecurrentAgent`; or `module:Name` of it, which is then imported when the
            first one is made.
    """
    ALGORITHMS.add(options, algorithm)

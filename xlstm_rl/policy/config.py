"""Configuration of the networks around the memory."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from xlstm_rl.options.arguments import did_you_mean
from xlstm_rl.options.fields import Count, CountOrZero
from xlstm_rl.options.kinds import Registry
from xlstm_rl.options.section import Section, refuse_unused

DISTRIBUTIONS = Registry("kind")
"""The kinds of action distribution: the options of each, and its class."""


@dataclass(frozen=True)
class DistributionConfig(Section):
    """How actions are distributed: `kind` says which family, the other options are its own.

    Called, it makes the options of that kind. Those of a distribution of your own derive from it.
    """

    section = "policy.action_distribution"
    kinds = DISTRIBUTIONS

    kind: str = ""
    """The family of distributions, which decides the other options of this section."""

    if TYPE_CHECKING:  # every kind has options of its own

        def __init__(self, kind: str = "auto", **options: Any) -> None: ...


@dataclass(frozen=True)
class GaussianOptions(DistributionConfig):
    """Independent normals, for spaces of numbers (Box)."""

    former = {"initial_log_std": (0.0, -0.7, -1.2)}  # noqa: RUF012

    std: Literal["free", "state", "gsde"] = "free"
    """Standard deviation: `free` parameters, or from the `state`; `gsde`: of noise that is a
    function of what the memory made, and the same one for several steps."""

    resample_steps: CountOrZero = 4
    """Steps after which gsde draws a new function; 0: once a rollout."""

    initial_log_std: float | Literal["auto"] = "auto"
    """Starting log standard deviation, in units of half the action range. auto: -1.2, which is
    .3; with gsde, which is for rewards that have to be found, 0."""

    bounds: Literal["clip", "tanh"] = "clip"
    """How actions keep their bounds: samples beyond one are clipped on their way to the
    environment, or every sample goes through a tanh whose slope is in the log-probability."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.std != "gsde":
            path = type(self).path("std")
            refuse_unused(self, ("resample_steps",), f"{path}=gsde, but {path} is {self.std}")

    @property
    def start_log_std(self) -> float:
        """The starting log standard deviation, a number in the place of `auto`."""
        if isinstance(self.initial_log_std, str):
            return 0.0 if self.std == "gsde" else -1.2
        return self.initial_log_std


@dataclass(frozen=True)
class GaussianConfig(GaussianOptions):
    """Independent normals, for spaces of numbers (Box)."""

    kind: Literal["gaussian"] = "gaussian"
    """The family of distributions, which decides the other options of this section."""


@dataclass(frozen=True)
class AutoConfig(GaussianOptions):
    """Whichever family fits: choices are categorical, numbers Gaussian, with these options."""

    kind: Literal["auto"] = "auto"
    """auto: choices are categorical, numbers Gaussian. Another kind, or `module:Name`, takes the
    parts of the action space that it fits; it decides the other options of this section."""


@dataclass(frozen=True)
class CategoricalConfig(DistributionConfig):
    """Independent choices, for Discrete, MultiDiscrete and MultiBinary spaces."""

    kind: Literal["categorical"] = "categorical"
    """The family of distributions, which decides the other options of this section."""


def register_distribution(options: type[DistributionConfig], distribution: Any) -> None:
    """Register an action distribution under the default of `kind` in its options.

    Args:
        options: The class of the distribution's options.
        distribution: The `ActionDistribution` whose `for_space` makes it; or `module:Name` of it,
            which is then imported when the first one is made.
    """
    DISTRIBUTIONS.add(options, distribution)


register_distribution(AutoConfig, "xlstm_rl.policy.actions.distributions:AutoDistribution")
register_distribution(GaussianConfig, "xlstm_rl.policy.actions.gaussian:DiagonalGaussian")
register_distribution(CategoricalConfig, "xlstm_rl.policy.actions.categorical:Categorical")


@dataclass(frozen=True)
class PolicyConfig(Section):
    """Encoder and heads of a policy, and whether actor and critic share one memory."""

    section = "policy"
    renamed = {  # noqa: RUF012
        "initial_log_std": "action_distribution.initial_log_std",
        "action_std": "action_distribution.std",
        "action_bounds": "action_distribution.bounds",
    }

    encoder: str = "auto"
    """From observations to what the memory reads. auto: as the space asks for, with the options
    below. `module:Name`: a module of your own, called with the observation space, the memory's
    width and `encoder_kwargs`."""

    encoder_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of an encoder of your own."""

    encoder_layers: CountOrZero = 1
    """Layers with activation between the observation and the memory (0: a bare projection)."""

    head_layers: CountOrZero = 1
    """Hidden layers of the action head and of the value head (0: one bare projection)."""

    head_width: Count = 64
    """Width of the hidden layers in the heads."""

    head_widths: tuple[Count, ...] | None = None
    """Width of each hidden layer of the heads, from the memory on, instead of `head_layers` of
    `head_width`: `[128, 64]`."""

    activation: Literal["tanh", "relu", "silu"] = "tanh"
    """Activation of the encoder and of the heads."""

    critic: Literal["shared", "separate"] = "shared"
    """`shared`: one encoder and memory feed both heads. `separate`: the critic has its own."""

    share_encoder: bool = False
    """Let a separate critic read the actor's encoder, and have a memory alone of its own. Worth it
    for images, whose encoder is most of the cost; both losses then train it."""

    action_distribution: DistributionConfig = field(default_factory=DistributionConfig)
    """How actions are distributed."""

    image_encoder: Literal["auto", "nature", "impala", "flat"] = "auto"
    """Encoder of uint8 images: Nature DQN's convolutions, IMPALA's residual ones, or one linear
    layer on the pixels. auto: nature, or impala where a side is below 36 pixels."""

    image_layout: Literal["auto", "hwc", "chw"] = "auto"
    """Order of an image's axes. auto: the shorter one of the first and the last is the channels."""

    previous_action: bool | Literal["auto"] = "auto"
    """Feed the memory with the action before, zeros at the first step of an episode: actions are
    samples, and where observations are noisy, or answer a choice, they do not say which. auto: in
    POPGym's games, whose published results have it, and where the environment says that it is
    needed, by an attribute `obs_requires_prev_action` that is true."""

    previous_reward: bool = False
    """Feed the memory with the reward of the action before, zero at the first step."""

    first_step: bool = False
    """Feed the memory with a flag that is one at the first step of an episode."""

    action_mask: Literal["none", "info", "observation"] = "none"
    """Where the environment says which actions are allowed: nowhere, in the step's `info`, or in
    the Dict `observation`, of which the mask is then no part that the memory sees."""

    action_mask_key: str = "action_mask"
    """The key of the mask there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.action_mask == "none":
            owner = "policy.action_mask=info or observation, but policy.action_mask is none"
            refuse_unused(self, ("action_mask_key",), owner)
        if self.critic == "shared":
            owner = "policy.critic=separate, but policy.critic is shared"
            refuse_unused(self, ("share_encoder",), owner)
        self._check_encoder()
        self._check_heads()

    def _check_encoder(self) -> None:
        if self.encoder == "auto":
            owner = "policy.encoder=module:Name, but policy.encoder is auto"
            refuse_unused(self, ("encoder_kwargs",), owner)
            return
        if ":" not in self.encoder and not self.encoder.startswith("<"):
            hint = did_you_mean(self.encoder, ("auto",))
            raise ValueError(
                f"policy.encoder={self.encoder!r}: expected auto, or module:Name of a class{hint}"
            )
        owner = f"policy.encoder=auto, but policy.encoder is {self.encoder}"
        refuse_unused(self, ("encoder_layers", "image_encoder", "image_layout"), owner)

    def _check_heads(self) -> None:
        widths = self.head_widths
        if widths is not None:
            if any(width < 1 for width in widths):
                raise ValueError(f"policy.head_widths={list(widths)}: expected integers >= 1")
            owner = "heads of equal layers, but policy.head_widths is set"
            refuse_unused(self, ("head_layers", "head_width"), owner)
        if self.head_layers == 0:
            refuse_unused(self, ("head_width",), "hidden layers, but policy.head_layers is 0")
        if not self.hidden_widths and (self.encoder_layers == 0 or self.encoder != "auto"):
            owner = "layers, but policy.encoder_layers and policy.head_layers are 0"
            if widths is not None or self.encoder != "auto":
                owner = "layers, but there are none with it: no hidden ones in the heads or encoder"
            refuse_unused(self, ("activation",), owner)

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """Widths of the hidden layers of a head."""
        if self.head_widths is not None:
            return self.head_widths
        return (self.head_width,) * self.head_layers

    @property
    def mask_in_observation(self) -> str | None:
        """The key of a Dict observation that is an action mask; None: there is none."""
        return self.action_mask_key if self.action_mask == "observation" else None

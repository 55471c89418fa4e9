"""Configuration of the networks around the memory."""

from dataclasses import dataclass
from typing import Literal

from xlstm_rl.options.fields import Count, CountOrZero
from xlstm_rl.options.section import Section


@dataclass(frozen=True)
class PolicyConfig(Section):
    """Encoder and heads of a policy, and whether actor and critic share one memory."""

    section = "policy"

    encoder_layers: CountOrZero = 1
    """Layers with activation between the observation and the memory (0: a bare projection)."""

    head_layers: CountOrZero = 1
    """Hidden layers of the action head and of the value head (0: one bare projection)."""

    head_width: Count = 64
    """Width of the hidden layers in the heads."""

    activation: Literal["tanh", "relu", "silu"] = "tanh"
    """Activation of the encoder and of the heads."""

    critic: Literal["shared", "separate"] = "separate"
    """`shared`: one encoder and memory feed both heads. `separate`: the critic has its own."""

    initial_log_std: float = 0.0
    """Starting log standard deviation of Gaussian actions, in units of half the action range."""

    action_std: Literal["free", "state"] = "free"
    """Standard deviation of Gaussian actions: `free` parameters, or from the `state`."""

    action_bounds: Literal["clip", "tanh"] = "clip"
    """How Gaussian actions keep their bounds: samples beyond one are clipped on their way to the
    environment, or every sample goes through a tanh whose slope is in the log-probability."""

    image_encoder: Literal["auto", "nature", "impala", "flat"] = "auto"
    """Encoder of uint8 images: Nature DQN's convolutions, IMPALA's residual ones, or one linear
    layer on the pixels. auto: nature, or impala where a side is below 36 pixels."""

    image_layout: Literal["auto", "hwc", "chw"] = "auto"
    """Order of an image's axes. auto: the shorter one of the first and the last is the channels."""

    previous_action: bool = False
    """Feed the memory with the action before, zeros at the first step of an episode."""

    previous_reward: bool = False
    """Feed the memory with the reward of the action before, zero at the first step."""

    first_step: bool = False
    """Feed the memory with a flag that is one at the first step of an episode."""

    action_mask: Literal["none", "info", "observation"] = "none"
    """Where the environment says which actions are allowed: nowhere, in the step's `info`, or in
    the Dict `observation`, of which the mask is then no part that the memory sees."""

    action_mask_key: str = "action_mask"
    """The key of the mask there."""

    @property
    def mask_in_observation(self) -> str | None:
        """The key of a Dict observation that is an action mask; None: there is none."""
        return self.action_mask_key if self.action_mask == "observation" else None

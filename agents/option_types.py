"""The keys of each section, for completion in editors and for type checkers.

Written by `.ci/write_option_types.py` from the classes of options; a test holds them equal.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict


class EnvOptions(TypedDict, total=False):
    """Options of `env`."""

    id: str
    num_envs: int
    vectorization: Literal["auto", "sync", "async", "native", "envpool"]
    autoreset: Literal["auto", "same_step", "next_step", "disabled"]
    kwargs: Mapping[str, Any]
    max_episode_steps: int | None
    wrappers: Mapping[str, Any]
    on_error: Literal["stop", "restart"]
    info_keywords: Sequence[str]


class NormalizationOptions(TypedDict, total=False):
    """Options of `normalization`."""

    observation: bool
    reward: bool
    clip_observation: float
    clip_reward: float


class MemoryOptions(TypedDict, total=False):
    """Options of `memory`."""

    kind: str
    width: int
    pattern: str
    num_blocks: int | None
    num_heads: int
    conv1d_kernel_size: int
    proj_factor: float
    qkv_block_size: int
    feedforward_proj_factor: float
    feedforward_activation: Literal["gelu", "relu", "relu^2", "sigmoid", "swish", "selu"]
    round_to: int
    forget_gate: Literal["sigmoid", "exponential"]
    input_gate: Literal["exponential", "sigmoid"]
    normalizer: bool
    final_norm: bool
    bias: bool
    feedforward_bias: bool
    slstm_num_heads: int | None
    slstm_conv1d_kernel_size: int | None
    chunk_size: int
    backend: Literal["auto", "reference", "torch", "native", "triton"]
    frames: int
    hidden_width: int | None
    state_factor: int
    window: int
    feedforward_factor: int
    gating: Literal["residual", "gru"]
    state_size: int
    lora_rank: int


class ActionDistributionOptions(TypedDict, total=False):
    """Options of `policy.action_distribution`."""

    kind: str
    std: Literal["free", "state", "gsde"]
    resample_steps: int
    initial_log_std: float | Literal["auto"]
    bounds: Literal["clip", "tanh"]


class PolicyOptions(TypedDict, total=False):
    """Options of `policy`."""

    encoder: str
    encoder_kwargs: Mapping[str, Any]
    encoder_layers: int
    head_layers: int
    head_width: int
    head_widths: Sequence[int] | None
    activation: Literal["tanh", "relu", "silu"]
    critic: Literal["shared", "separate"]
    share_encoder: bool
    action_distribution: ActionDistributionOptions | Mapping[str, Any] | str
    image_encoder: Literal["auto", "nature", "impala", "flat"]
    image_layout: Literal["auto", "hwc", "chw"]
    previous_action: bool | Literal["auto"]
    previous_reward: bool
    first_step: bool
    action_mask: Literal["none", "info", "observation"]
    action_mask_key: str


class PPOOptions(TypedDict, total=False):
    """Options of `agent`."""

    algo: Literal["ppo"]
    rollout_steps: int | Literal["auto"]
    epochs: int
    learning_rate: float
    learning_rate_end: float
    learning_rate_schedule: str
    learning_rate_warmup: float
    optimizer: str
    optimizer_kwargs: Mapping[str, Any]
    gamma: float
    gae_lambda: float
    value_coef: float
    entropy_coef: float | Literal["auto"]
    entropy_coef_end: float
    entropy_coef_schedule: str
    log_barrier_coef: float
    log_barrier_coef_end: float
    log_barrier_coef_schedule: str
    max_grad_norm: float
    normalize_advantage: bool
    advantage_scale_decay: float
    step_baseline: bool
    log_interval: int
    actors: int | str
    max_staleness: int
    minibatches: int | Literal["auto"]
    segment_steps: int | None
    adam_eps: float
    clip: float
    clip_end: float
    clip_schedule: str
    value_clip: float | None
    target_kl: float | Literal["auto"] | None


class A2COptions(TypedDict, total=False):
    """Options of `agent`."""

    algo: Literal["a2c"]
    rollout_steps: int | Literal["auto"]
    epochs: int
    learning_rate: float
    learning_rate_end: float
    learning_rate_schedule: str
    learning_rate_warmup: float
    optimizer: str
    optimizer_kwargs: Mapping[str, Any]
    gamma: float
    gae_lambda: float
    value_coef: float
    entropy_coef: float | Literal["auto"]
    entropy_coef_end: float
    entropy_coef_schedule: str
    log_barrier_coef: float
    log_barrier_coef_end: float
    log_barrier_coef_schedule: str
    max_grad_norm: float
    normalize_advantage: bool
    advantage_scale_decay: float
    step_baseline: bool
    log_interval: int
    actors: int | str
    max_staleness: int
    advantages: Literal["gae", "n_step", "vtrace"]
    rho_bar: float
    c_bar: float
    optimizer_eps: float
    rmsprop_alpha: float


class LoggerOptions(TypedDict, total=False):
    """Options of `logger`."""

    kind: str | Sequence[str]
    project: str | None
    entity: str | None
    name: str | None
    group: str | None
    tags: Sequence[str]
    notes: str | None
    checkpoints: bool


class CheckpointOptions(TypedDict, total=False):
    """Options of `checkpoint`."""

    every_steps: int
    keep: int


class EvaluationOptions(TypedDict, total=False):
    """Options of `evaluation`."""

    every_steps: int
    episodes: int
    deterministic: bool

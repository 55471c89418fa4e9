"""Policies for the C export: every memory with every option, every kind of space."""

import copy

import numpy as np
import torch
from gymnasium import spaces

from xlstm_rl.export.step import ExportedStep

from .conftest import BOX, CASES, NESTED

PATTERNS = {
    "m": {"pattern": "m"},
    "s": {"pattern": "s"},
    "msm, odd sizes": {"pattern": "msm", "width": 12, "num_heads": 3, "round_to": 12},
    "m, no convolution": {"pattern": "m", "conv1d_kernel_size": 0},
    "s, no convolution": {"pattern": "s", "conv1d_kernel_size": 0},
    "m, two taps": {"pattern": "m", "conv1d_kernel_size": 2},
    "ms, exponential gates": {"pattern": "ms", "forget_gate": "exponential"},
    "m, biases": {"pattern": "m", "bias": True},
    "m, dense q, k, v": {"pattern": "m", "qkv_block_size": 32, "round_to": 32},
    "m, one head": {"pattern": "m", "num_heads": 1, "round_to": 32},
    "m, heads of one": {"pattern": "m", "num_heads": 16, "round_to": 16, "proj_factor": 1.0},
    "s, biases": {"pattern": "s", "feedforward_bias": True, "feedforward_activation": "selu"},
    "s, relu^2": {"pattern": "s", "feedforward_activation": "relu^2"},
    "s, relu": {"pattern": "s", "feedforward_activation": "relu"},
    "s, sigmoid": {"pattern": "s", "feedforward_activation": "sigmoid"},
    "s, swish": {"pattern": "s", "feedforward_activation": "swish"},
    "s, no feed-forward": {"pattern": "s", "feedforward_proj_factor": 0},
    "s, its own heads": {"pattern": "ms", "slstm_num_heads": 4, "slstm_conv1d_kernel_size": 3},
    "no last norm": {"pattern": "ms", "final_norm": False},
    "lstm of two layers": {"kind": "lstm", "num_blocks": 2},
    "gru of two layers": {"kind": "gru", "num_blocks": 2, "width": 13},
    "mlp of two layers": {"kind": "mlp", "num_blocks": 2},
    "framestack of two frames": {"kind": "framestack", "frames": 2, "num_blocks": 2, "width": 13},
    "mingru of two layers": {"kind": "mingru", "num_blocks": 2, "width": 13},
    "transformer with gates": {
        "kind": "transformer",
        "num_blocks": 2,
        "window": 5,
        "gating": "gru",
        "width": 14,
        "num_heads": 3,
    },
    "transformer of a window of two": {"kind": "transformer", "window": 2, "final_norm": False},
    "mamba2 of odd sizes": {
        "kind": "mamba2",
        "num_blocks": 2,
        "width": 11,
        "num_heads": 3,
        "state_size": 5,
        "conv1d_kernel_size": 2,
    },
    "rwkv of odd sizes": {
        "kind": "rwkv",
        "num_blocks": 2,
        "width": 11,
        "num_heads": 3,
        "feedforward_factor": 3,
        "lora_rank": 3,
    },
}
"""Options of memories."""

GRU = {"kind": "gru"}
BITS = spaces.MultiBinary((2, 2))
CHOICES = spaces.MultiDiscrete([2, 3], start=[1, -4])
IMAGE = spaces.Box(0, 255, (36, 38, 3), np.uint8)

SPACES = {
    "choices with a start": (spaces.Discrete(4, start=-3), spaces.Discrete(3, start=7), GRU, {}),
    "choices side by side": (CHOICES, CHOICES, GRU, {"previous_action": True}),
    "bits": (BITS, BITS, GRU, {"previous_action": True}),
    "integers": (spaces.Box(-9, 9, (3,), np.int32), spaces.Discrete(2), GRU, {}),
    "bools": (spaces.Box(0, 1, (3,), np.bool_), spaces.Discrete(2), GRU, {"activation": "silu"}),
    "double numbers": (
        spaces.Box(-1e6, 1e6, (2,), np.float64),
        spaces.Box(-2, 3, (2, 2), np.float64),
        GRU,
        {"previous_action": True, "activation": "relu"},
    ),
    "bounds of all kinds": (
        BOX,
        spaces.Box(np.float32([-np.inf, 0, -1, 2]), np.float32([np.inf, np.inf, 1, 2])),
        GRU,
        {"previous_action": True, "head_widths": [8, 4]},
    ),
    "squashed, deviation of the state": (
        BOX,
        spaces.Box(np.float32([-1, -np.inf]), np.float32([1, np.inf])),
        GRU,
        {"action_distribution": {"bounds": "tanh", "std": "state"}, "previous_action": True},
    ),
    "a tuple of everything": (
        spaces.Tuple((BOX, CHOICES, BITS, spaces.Discrete(3))),
        spaces.Tuple((spaces.Discrete(3, start=5), CHOICES, BITS, spaces.Box(-1, 1, (2,)))),
        GRU,
        {"previous_action": True, "previous_reward": True, "first_step": True},
    ),
    "masks of bits and choices in the observation": (
        spaces.Dict(
            {
                "mask": spaces.Dict(
                    {
                        "bits": spaces.MultiDiscrete([3, 3]),
                        "pair": spaces.Tuple((spaces.MultiBinary(2), spaces.MultiBinary(3))),
                    }
                ),
                "x": BOX,
            }
        ),
        spaces.Dict(
            {
                "bits": spaces.MultiBinary(2),
                "free": spaces.Box(-1, 1, (1,)),
                "pair": spaces.MultiDiscrete([2, 3]),
            }
        ),
        GRU,
        {"action_mask": "observation", "action_mask_key": "mask"},
    ),
    "no layers": (BOX, spaces.Discrete(3), GRU, {"encoder_layers": 0, "head_layers": 0}),
    "three layers": (NESTED, spaces.Discrete(3), GRU, {"encoder_layers": 3, "head_layers": 2}),
    "image, nature": (IMAGE, spaces.Discrete(3), GRU, {}),
    "image, impala": (
        spaces.Box(0, 255, (9, 7, 3), np.uint8),
        spaces.Discrete(3),
        GRU,
        {"image_encoder": "impala"},
    ),
    "image, channels first": (
        spaces.Box(0, 255, (3, 36, 38), np.uint8),
        spaces.Discrete(3),
        GRU,
        {},
    ),
    "image, no channels": (
        spaces.Box(0, 7, (6, 5), np.uint8),
        spaces.Discrete(3),
        GRU,
        {"image_encoder": "flat"},
    ),
}
"""Spaces, and options of policies."""

ALL = {
    **CASES,
    **{name: (BOX, spaces.Discrete(3), options, {}) for name, options in PATTERNS.items()},
    **SPACES,
}


class ExactStep:
    """A step in double precision, with the numbers of single precision going in and coming out."""

    def __init__(self, step: ExportedStep) -> None:
        self.policy, self.ports = step.policy, step.ports
        self._step = copy.deepcopy(step)
        self._step.policy.double()

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Take a step."""
        count = len(inputs) - len(self.ports.state)
        found = self._step(*inputs[:count], *(one.double() for one in inputs[count:]))
        actions = len(self.ports.action)
        return (*found[:actions], *(one.float() for one in found[actions:]))

"""The blocks that an xLSTM is compared with, as statements of C."""

import math
from collections.abc import Callable

import torch

from xlstm_rl.export.c.network import run_layers
from xlstm_rl.export.c.program import Program, Vector
from xlstm_rl.memory.frame_stack import FrameStackBlock
from xlstm_rl.memory.mamba2 import Mamba2Block
from xlstm_rl.memory.min_gru import MinGRUBlock
from xlstm_rl.memory.rwkv import RWKVBlock
from xlstm_rl.memory.transformer import GRUGate, TransformerBlock

Fields = dict[str, object]


def call_layer(
    program: Program, layer: str, number: int, fields: Fields, state: int, x: Vector, work: int
) -> Vector:
    """Write the constants of a block and the call of its step, which overwrites x; return x."""
    parts = ", ".join(f".{field} = {value}" for field, value in fields.items())
    scratch = program.shared(work)
    program.include(f"{layer}.h")
    program.say(
        f"const {layer} block_{number} = {{{parts}}};",
        f"{layer}_step(&block_{number}, state + {state}, {x.at}, {scratch.at});",
    )
    return x


def frame_stack(
    program: Program, block: FrameStackBlock, number: int, state: int, x: Vector
) -> Vector:
    """Write an MLP over the last steps."""
    past = (block.frames - 1) * x.size
    frames = program.vector(past + x.size)
    own = f"state + {state}"
    program.say(
        f"memcpy({frames.at}, {own}, {past} * sizeof(float));",
        f"memcpy({frames.at} + {past}, {x.at}, {x.size} * sizeof(float));",
        f"memcpy({own}, {frames.at} + {x.size}, {past} * sizeof(float));",
    )
    return run_layers(program, list(block.network), frames)


def min_gru(program: Program, block: MinGRUBlock, number: int, state: int, x: Vector) -> Vector:
    """Write a minGRU block."""
    program.include("min_gru_layer.h")
    inner = block.out.in_features
    work = program.shared(x.size + 2 * inner)
    program.say(
        f"min_gru_step({x.size}, {inner}, {program.floats(block.norm.weight)}, "
        f"(matrix){program.matrix(block.gates.weight)}, {program.floats(block.gates.bias)}, "
        f"(matrix){program.matrix(block.out.weight)}, {program.floats(block.out.bias)}, "
        f"state + {state}, {x.at}, {work.at});"
    )
    return x


def rwkv(program: Program, block: RWKVBlock, number: int, state: int, x: Vector) -> Vector:
    """Write an RWKV-6 block."""
    p, inner = program, block.heads * block.size
    rank, hidden = block.decay_in.out_features, block.channel_key.out_features
    heads = (block.read, block.key, block.value, block.gate)
    matrices = {
        "lora_in": block.lora_in,
        "decay_in": block.decay_in,
        "decay_out": block.decay_out,
        "out": block.out,
        "channel_key": block.channel_key,
        "channel_value": block.channel_value,
        "channel_read": block.channel_read,
    }
    vectors = {
        "time_norm": block.time_norm.weight,
        "channel_norm": block.channel_norm.weight,
        "mix_x": block.mix_x,
        "mix": block.mix,
        "lora_out": block.lora_out,
        "decay_bias": block.decay_out.bias,
        "bonus": block.bonus,
        "head_norm": block.head_norm,
        "channel_mix": block.channel_mix,
    }
    fields: Fields = {"D": x.size, "H": block.heads, "K": block.size, "R": rank, "F": hidden}
    fields["heads"] = "{" + ", ".join(p.matrix(one.weight) for one in heads) + "}"
    fields |= {name: p.matrix(one.weight) for name, one in matrices.items()}
    fields |= {name: p.floats(one) for name, one in vectors.items()}
    work = 4 * x.size + 6 * inner + 6 * rank + hidden
    return call_layer(p, "rwkv_layer", number, fields, state, x, work)


def mamba2(program: Program, block: Mamba2Block, number: int, state: int, x: Vector) -> Vector:
    """Write a Mamba-2 block."""
    p, (inner, _, heads), size = program, block.sizes, block.state_size
    fields: Fields = {
        "D": x.size,
        "H": heads,
        "P": block.head_size,
        "N": size,
        "W": block.conv_weight.shape[1],
        "project": p.matrix(block.project.weight),
        "out": p.matrix(block.out.weight),
        "norm": p.floats(block.norm.weight),
        "taps": p.floats(block.conv_weight.t()),
        "taps_bias": p.floats(block.conv_bias),
        "a": p.floats(block.rate()),
        "step_bias": p.floats(block.step_bias),
        "skip": p.floats(block.skip),
        "inner_norm": p.floats(block.inner_norm),
    }
    work = x.size + 5 * inner + 4 * size + heads + heads * size
    return call_layer(p, "mamba2_layer", number, fields, state, x, work)


def transformer(
    program: Program, block: TransformerBlock, number: int, state: int, x: Vector
) -> Vector:
    """Write a layer of a transformer."""
    p, inner, past = program, block.heads * block.size, block.window - 1
    half, hidden = block.size // 2, block.up.out_features
    steps = torch.arange(half, dtype=torch.float64)
    turns = torch.exp(-math.log(10_000.0) / half * steps)
    angles = torch.arange(block.window, dtype=torch.float64)[:, None] * turns
    fields: Fields = {
        "D": x.size,
        "H": block.heads,
        "K": block.size,
        "past": past,
        "F": hidden,
        "qkv": p.matrix(block.qkv.weight),
        "out": p.matrix(block.out.weight),
        "up": p.matrix(block.up.weight),
        "down": p.matrix(block.down.weight),
        "attention_norm": p.floats(block.attention_norm.weight),
        "norm": p.floats(block.norm.weight),
        "up_bias": p.floats(block.up.bias),
        "down_bias": p.floats(block.down.bias),
        "cosine": p.floats(angles.cos()),
        "sine": p.floats(angles.sin()),
    }
    joins = [one for one in (block.join_attention, block.join) if isinstance(one, GRUGate)]
    if joins:
        each: dict[str, Callable[[GRUGate], str]] = {
            "from_read": lambda one: p.matrix(one.from_read.weight),
            "from_stream": lambda one: p.matrix(one.from_stream.weight),
            "from_reset": lambda one: p.matrix(one.from_reset.weight),
            "gate_bias": lambda one: p.floats(one.bias),
        }
        for name, write in each.items():
            fields[name] = "{" + ", ".join(write(one) for one in joins) + "}"
    work = 8 * x.size + 4 * inner + block.size + past + 1 + hidden
    return call_layer(p, "transformer_layer", number, fields, state, x, work)

"""One step of a memory as statements of C."""

import math
from typing import Any

import torch
from torch import nn

from xlstm_rl.export.c.network import run_layers
from xlstm_rl.export.c.program import Program, Vector, refuse
from xlstm_rl.export.c.rivals import (
    Fields,
    call_layer,
    frame_stack,
    mamba2,
    min_gru,
    rwkv,
    transformer,
)
from xlstm_rl.kernels.layers import ACTIVATIONS
from xlstm_rl.kernels.mlstm.block import MLSTMBlockOptions, MLSTMBlockWeights
from xlstm_rl.kernels.slstm.block import SLSTMBlockOptions, SLSTMBlockWeights
from xlstm_rl.memory import Memory
from xlstm_rl.memory.baselines import GRUMemory, LSTMMemory, MLPMemory
from xlstm_rl.memory.frame_stack import FrameStackBlock
from xlstm_rl.memory.layers import LayerNorm
from xlstm_rl.memory.mamba2 import Mamba2Block
from xlstm_rl.memory.min_gru import MinGRUBlock
from xlstm_rl.memory.mlstm_block import MLSTMBlock
from xlstm_rl.memory.residual import ResidualStack
from xlstm_rl.memory.rwkv import RWKVBlock
from xlstm_rl.memory.slstm_block import SLSTMBlock
from xlstm_rl.memory.transformer import TransformerBlock


def run_memory(program: Program, memory: Memory, state: int, x: Vector) -> Vector:
    """Write one step of a memory whose state begins at a float of the policy's; x is overwritten.

    The state's tensors lie one after the other, in the order of `state_keys`.
    """
    if type(memory) in (LSTMMemory, GRUMemory):
        return _recurrent(program, memory, state, x)
    if type(memory) is MLPMemory:
        return run_layers(program, list(memory.network), x)
    if not isinstance(memory, ResidualStack):
        refuse(f"the memory {type(memory).__name__}")
    for number, block in enumerate(memory.blocks):
        write: Any = _BLOCKS.get(type(block))
        if write is None:
            refuse(f"the block {type(block).__name__}")
        x = write(program, block, number, state, x)
        shapes: Any = block.state_shapes
        state += sum(math.prod(shape) for shape in shapes.values())
    if isinstance(memory.norm, LayerNorm):
        weight = program.floats(memory.norm.weight)
        program.say(f"norm({x.size}, {weight}, {x.at}, {x.at});")
    return x


def _rows(blocks: torch.Tensor) -> torch.Tensor:
    """Return blocks `[..., from, to]` as a matrix whose rows are outputs."""
    return blocks.transpose(-1, -2).flatten(0, -2)


def _refuse_ablated(options: MLSTMBlockOptions | SLSTMBlockOptions) -> None:
    if options.is_ablated:
        refuse("memory.input_gate=sigmoid or memory.normalizer=false")


def _mlstm(program: Program, block: MLSTMBlock, number: int, state: int, x: Vector) -> Vector:
    w: MLSTMBlockWeights
    options: MLSTMBlockOptions
    w, options = block.as_function()
    _refuse_ablated(options)
    inner, heads, p = w.skip.shape[0], options.num_heads, program
    taps = 0 if w.conv is None else w.conv.shape[1]
    fields: Fields = {
        "D": x.size,
        "I": inner,
        "H": heads,
        "W": taps,
        "S": w.qkv.shape[1],
        "exponential": int(options.forget_gate == "exponential"),
        "up": p.matrix(w.up),
        "qkv": p.matrix(_rows(w.qkv)),
        "gate": p.matrix(w.gate),
        "down": p.matrix(w.down),
        "norm": p.floats(w.norm),
        "up_bias": p.floats(w.up_bias),
        "taps": p.floats(None if w.conv is None else w.conv.t()),
        "taps_bias": p.floats(w.conv_bias),
        "qkv_bias": p.floats(w.qkv_bias),
        "gate_bias": p.floats(w.gate_bias),
        "head_norm": p.floats(w.head_norm),
        "skip": p.floats(w.skip),
        "down_bias": p.floats(w.down_bias),
    }
    work = x.size + 8 * inner + 2 * heads
    return call_layer(program, "mlstm_layer", number, fields, state, x, work)


def _slstm(program: Program, block: SLSTMBlock, number: int, state: int, x: Vector) -> Vector:
    w: SLSTMBlockWeights
    options: SLSTMBlockOptions
    w, options = block.as_function()
    _refuse_ablated(options)
    p = program
    hidden = 0 if w.down is None else w.down.shape[1]
    fields: Fields = {
        "D": x.size,
        "H": options.num_heads,
        "W": 0 if w.conv is None else w.conv.shape[1],
        "F": hidden,
        "exponential": int(options.forget_gate == "exponential"),
        "unit": list(ACTIVATIONS).index(options.activation),
        "input": p.matrix(_rows(w.input)),
        "recurrent": p.matrix(_rows(w.R)),
        **({"up": p.matrix(w.up)} if w.up is not None else {}),
        **({"down": p.matrix(w.down)} if w.down is not None else {}),
        "norm": p.floats(w.norm),
        "taps": p.floats(None if w.conv is None else w.conv.t()),
        "taps_bias": p.floats(w.conv_bias),
        "bias": p.floats(w.b),
        "head_norm": p.floats(w.head_norm),
        "ff_norm": p.floats(w.feed_forward_norm),
        "up_bias": p.floats(w.up_bias),
        "down_bias": p.floats(w.down_bias),
    }
    work = 11 * x.size + 2 * hidden
    return call_layer(program, "slstm_layer", number, fields, state, x, work)


def _recurrent(program: Program, memory: Memory, state: int, x: Vector) -> Vector:
    """Write an LSTM or a GRU; the state holds h of all layers, then c."""
    program.include("recurrent_layer.h")
    network = memory.network
    assert isinstance(network, nn.LSTM | nn.GRU)
    is_lstm, layers = isinstance(network, nn.LSTM), network.num_layers
    work = program.shared((13 if is_lstm else 7) * x.size)
    for layer in range(layers):
        w_ih, w_hh, b_ih, b_hh = (getattr(network, n) for n in network._all_weights[layer])
        places = [f"state + {state + (layers * k + layer) * x.size}" for k in range(1 + is_lstm)]
        arguments = (
            f"(matrix){program.matrix(w_ih)}",
            program.floats(b_ih),
            f"(matrix){program.matrix(w_hh)}",
            program.floats(b_hh),
            *places,
        )
        call = "lstm_layer_step" if is_lstm else "gru_layer_step"
        program.say(f"{call}({x.size}, {', '.join(arguments)}, {x.at}, {work.at});")
    return x


_BLOCKS: dict[type[nn.Module], Any] = {
    MLSTMBlock: _mlstm,
    SLSTMBlock: _slstm,
    FrameStackBlock: frame_stack,
    MinGRUBlock: min_gru,
    RWKVBlock: rwkv,
    Mamba2Block: mamba2,
    TransformerBlock: transformer,
}

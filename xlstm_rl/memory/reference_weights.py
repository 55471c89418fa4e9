"""Take over the weights of an xLSTM stack of the PyPI package `xlstm`.

The package itself is not imported: the stack that comes in brings all that is needed. Where its
parts are named or stored otherwise than one would think, a comment says so.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from xlstm_rl.kernels.layers import ACTIVATIONS
from xlstm_rl.memory.config import XLSTMConfig
from xlstm_rl.memory.mlstm_block import MLSTMBlock
from xlstm_rl.memory.slstm_block import SLSTMBlock
from xlstm_rl.memory.stack import XLSTMStack

# options of its sLSTM cell that change the equations, and the only value we know
_SLSTM_FIXED: dict[str, object] = {
    "function": "slstm",
    "gradient_recurrent_cut": False,
    "gradient_recurrent_clipval": None,
    "forward_clipval": None,
}


def from_reference(stack: nn.Module) -> XLSTMStack:
    """Build a memory with the weights and the outputs of an `xLSTMBlockStack`.

    Args:
        stack: An `xLSTMBlockStack` of the PyPI package `xlstm` 2.0, with any mix of blocks.

    Returns:
        A memory on the same device and of the same dtype, with copies of the weights.

    Raises:
        ValueError: If it is something else, or a field of its configuration has a value that
            these memories cannot express; the message names the field.
    """
    if not hasattr(stack, "blocks") or not hasattr(stack, "post_blocks_norm"):
        raise ValueError(
            f"from_reference got a {type(stack).__name__}, expected an xLSTMBlockStack of the "
            "PyPI package xlstm; of an xLSTMLMModel pass its xlstm_block_stack"
        )
    source: Any = stack
    for module in stack.modules():
        if isinstance(module, nn.Dropout) and module.p > 0:
            raise ValueError(
                f"the stack has dropout={module.p}, but memories have none (acting and training "
                "would differ); build it with dropout=0.0"
            )
    memory = XLSTMStack(_read_config(source))
    example = next(stack.parameters())
    memory.to(device=example.device, dtype=example.dtype)
    with torch.no_grad():
        for block, ours in zip(source.blocks, memory.blocks, strict=True):
            if isinstance(ours, MLSTMBlock):
                _copy_mlstm(ours, block)
            elif isinstance(ours, SLSTMBlock):
                _copy_slstm(ours, block)
        if isinstance(memory.norm, nn.LayerNorm):
            _copy_norm(memory.norm.weight, source.post_blocks_norm)
    return memory


def _read_config(stack: Any) -> XLSTMConfig:
    """Describe the stack as a configuration of ours."""
    pattern = "".join("m" if b.config.mlstm is not None else "s" for b in stack.blocks)
    options: dict[str, Any] = {
        "pattern": pattern,
        "num_blocks": len(pattern),
        "width": stack.config.embedding_dim,
        "final_norm": not isinstance(stack.post_blocks_norm, nn.Identity),
        "round_to": 64,
    }
    if "s" in pattern:
        _read_slstm(stack.blocks[pattern.index("s")].config, options)
    if "m" in pattern:
        _read_mlstm(stack.blocks[pattern.index("m")].config.mlstm, options)
    return XLSTMConfig(**options)


def _read_slstm(block: Any, options: dict[str, Any]) -> None:
    cell, feed_forward = block.slstm, block.feedforward
    for field, known in _SLSTM_FIXED.items():
        value = getattr(cell, field)
        if value != known:
            raise ValueError(
                f"slstm_block.slstm.{field}={value!r} cannot be taken over; only {known!r} can"
            )
    options["num_heads"] = cell.num_heads
    options["conv1d_kernel_size"] = cell.conv1d_kernel_size
    if feed_forward is None:
        options["feedforward_proj_factor"] = 0.0
        return
    if feed_forward.ff_type != "ffn_gated" or feed_forward.act_fn not in ACTIVATIONS:
        raise ValueError(
            f"slstm_block.feedforward.ff_type={feed_forward.ff_type!r} with "
            f"act_fn={feed_forward.act_fn!r} cannot be taken over; use 'ffn_gated' with one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    hidden = feed_forward._proj_up_dim
    options["round_to"] = math.gcd(options["round_to"], hidden)
    options["feedforward_proj_factor"] = hidden / options["width"]
    options["feedforward_activation"] = feed_forward.act_fn
    options["feedforward_bias"] = feed_forward.bias


def _read_mlstm(layer: Any, options: dict[str, Any]) -> None:
    if options.get("num_heads", layer.num_heads) != layer.num_heads:
        options["slstm_num_heads"] = options["num_heads"]
    if options.get("conv1d_kernel_size", layer.conv1d_kernel_size) != layer.conv1d_kernel_size:
        options["slstm_conv1d_kernel_size"] = options["conv1d_kernel_size"]
    options["num_heads"] = layer.num_heads
    options["conv1d_kernel_size"] = layer.conv1d_kernel_size
    options["qkv_block_size"] = layer.qkv_proj_blocksize
    options["bias"] = layer.bias
    options["round_to"] = math.gcd(options["round_to"], layer._inner_embedding_dim)
    options["proj_factor"] = layer._inner_embedding_dim / options["width"]


def _copy_mlstm(ours: MLSTMBlock, block: Any) -> None:
    layer = block.xlstm
    _copy_norm(ours.norm.weight, block.xlstm_norm)
    _copy_linear(ours.up, layer.proj_up)
    _copy_linear(ours.down, layer.proj_down)
    _copy_conv(ours, layer)
    projections = (layer.q_proj, layer.k_proj, layer.v_proj)
    # stored as [block, to, from]
    _copy(ours.qkv_weight, torch.cat([p.weight for p in projections]).transpose(1, 2))
    if ours.qkv_bias is not None:
        _copy(ours.qkv_bias, torch.cat([p.bias for p in projections]))
    cell = layer.mlstm_cell
    _copy(ours.gate_weight, torch.cat([cell.igate.weight, cell.fgate.weight]))
    _copy(ours.gate_bias, torch.cat([cell.igate.bias, cell.fgate.bias]))
    _copy_norm(ours.head_norm_weight, cell.outnorm)
    _copy(ours.skip, layer.learnable_skip)


def _copy_slstm(ours: SLSTMBlock, block: Any) -> None:
    layer, cell = block.xlstm, block.xlstm.slstm_cell
    _copy_norm(ours.norm.weight, block.xlstm_norm)
    _copy_conv(ours, layer)
    # its forward pass feeds the gate i from the module `fgate`, and f from `igate`
    gates = (layer.fgate, layer.igate, layer.zgate, layer.ogate)
    _copy(ours.input_weight, torch.stack([g.weight for g in gates]).transpose(2, 3))
    # `clone` of these proxies is [head, from, gate, to] and [head, gate, to] in every backend
    _copy(ours.recurrent_weight, cell.recurrent_kernel.clone().permute(2, 0, 1, 3))
    _copy(ours.gate_bias, cell.bias.clone().transpose(0, 1))
    _copy_norm(ours.head_norm_weight, layer.group_norm)
    if ours.feed_forward is not None and ours.feed_forward_norm is not None:
        _copy_norm(ours.feed_forward_norm.weight, block.ffn_norm)
        _copy_linear(ours.feed_forward.up, block.ffn.proj_up)
        _copy_linear(ours.feed_forward.down, block.ffn.proj_down)


def _copy_conv(ours: MLSTMBlock | SLSTMBlock, layer: Any) -> None:
    if ours.conv_window:
        _copy(ours.conv_weight, layer.conv1d.conv.weight.squeeze(1))
        _copy(ours.conv_bias, layer.conv1d.conv.bias)


def _copy_linear(ours: nn.Linear, linear: Any) -> None:
    _copy(ours.weight, linear.weight)
    if ours.bias is not None:
        _copy(ours.bias, linear.bias)


def _copy_norm(ours: Tensor, norm: Any) -> None:
    # stored as its distance from 1, or absent, which is 1 as well
    weight = norm.weight_proxy
    _copy(ours, torch.ones_like(ours) if weight is None else weight)


def _copy(ours: Tensor, theirs: Tensor) -> None:
    """Copy without broadcasting: a shape that differs would fill ours with repeats."""
    if ours.shape != theirs.shape:
        raise ValueError(
            f"a weight of the stack has shape {list(theirs.shape)}, expected {list(ours.shape)}: "
            "the stack's blocks of one kind must share one configuration"
        )
    ours.copy_(theirs)

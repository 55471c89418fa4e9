"""Matrices rounded to bytes, as a policy of torch: what a file of int8 weights computes with."""

import numpy as np
import torch
from torch import Tensor, nn

from xlstm_rl.export.c.weights import row_scales
from xlstm_rl.memory.mlstm_block import MLSTMBlock
from xlstm_rl.memory.slstm_block import SLSTMBlock


@torch.no_grad()
def round_weights(policy: nn.Module) -> None:
    """Round every matrix to 255 levels for each of its outputs.

    Embeddings, biases, norms and the taps of convolutions over time stay as they are.
    """
    for module in policy.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            _round(module.weight.view(module.weight.shape[0], -1))
        elif isinstance(module, nn.LSTM | nn.GRU):
            for names in module._all_weights:
                for name in names[:2]:
                    _round(getattr(module, name))
        elif isinstance(module, MLSTMBlock):
            _round(module.gate_weight)
            _round_blocks(module.qkv_weight)
        elif isinstance(module, SLSTMBlock):
            _round_blocks(module.input_weight)
            _round_blocks(module.recurrent_weight)


def _round_blocks(blocks: Tensor) -> None:
    """Round blocks `[..., from, to]`."""
    rows = blocks.transpose(-1, -2).reshape(-1, blocks.shape[-2])
    _round(rows)
    turned = rows.view(*blocks.shape[:-2], blocks.shape[-1], blocks.shape[-2])
    blocks.copy_(turned.transpose(-1, -2))


def _round(rows: Tensor) -> None:
    values = rows.numpy()
    scales = row_scales(values)[:, None]
    rows.copy_(torch.from_numpy(np.rint(values / scales).astype(np.float32) * scales))

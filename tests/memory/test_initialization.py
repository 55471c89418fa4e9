"""Fresh weights are distributed as published (xLSTM paper, appendix, and its package)."""

import math

import pytest
import torch
from torch import Tensor

from xlstm_rl.memory import MemoryConfig, XLSTMStack
from xlstm_rl.memory.mlstm_block import MLSTMBlock
from xlstm_rl.memory.slstm_block import SLSTMBlock

D, L = 256, 4


@pytest.fixture(scope="module")
def stack() -> XLSTMStack:
    torch.manual_seed(0)
    return XLSTMStack(MemoryConfig(pattern="msms", width=D))


def assert_normal(weight: Tensor, std: float) -> None:
    """The sample's mean and standard deviation lie within five of their standard errors."""
    count = weight.numel()
    assert abs(weight.mean().item()) < 5 * std / math.sqrt(count)
    assert abs(weight.std().item() / std - 1) < 5 / math.sqrt(2 * count)


def test_mlstm_block(stack: XLSTMStack) -> None:
    for index in (0, 2):
        block = stack.blocks[index]
        assert isinstance(block, MLSTMBlock)
        small = math.sqrt(2 / (5 * D))
        assert_normal(block.up.weight, small)
        assert_normal(block.qkv_weight, small)
        assert_normal(block.down.weight, 2 / (L * math.sqrt(D)))
        assert not block.gate_weight.any()
        expected = torch.tensor([3.0, 4.0, 5.0, 6.0])
        torch.testing.assert_close(block.gate_bias[4:].detach(), expected)
        assert (block.skip == 1).all()
        assert (block.head_norm_weight == 1).all()
        assert (block.norm.weight == 1).all()
        # uniform in +- 1/sqrt(taps), whose standard deviation is the bound / sqrt(3)
        assert block.conv_weight.abs().max() <= 0.5
        assert abs(block.conv_weight.std().item() - 0.5 / math.sqrt(3)) < 0.02


def test_input_gate_biases_of_mlstm_blocks() -> None:
    torch.manual_seed(0)
    stack = XLSTMStack(MemoryConfig(pattern="m", width=64, num_blocks=40, num_heads=8))
    biases = torch.cat([block.gate_bias[:8] for block in stack.blocks])
    assert_normal(biases, 0.1)


@pytest.mark.parametrize(("index", "exponent"), [(1, 0.3 + 1.3 / 3), (3, 1.6)])
def test_slstm_block(stack: XLSTMStack, index: int, exponent: float) -> None:
    block = stack.blocks[index]
    assert isinstance(block, SLSTMBlock)
    assert not block.recurrent_weight.any()
    assert_normal(block.input_weight, math.sqrt(2 / (5 * D)))
    head = D // 4
    expected = [-(-5 + 12 * (j / (head - 1)) ** exponent) for j in range(head)]
    for h in range(4):
        torch.testing.assert_close(block.gate_bias[1, h].detach(), torch.tensor(expected))
    assert not block.gate_bias[[0, 2, 3]].any()
    assert block.feed_forward is not None
    assert_normal(block.feed_forward.up.weight, math.sqrt(2 / (5 * D)))
    assert_normal(block.feed_forward.down.weight, 2 / (L * math.sqrt(D)))
    assert (block.head_norm_weight == 1).all()


@pytest.mark.parametrize("pattern", ["m", "s"])
def test_of_a_long_convolution_the_last_four_taps_are_drawn(pattern: str) -> None:
    stack = XLSTMStack(MemoryConfig(pattern=pattern, width=256, conv1d_kernel_size=16))
    taps = stack.blocks[0].conv_weight.detach()
    assert not taps[:, :-4].any()
    assert taps[:, -4:].abs().max() <= 0.5
    assert abs(taps[:, -4:].std().item() - 0.5 / math.sqrt(3)) < 0.02
    assert 0.4 < stack.blocks[0].conv_bias.detach().abs().max() <= 0.5


def test_heads_of_one_element_have_finite_biases() -> None:
    stack = XLSTMStack(MemoryConfig(pattern="s", width=8, num_heads=8))
    assert all(p.isfinite().all() for p in stack.parameters())


def test_fresh_weights_equal_those_of_the_package_in_distribution() -> None:
    """Same number of weights, and per weight tensor the same mean and spread."""
    xlstm = pytest.importorskip("xlstm", reason="the PyPI package xlstm is the oracle here")
    from xlstm_rl.memory import from_reference

    torch.manual_seed(0)
    reference = xlstm.xLSTMBlockStack(
        xlstm.xLSTMBlockStackConfig(
            mlstm_block=xlstm.mLSTMBlockConfig(),
            slstm_block=xlstm.sLSTMBlockConfig(
                slstm=xlstm.sLSTMLayerConfig(backend="vanilla"),
                feedforward=xlstm.FeedForwardConfig(proj_factor=4 / 3),
            ),
            context_length=8,
            num_blocks=L,
            embedding_dim=D,
            slstm_at=[1, 3],
        )
    )
    theirs = dict(from_reference(reference).named_parameters())
    ours = dict(XLSTMStack(MemoryConfig(pattern="ms", num_blocks=L, width=D)).named_parameters())
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        if weight.numel() < 500:  # too few for statistics; checked one by one above
            continue
        assert abs(weight.std() - theirs[name].std()) <= 0.1 * theirs[name].std() + 1e-6, name
        assert abs(weight.mean() - theirs[name].mean()) <= 0.15 * theirs[name].std() + 1e-6, name

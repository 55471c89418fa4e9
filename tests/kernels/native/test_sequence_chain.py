"""Chains over whole sequences: their norm, held to float64, and what they refuse.

Blocks, layers and cells have tests of their own; the policy's compare whole chains with modules.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xlstm_rl.kernels.layers import layer_norm
from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.library import native_threads
from xlstm_rl.kernels.native.sequence_chain import NotCoveredError, SequenceChain
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.memory.mlstm_block import MLSTMBlock

pytestmark = pytest.mark.skipif(not LOADED, reason="needs the native library")


class _Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))


def _chain(B: int, T: int, width: int) -> tuple[SequenceChain, Tensor]:
    module = _Norm(width)
    chain = SequenceChain(B, T, width, module, wants_dx=True)
    chain.norm(module.weight)
    return chain, module.weight


@pytest.mark.parametrize("scale, offset", [(1.0, 0.0), (1e-3, 0.0), (30.0, 100.0)])
@pytest.mark.parametrize(
    "B, T, width", [(1, 1, 64), (3, 7, 17), (2, 64, 128), (5, 3, 3), (1, 2, 1)]
)
def test_the_norm_is_that_of_float64(
    B: int, T: int, width: int, scale: float, offset: float
) -> None:
    torch.manual_seed(0)
    chain, weight = _chain(B, T, width)
    x, dy = scale * torch.randn(B, T, width) + offset, torch.randn(B, T, width)
    for _ in range(2):  # the second one in the buffers of the first
        y = chain.forward(x)
        found = chain.backward(dy)
    assert y is not None and found is not None
    dx, (dweight,) = found
    wide, wide_weight = x.double().requires_grad_(), weight.detach().double().requires_grad_()
    expected = layer_norm(wide, wide_weight)
    wanted = torch.autograd.grad(expected, (wide, wide_weight), dy.double())
    # x has a relative error of 2^-24, which the deviation divides
    atol = 1e-5 * (1 + offset / scale)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=atol)
    for mine, theirs in zip((dx, dweight), wanted, strict=True):
        assert mine is not None
        torch.testing.assert_close(
            mine.double(), theirs, rtol=1e-5, atol=atol * float(theirs.abs().max() + 1)
        )


def test_the_norm_is_the_same_for_any_number_of_threads() -> None:
    found = []
    for threads in (1, 2, 5):
        torch.manual_seed(0)
        with native_threads(threads):
            chain, _ = _chain(3, 50, 33)
            x, dy = torch.randn(3, 50, 33), torch.randn(3, 50, 33)
            y, back = chain.forward(x), chain.backward(dy)
        assert y is not None and back is not None and back[0] is not None
        found.append((y, back[0].clone(), *back[1]))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 5, 9),
        torch.randn(2, 4, 8),
        torch.randn(2, 5, 8).double(),
        torch.randn(2, 8, 5).transpose(1, 2),
    ],
    ids=["width", "steps", "dtype", "strides"],
)
def test_an_input_that_it_was_not_built_for_is_refused(x: Tensor) -> None:
    chain, _ = _chain(2, 5, 8)
    assert chain.forward(torch.randn(2, 5, 8)) is not None
    assert chain.forward(x) is None


@pytest.mark.parametrize("change", ["reset", "state", "missing", "weight"])
def test_resets_states_and_weights_are_looked_at(change: str) -> None:
    block = MLSTMBlock(MemoryConfig(width=16, num_heads=2), 1)  # type: ignore[arg-type]
    chain = SequenceChain(3, 6, 16, block, wants_dx=True)
    chain.mlstm(*block.as_function())
    x, reset = torch.randn(3, 6, 16), torch.zeros(3, 6, dtype=torch.bool)
    state: Any = [torch.zeros(3, *shape) for shape in block.state_shapes.values()]
    assert chain.forward(x, reset, tuple(state)) is not None
    if change == "reset":
        reset = torch.zeros(3, 5, dtype=torch.bool)
    elif change == "state":
        state[1] = state[1][:, :1]
    elif change == "missing":
        state = state[1:]
    else:
        block.skip = nn.Parameter(torch.zeros(5))
    assert chain.forward(x, reset, tuple(state)) is None


def test_weights_that_do_not_fit_each_other_are_refused_when_it_is_built() -> None:
    block = MLSTMBlock(MemoryConfig(width=16, num_heads=2), 1)  # type: ignore[arg-type]
    block.skip = nn.Parameter(torch.zeros(5))
    with pytest.raises(NotCoveredError):
        SequenceChain(3, 6, 16, block, wants_dx=True).mlstm(*block.as_function())
    layer = nn.Linear(3, 4)
    for inputs, activation in ((5, "tanh"), (3, "silu")):
        with pytest.raises(NotCoveredError):
            chain = SequenceChain(3, 6, inputs, layer, wants_dx=True)
            chain.layers([(layer.weight, layer.bias, activation)])


def test_what_is_not_finite_is_left_to_others() -> None:
    block = MLSTMBlock(MemoryConfig(width=16, num_heads=2), 1)  # type: ignore[arg-type]
    chain = SequenceChain(1, 6, 16, block, wants_dx=True)
    chain.mlstm(*block.as_function())
    state = tuple(torch.zeros(1, *shape) for shape in block.state_shapes.values())
    assert chain.forward(torch.full((1, 6, 16), float("nan")), None, state) is None

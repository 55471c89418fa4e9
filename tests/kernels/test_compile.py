"""The operations as torch.compile and export see them."""

import pytest
import torch

from xlstm_rl import kernels
from xlstm_rl.kernels.mlstm.ops import chunkwise_op
from xlstm_rl.kernels.slstm.ops import scan_op

RESET = torch.tensor([[False, True, False, False, True], [False] * 5])


def randn(*shape):
    return torch.randn(shape, requires_grad=True)


def mlstm_inputs():
    return randn(2, 5, 2, 4), randn(2, 5, 2, 4), randn(2, 5, 2, 3), randn(2, 5, 2), randn(2, 5, 2)


@pytest.mark.slow  # the next test does the same, smaller, every day
@pytest.mark.parametrize("with_state", [False, True])
def test_opcheck(with_state):
    state = [randn(2, 2, 4, 3), randn(2, 2, 4), randn(2, 2)] if with_state else [None] * 3
    torch.library.opcheck(chunkwise_op, (*mlstm_inputs(), RESET, *state, 2, "sigmoid"))
    state = [randn(2, 2, 3) for _ in range(4)] if with_state else [None] * 4
    args = (randn(2, 5, 4, 2, 3), randn(4, 2, 3, 3), randn(4, 2, 3), RESET, *state, "sigmoid")
    torch.library.opcheck(scan_op, args)


def test_opcheck_of_a_single_head_and_a_single_row():
    """Where a copy into another layout would be no copy, and outputs would share their memory."""
    state = randn(1, 1, 1, 3), randn(1, 1, 1), randn(1, 1)
    xs = randn(1, 5, 1, 1), randn(1, 5, 1, 1), randn(1, 5, 1, 3), randn(1, 5, 1), randn(1, 5, 1)
    torch.library.opcheck(chunkwise_op, (*xs, RESET[:1], *state, 2, "sigmoid"))
    state = [randn(2, 1, 3) for _ in range(4)]
    args = (randn(2, 5, 4, 1, 3), randn(4, 1, 3, 3), randn(4, 1, 3), RESET, *state, "sigmoid")
    torch.library.opcheck(scan_op, args)


def test_compiled_equals_eager():
    xs, w, R = mlstm_inputs(), randn(12, 4), randn(4, 2, 6, 6)

    # checks and ops trace without a break; the backend "aot_eager" needs no C++ compiler
    def run(*xs):
        h, state = kernels.mlstm(*xs, RESET)
        y, _ = kernels.causal_conv1d(h.flatten(2).repeat(1, 1, 2), w, None, RESET)
        s, _ = kernels.slstm(y[..., None].expand(2, 5, 12, 4).mT.unflatten(3, (2, 6)), R, R[..., 0])
        return h.sum() + s.sum() + sum(x.square().sum() for x in state)

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    got, want = compiled(*xs), run(*xs)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, xs), torch.autograd.grad(want, xs), strict=True):
        torch.testing.assert_close(a, b)

"""The hand-written backward passes refuse to be differentiated, instead of dropping terms."""

import pytest
import torch

from xlstm_rl import kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inputs(name):
    gen = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=gen).to(DEVICE).requires_grad_()

    B, T, H, K = 2, 3, 1, 4
    if name == "mlstm":
        return [randn(B, T, H, K) for _ in range(3)] + [randn(B, T, H), randn(B, T, H)]
    if name == "slstm":
        return [randn(B, T, 4, H, K), randn(4, H, K, K), randn(4, H, K)]
    return [randn(B, T, K), randn(K, 4), randn(K)]


FUNCTIONS = {
    "mlstm": kernels.mlstm,
    "slstm": kernels.slstm,
    "conv": kernels.causal_conv1d,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_are_refused_even_of_a_linear_loss(name, backend):
    xs = inputs(name)
    out, _ = FUNCTIONS[name](*xs, backend=backend)
    grads = torch.autograd.grad(out.sum(), xs, create_graph=True)
    with pytest.raises(RuntimeError, match='backend="reference"'):
        sum(g.square().sum() for g in grads).backward()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_create_graph_changes_no_gradient(name, backend):
    xs = inputs(name)
    kept, plain = (
        torch.autograd.grad(FUNCTIONS[name](*xs, backend=backend)[0].sum(), xs, create_graph=graph)
        for graph in (True, False)
    )
    torch.testing.assert_close(kept, plain, rtol=0, atol=0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_reference_has_them(name):
    xs = inputs(name)
    out, _ = FUNCTIONS[name](*xs, backend="reference")
    grads = torch.autograd.grad(out.sum(), xs, create_graph=True)
    sum(g.square().sum() for g in grads).backward()
    assert any(x.grad is not None and x.grad.any() for x in xs)

"""tanh in C: its accuracy, its gradients, and whatever torch may want of it."""

import pytest
import torch

from xlstm_rl.kernels.native import tanh as module
from xlstm_rl.kernels.native.tanh import tanh


@pytest.fixture
def calls(monkeypatch):
    made = []
    run = module.run

    def counted(name, arguments):
        made.append(arguments.count)
        return run(name, arguments)

    monkeypatch.setattr(module, "run", counted)
    return made


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 8191, 8192, 8193, 50_000])
def test_equals_float64(size, calls):
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)) * 4
    with torch.no_grad():
        torch.testing.assert_close(tanh(x).double(), x.double().tanh(), rtol=1e-6, atol=1e-37)
    assert calls == [size]


def test_every_magnitude_and_what_is_not_finite(calls):
    x = torch.cat([10.0 ** torch.linspace(-44, 38, 3000), torch.tensor([0.0, torch.inf, 0.625])])
    x = torch.cat([x, -x])
    torch.testing.assert_close(tanh(x).double(), x.double().tanh(), rtol=1e-6, atol=2e-45)
    assert torch.equal(tanh(x).sign(), x.sign())
    y = tanh(torch.tensor([1.0, torch.nan, -1.0]))
    assert y.isnan().tolist() == [False, True, False]
    assert len(calls) == 3


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_bits(threads):
    x, before = torch.randn(100_001), torch.get_num_threads()
    alone = tanh(x)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(tanh(x), alone)
    finally:
        torch.set_num_threads(before)


def test_strides_and_shapes(calls):
    x = torch.randn(6, 5, 4).transpose(0, 2)[:, 1:]
    torch.testing.assert_close(tanh(x), torch.tanh(x))
    assert tanh(torch.randn(())).shape == () and len(calls) == 2


def test_first_and_second_derivatives(calls):
    x = (2 * torch.randn(300)).requires_grad_()
    wide = x.detach().double().requires_grad_()
    weight = torch.randn(300)
    found, expected = [], []
    for y, z, out in ((tanh(x), x, found), (torch.tanh(wide), wide, expected)):
        (first,) = torch.autograd.grad((y * weight).sum(), z, create_graph=True)
        (second,) = torch.autograd.grad((first * first).sum(), z)
        out += [first, second]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)
    assert calls == [300]


def test_goes_to_torch_where_it_has_to(calls):
    x = torch.randn(8)
    _, tangent = torch.func.jvp(tanh, (x,), (torch.ones(8),))
    torch.testing.assert_close(tangent, 1 - torch.tanh(x) ** 2)
    slopes = torch.func.vmap(torch.func.grad(lambda one: tanh(one).sum()))(x)
    torch.testing.assert_close(slopes, tangent)
    assert torch.equal(tanh(x.double()), torch.tanh(x.double()))
    assert torch.equal(tanh(x.half()), torch.tanh(x.half()))
    assert tanh(x.to("meta")).is_meta
    traced = torch.jit.trace(tanh, x, check_trace=False)
    compiled = torch.compile(tanh, fullgraph=True, backend="eager")
    assert torch.equal(traced(x), torch.tanh(x)) and torch.equal(compiled(x), torch.tanh(x))
    assert calls == []

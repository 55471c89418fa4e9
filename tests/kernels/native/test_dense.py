"""Layers of encoders and heads in C: values, gradients, and whatever torch may want of them."""

import pytest
import torch
from torch.nn import functional

from xlstm_rl.kernels.native import dense as module
from xlstm_rl.kernels.native.dense import run_layers

FUNCTIONS = {"none": lambda x: x, "tanh": torch.tanh, "relu": torch.relu}

# rows, widths of the layers, activations
CASES = [
    ((1,), (128, 64, 2), ("tanh", "none")),
    ((4, 128), (128, 64, 1), ("tanh", "none")),
    ((3, 7), (2, 128), ("tanh",)),
    ((5,), (1, 1), ("relu",)),
    ((2, 3, 11), (17, 33, 5, 70), ("relu", "tanh", "none")),
    ((1000,), (31, 32, 32, 9), ("none", "relu", "tanh")),
    ((300,), (600, 7), ("none",)),
    ((0,), (4, 8, 2), ("tanh", "none")),
]


def _layers(widths, names, bias=True, seed=0):
    draw = torch.Generator().manual_seed(seed)
    found = []
    for inputs, outputs, name in zip(widths, widths[1:], names, strict=False):
        weight = torch.randn(outputs, inputs, generator=draw) / inputs**0.5
        found.append((weight, torch.randn(outputs, generator=draw) if bias else None, name))
    return found


def _by_torch(x, layers):
    for weight, bias, name in layers:
        x = FUNCTIONS[name](functional.linear(x, weight, bias))
    return x


def _leaves(x, layers, dtype):
    def leaf(t):
        return None if t is None else t.to(dtype).detach().requires_grad_()

    return leaf(x), [(leaf(weight), leaf(bias), name) for weight, bias, name in layers]


def _flat(x, layers):
    return [x, *(t for weight, bias, _ in layers for t in (weight, bias) if t is not None)]


def _close(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        size = float(b.detach().abs().max()) if b.numel() else 1.0
        torch.testing.assert_close(a.double(), b, rtol=0, atol=3e-6 * size + 1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("lead", "widths", "names"), CASES)
def test_values_and_gradients_are_those_of_float64(lead, widths, names, bias):
    x = torch.randn(*lead, widths[0], generator=torch.Generator().manual_seed(1))
    weight = torch.randn(*lead, widths[-1], generator=torch.Generator().manual_seed(2))
    given = _layers(widths, names, bias)
    x32, layers32 = _leaves(x, given, torch.float32)
    x64, layers64 = _leaves(x, given, torch.float64)
    y = run_layers(x32, layers32)
    expected = _by_torch(x64, layers64)
    _close([y], [expected])
    found = torch.autograd.grad((y * weight).sum(), _flat(x32, layers32))
    _close(found, torch.autograd.grad((expected * weight).sum(), _flat(x64, layers64)))
    with torch.no_grad():
        assert torch.equal(run_layers(x32, layers32), y)


def test_only_what_is_asked_for_has_a_gradient():
    x = torch.randn(9, 4)
    layers = _layers((4, 8, 3), ("tanh", "none"))
    layers[0][0].requires_grad_()
    run_layers(x, layers).sum().backward()
    assert layers[0][0].grad is not None and layers[0][1].grad is None and x.grad is None


# rows are shared among threads, and of gradients of weights columns where these are more
@pytest.mark.parametrize("widths", [(40, 70, 3), (4, 128, 96), (128, 64, 2), (70, 300, 130)])
@pytest.mark.parametrize("rows", [517, 30, 3, 1])
@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads_gives_the_same_bits(threads, rows, widths):
    x, given = torch.randn(rows, widths[0]), _layers(widths, ("tanh", "none"))

    def run():
        x32, layers = _leaves(x, given, torch.float32)
        y = run_layers(x32, layers)
        return [y, *torch.autograd.grad(y.square().sum(), _flat(x32, layers))]

    before, alone = torch.get_num_threads(), run()
    try:
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(run(), alone, strict=True))
    finally:
        torch.set_num_threads(before)


def test_strides_of_inputs_and_gradients():
    x = torch.randn(6, 5, 4).transpose(0, 1).requires_grad_()
    layers = _layers((4, 3), ("tanh",))
    y = run_layers(x, layers)
    expected = _by_torch(x, layers)
    torch.testing.assert_close(y, expected)
    weight = torch.randn(3, 6, 5).permute(2, 1, 0)
    (found,) = torch.autograd.grad(y, x, weight)
    torch.testing.assert_close(found, torch.autograd.grad(expected, x, weight)[0])


def test_second_derivatives():
    x, given = torch.randn(30, 4), _layers((4, 6, 2), ("tanh", "none"))
    sides = []
    for dtype, run in ((torch.float32, run_layers), (torch.float64, _by_torch)):
        leaf, layers = _leaves(x, given, dtype)
        (first,) = torch.autograd.grad(run(leaf, layers).square().sum(), leaf, create_graph=True)
        sides.append([first, *torch.autograd.grad(first.square().sum(), _flat(leaf, layers)[:-1])])
    for a, b in zip(*sides, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["none", "tanh", "relu"])
def test_what_is_not_finite_stays_in_its_row(name):
    x = torch.ones(4, 3)
    x[1, 2] = torch.nan
    x[2, 0] = torch.inf
    layers = [(torch.ones(20, 3), torch.ones(20), name)]
    y = run_layers(x, layers)
    assert y.isnan().all(-1).tolist() == [False, True, False, False]
    torch.testing.assert_close(y, _by_torch(x, layers), equal_nan=True)


@pytest.mark.parametrize(
    ("x", "layers"),
    [
        (torch.randn(3, 4).double(), _layers((4, 2), ("none",))),
        (torch.randn(3, 5), _layers((4, 2), ("none",))),
        (torch.randn(3, 4), _layers((4, 2), ("gelu",))),
        (torch.randn(3, 4), [(torch.randn(4, 2).t(), None, "none")]),
        (torch.randn(3, 4), [(torch.randn(2, 4), torch.randn(3), "none")]),
        (torch.randn(3, 4), [(torch.randn(2, 4).double(), None, "none")]),
        (torch.randn(3, 4).to("meta"), _layers((4, 2), ("none",))),
        (torch.randn(()), _layers((4, 2), ("none",))),
    ],
)
def test_what_it_does_not_take_is_left_to_torch(x, layers):
    assert run_layers(x, layers) is None


def test_transforms_and_compilers_are_left_to_torch(monkeypatch):
    layers = _layers((4, 2), ("tanh",))
    x = torch.randn(3, 4)
    calls = []
    monkeypatch.setattr(module, "run", lambda *args: calls.append(args))

    def either(x):
        found = run_layers(x, layers)
        return _by_torch(x, layers) if found is None else found

    torch.func.vmap(torch.func.grad(lambda one: either(one).sum()))(x)
    torch.func.jvp(either, (x,), (torch.ones(3, 4),))
    torch.compile(either, fullgraph=True, backend="eager")(x)
    with torch.autocast("cpu"):
        either(x)
    assert calls == []

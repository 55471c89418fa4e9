"""The mLSTM cell in C against the float64 reference."""

import pytest
import torch

from xlstm_rl import kernels

from .mlstm_cases import error

SHAPES = [  # B, T, H, K, V
    (2, 64, 4, 64, 64),
    (2, 40, 2, 16, 16),
    (2, 70, 1, 128, 128),
    (3, 33, 2, 32, 8),
    (1, 65, 3, 5, 9),
    (5, 1, 2, 1, 1),
    (2, 9, 1, 24, 40),
]


def make(B, T, H, K, V, state=True, gates=1.0, seed=0):
    gen = torch.Generator().manual_seed(seed)
    shapes = [(B, T, H, K), (B, T, H, K), (B, T, H, V), (B, T, H), (B, T, H)]
    shapes += [(B, H, K, V), (B, H, K), (B, H)] if state else []
    xs = [torch.randn(s, generator=gen, dtype=torch.float64) for s in shapes]
    # q . n is seldom near 0, where h is a quotient of two small numbers
    xs[0], xs[1] = xs[0] / 2 + 0.5, xs[1] / 2 + 0.5
    xs[3], xs[4] = xs[3] * gates, xs[4] * gates + 1
    if state:
        xs[6] = xs[6].abs() + 0.5
    for s in xs[5:]:
        s[0, 0] = 0  # a fresh row
    reset = torch.rand(B, T, generator=gen) < 0.1
    return xs, reset


def run(xs, reset, backend, dtype, forget_gate="sigmoid", steps=False):
    xs = [x.to(dtype).requires_grad_() for x in xs]
    state = tuple(xs[5:]) or None
    options = {"forget_gate": forget_gate, "backend": backend}
    if steps:
        hs = []
        for t in range(xs[0].shape[1]):
            h, state = kernels.mlstm_step(*(x[:, t] for x in xs[:5]), reset[:, t], state, **options)
            hs.append(h)
        return [torch.stack(hs, 1), *state], xs
    h, state = kernels.mlstm(*xs[:5], reset, state, **options)
    return [h, *state], xs


def hold(xs, reset, forget_gate, limit):
    found = []
    for backend, dtype in (
        ("reference", torch.float64),
        ("native", torch.float32),
        ("torch", torch.float32),
    ):
        outputs, leaves = run(xs, reset, backend, dtype, forget_gate)
        gen = torch.Generator().manual_seed(1)
        given = [torch.randn(o.shape, generator=gen, dtype=torch.float64) for o in outputs]
        grads = torch.autograd.grad(outputs, leaves, [g.to(dtype) for g in given])
        found.append([*(o.detach() for o in outputs), *grads])
    for n, (want, got, near) in enumerate(zip(*found, strict=True)):
        assert error(got, want) <= max(limit, 4 * error(near, want)), n


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.each_value
def test_equals_the_float64_reference(shape, state, forget_gate):
    hold(*make(*shape, state), forget_gate, 1e-5)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
def test_gates_far_from_0(forget_gate):
    hold(*make(2, 70, 2, 16, 16, gates=80.0), forget_gate, 1e-4)


@pytest.mark.parametrize("seed", range(30))
def test_any_sizes(seed):
    gen = torch.Generator().manual_seed(seed)
    sizes = [int(torch.randint(1, n, (), generator=gen)) for n in (5, 80, 4, 40, 40)]
    gates = 10.0 ** float(torch.randint(0, 3, (), generator=gen)) / 3
    hold(*make(*sizes, state=seed % 3 > 0, gates=gates, seed=seed), "sigmoid", 2e-5)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_steps_equal_the_sequence(shape, forget_gate):
    xs, reset = make(*shape)
    with torch.no_grad():
        want, _ = run(xs, reset, "native", torch.float32, forget_gate)
        got, _ = run(xs, reset, "native", torch.float32, forget_gate, steps=True)
    for a, b in zip(got, want, strict=True):
        assert error(a, b.double()) < 1e-5


def test_transposed_inputs_are_read_as_they_are():
    xs, reset = make(2, 40, 3, 8, 8)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in xs[:3]] + xs[3:]
    (want, *_), _ = run(xs, reset, "native", torch.float32)
    h, _ = kernels.mlstm(
        *(x.float() for x in turned[:5]), reset, tuple(x.float() for x in xs[5:]), backend="native"
    )
    assert torch.equal(h, want)

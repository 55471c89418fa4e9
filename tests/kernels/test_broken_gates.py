"""Gates that are not finite, or forget beyond all measure: the numbers of the definition."""

import pytest
import torch

from xlstm_rl import kernels

NAN, INF = float("nan"), float("inf")
B, T, H, K = 2, 24, 1, 16


def run(backend, gate, value, forget_gate, dtype):
    gen = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(B, T, H, K, generator=gen, dtype=torch.float64) for _ in "qkv")
    i, f = (torch.randn(B, T, H, generator=gen, dtype=torch.float64) for _ in "if")
    f -= 2.0 * (forget_gate == "exponential")
    (i if gate == "i" else f)[0, 3] = value
    sizes = (B, H, K, K), (B, H, K), (B, H)
    state = [torch.randn(size, generator=gen, dtype=torch.float64) for size in sizes]
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 13] = True
    inputs = [x.to(dtype) for x in (q, k, v, i, f)]
    state = tuple(s.to(dtype) for s in state)
    return kernels.mlstm(*inputs, reset, state, forget_gate=forget_gate, backend=backend)


def hold(backend, gate, value, forget_gate):
    h, state = run(backend, gate, value, forget_gate, torch.float32)
    want, final = run("reference", gate, value, forget_gate, torch.float64)
    for a, b in zip((h, *state), (want, *final), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5, equal_nan=True)
    return want


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
@pytest.mark.parametrize("gate", ["i", "f"])
@pytest.mark.parametrize("value", [-1e4, -1e30, -INF])
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_what_is_shut_is_shut(backend, gate, value, forget_gate, monkeypatch):
    if backend == "triton":
        pytest.importorskip("triton")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert hold(backend, gate, value, forget_gate).isfinite().all()


@pytest.mark.parametrize(
    ("gate", "value", "forget_gate"),
    [
        ("i", NAN, "sigmoid"),
        ("i", INF, "sigmoid"),
        ("f", NAN, "sigmoid"),
        ("f", INF, "exponential"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # the interpreter's, of inf - inf
def test_a_broken_gate_breaks_its_episode_and_no_other(gate, value, forget_gate, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    h = hold("triton", gate, value, forget_gate)
    assert h[0, 3:13].isnan().all()
    assert h[0, :3].isfinite().all() and h[0, 13:].isfinite().all() and h[1].isfinite().all()

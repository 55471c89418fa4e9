"""The references against truths from elsewhere: closed forms in NumPy, numbers by hand, conv1d."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xlstm_rl.kernels import causal_conv1d, mlstm, slstm


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
def test_mlstm_is_the_quadratic_closed_form(forget_gate):
    # h_t = sum_j w_tj (q_t . k_j) v_j / max(|sum_j w_tj q_t . k_j|, 1) with the plain, unstabilised
    # weights w_tj = exp(i_j) prod_{j < u <= t} forget_u, over the steps of t's own episode
    rng = np.random.default_rng(0)
    B, T, H, K, V = 2, 13, 2, 3, 5
    q, k = rng.normal(size=(2, B, T, H, K))
    v = rng.normal(size=(B, T, H, V))
    i, f = rng.normal(size=(2, B, T, H)) * 2
    reset = np.zeros((B, T), dtype=bool)
    reset[0, [4, 5, 9]] = True
    want = np.zeros((B, T, H, V))
    for b, t, head in np.ndindex(B, T, H):
        start = max((s for s in range(t + 1) if reset[b, s]), default=0)
        num, den = np.zeros(V), 0.0
        for j in range(start, t + 1):
            fs = f[b, j + 1 : t + 1, head]
            forget = np.prod(np.exp(fs) if forget_gate == "exponential" else 1 / (1 + np.exp(-fs)))
            w = np.exp(i[b, j, head]) * forget * (q[b, t, head] @ k[b, j, head]) / math.sqrt(K)
            num, den = num + w * v[b, j, head], den + w
        want[b, t, head] = num / max(abs(den), 1.0)
    got, _ = mlstm(
        *(torch.from_numpy(x) for x in (q, k, v, i, f, reset)),
        forget_gate=forget_gate,
        backend="reference",
    )
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-11, atol=1e-12)


def test_mlstm_two_steps_by_hand():
    # K = V = 1 and all gates log-friendly: i = (ln 2, 0), forget = (1/2, 1/2), that is f = 0
    # step 1: C e^m = 2 * k v = 2 * 3 * 5 = 30, n e^m = 2 * 3 = 6; h = 30 q / max(6 |q|, 1)
    # step 2: C e^m = 30 / 2 + 1 * 1 * 7 = 22, n e^m = 6 / 2 + 1 = 4
    # m: max(ln(1/2) + 0, ln 2) = ln 2, then max(ln(1/2) + ln 2, 0) = 0
    q = torch.tensor([0.1, 0.2], dtype=torch.float64).view(1, 2, 1, 1)
    k = torch.tensor([3.0, 1.0], dtype=torch.float64).view(1, 2, 1, 1)
    v = torch.tensor([5.0, 7.0], dtype=torch.float64).view(1, 2, 1, 1)
    i = torch.tensor([math.log(2), 0.0], dtype=torch.float64).view(1, 2, 1)
    h, (C, n, m) = mlstm(q, k, v, i, torch.zeros_like(i), backend="reference")
    assert h.flatten().tolist() == pytest.approx([30 * 0.1 / 1, 22 * 0.2 / 1])
    assert (C.item(), n.item(), m.item()) == pytest.approx((22.0, 4.0, 0.0))


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
def test_slstm_is_the_unstabilised_recurrence(forget_gate):
    # c = forget c' + exp(i) tanh(z), n = forget n' + exp(i), h = sigmoid(o) c / n, in NumPy
    rng = np.random.default_rng(1)
    B, T, H, D = 2, 9, 2, 3
    x, R, b = (
        rng.normal(size=(B, T, 4, H, D)),
        rng.normal(size=(4, H, D, D)),
        rng.normal(size=(4, H, D)),
    )
    reset = np.zeros((B, T), dtype=bool)
    reset[1, [0, 3, 8]] = True
    want = np.zeros((B, T, H, D))
    for row, head in np.ndindex(B, H):
        h = c = n = np.zeros(D)
        for t in range(T):
            if reset[row, t]:
                h = c = n = np.zeros(D)
            i, f, z, o = (x[row, t, g, head] + h @ R[g, head] + b[g, head] for g in range(4))
            forget = np.exp(f) if forget_gate == "exponential" else 1 / (1 + np.exp(-f))
            c, n = forget * c + np.exp(i) * np.tanh(z), forget * n + np.exp(i)
            h = c / n / (1 + np.exp(-o))
            want[row, t, head] = h
    got, (h_T, c_T, n_T, m_T) = slstm(
        *(torch.from_numpy(a) for a in (x, R, b, reset)),
        forget_gate=forget_gate,
        backend="reference",
    )
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-11)
    np.testing.assert_allclose(h_T.numpy(), want[:, -1], rtol=1e-11)
    np.testing.assert_allclose((c_T * m_T.exp())[1, 1].numpy(), c, rtol=1e-11)
    np.testing.assert_allclose((n_T * m_T.exp())[1, 1].numpy(), n, rtol=1e-11)


def test_slstm_stabiliser_starts_at_i_element_by_element():
    x = torch.zeros(1, 1, 4, 1, 2, dtype=torch.float64)
    x[0, 0, 0, 0] = -3.0
    zero = torch.zeros(4, 1, 2, 2, dtype=torch.float64), torch.zeros(4, 1, 2, dtype=torch.float64)
    n = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)
    state = (torch.zeros_like(n), torch.zeros_like(n), n, torch.zeros_like(n))
    m = slstm(x, *zero, state=state, backend="reference")[1][3]
    assert m.flatten().tolist() == pytest.approx([-3.0, math.log(0.5)])


def test_causal_conv1d_is_conv1d():
    x, weight, bias = torch.randn(2, 9, 5).double(), torch.randn(5, 4).double(), torch.randn(5)
    want = F.conv1d(F.pad(x.mT, (3, 0)), weight[:, None], bias.double(), groups=5).mT
    got, state = causal_conv1d(x, weight, bias.double(), backend="reference")
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(state, x[:, -3:])

"""The chunkwise form against the steps, and the steps against the papers' equations."""

import pytest
import torch

from xlstm_rl.kernels.linear import reference
from xlstm_rl.kernels.linear.chunkwise import gated_linear

B, H, K, V = 2, 3, 4, 5


def inputs(length, is_scalar, has_bonus, dtype=torch.float64):
    torch.manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=dtype)

    log_decay = -draw(B, length, H, 1 if is_scalar else K).exp()
    tensors = [draw(B, length, H, K), draw(B, length, H, K), draw(B, length, H, V), log_decay]
    tensors += [draw(B, H, K, V)] + ([draw(H, K)] if has_bonus else [])
    return [one.requires_grad_() for one in tensors]


@pytest.mark.parametrize("share", [None, 0.0, 0.2, 1.0])
@pytest.mark.parametrize("length", [1, 4, 5, 33])
@pytest.mark.parametrize(("is_scalar", "has_bonus"), [(True, False), (False, True), (False, False)])
@pytest.mark.each_value
def test_chunks_and_all_their_gradients_are_those_of_the_steps(is_scalar, has_bonus, length, share):
    tensors = inputs(length, is_scalar, has_bonus)
    q, k, v, g, state, *bonus = tensors
    bonus = bonus[0] if bonus else None
    reset = None if share is None else torch.rand(B, length) < share
    results = []
    for run, options in ((gated_linear, {"chunk_size": 4}), (reference.gated_linear, {})):
        o, after = run(q, k, v, g, reset, state, bonus, **options)
        loss = (o.sin() * torch.arange(V)).sum() + after.square().sum()
        grads = torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
        results.append((o, after, *grads))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_decays_that_forget_all_lose_no_digits():
    q, k, v, g, state = inputs(32, True, False, torch.float32)
    g = torch.where(torch.arange(32)[:, None, None] % 5 == 0, -1e5, -0.01).expand(B, 32, H, 1)
    found, _ = gated_linear(q, k, v, g, None, state)
    wide = [one.double() for one in (q, k, v, g)]
    expected, _ = reference.gated_linear(*wide, None, state.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decay", [-1e5, -1e38, -torch.inf])
@pytest.mark.parametrize("has_bonus", [False, True])
def test_one_decay_that_forgets_all_leaves_the_others_their_digits(has_bonus, decay):
    tensors = [one.detach() for one in inputs(32, False, has_bonus)]
    tensors[3] = torch.where(torch.arange(32)[:, None, None] % 16 == 7, decay, -0.01).expand(
        B, 32, H, K
    )
    results = []
    for run, dtype in ((gated_linear, torch.float32), (reference.gated_linear, torch.float64)):
        q, k, v, g, state, *bonus = own = [one.to(dtype).requires_grad_() for one in tensors]
        o, after = run(q, k, v, g, None, state, *bonus)
        grads = torch.autograd.grad(o.sin().sum() + after.square().sum(), own)
        results.append([one.double() for one in (o, after, *grads)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_step_is_the_state_space_equation_of_mamba2():
    # h = exp(A dt) h + dt B x, y = C h (Dao & Gu 2024, equations 1 and 2, discretised)
    state, dt, a = torch.zeros(1, 1, 2, 1), 0.5, -2.0
    b, c, x = torch.tensor([1.0, 3.0]), torch.tensor([2.0, -1.0]), 4.0
    g = torch.tensor([[[a * dt]]])
    for expected in (-2.0, -2.0 * (1 + torch.e**-1)):  # 2 * (dt 1 x) - 1 * (dt 3 x), twice
        o, state = reference.gated_linear_step(
            c.view(1, 1, 2), b.view(1, 1, 2), torch.tensor([[[dt * x]]]), g, None, state
        )
        assert o.item() == pytest.approx(expected, rel=1e-6)


def test_a_step_is_the_wkv_of_rwkv6():
    # wkv_t = diag(u) k_t v_t + S, S' = diag(w) S + k_t v_t (Peng et al. 2024, equations 19, 20)
    w, u = torch.tensor([0.5, 0.25]), torch.tensor([[2.0, 3.0]])
    r, k, v = torch.tensor([1.0, 10.0]), torch.tensor([1.0, 1.0]), torch.tensor([[[1.0]]])
    state = torch.zeros(1, 1, 2, 1)
    for expected in (2.0 + 30.0, 3.0 + 40.0, 3.5 + 42.5):
        o, state = reference.gated_linear_step(
            r.view(1, 1, 2), k.view(1, 1, 2), v, w.log().view(1, 1, 2), u, state
        )
        assert o.item() == pytest.approx(expected, rel=1e-6)

"""Clipping and Adam's step in C beside torch's own, in float64."""

import copy

import pytest
import torch
from torch.optim import Adam

from xlstm_rl.kernels.native.adam import clipped_adam_step

SHAPES = [(3,), (128, 64), (1,), (17, 5), (0, 4), (2049,)]


def _pair(lr=3e-3, **options):
    draw = torch.Generator().manual_seed(0)
    weights = [torch.randn(*shape, generator=draw).requires_grad_() for shape in SHAPES]
    return weights, Adam(weights, lr, eps=1e-5, fused=True, **options)


def _wide(weights, lr=3e-3):
    wide = [w.detach().double().requires_grad_() for w in weights]
    return wide, Adam(wide, lr, eps=1e-5)


def _gradients(weights, wide, size, seed):
    draw = torch.Generator().manual_seed(seed)
    for w, v in zip(weights, wide, strict=True):
        w.grad = torch.randn(w.shape, generator=draw) * size
        v.grad = w.grad.double()


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e6])
def test_steps_are_those_of_float64(size):
    weights, native = _pair()
    wide, torchs = _wide(weights)
    for step in range(20):
        _gradients(weights, wide, size, step)
        norm = clipped_adam_step(native, weights, 0.5)
        assert (norm is None) == (step == 0)
        expected = torch.nn.utils.clip_grad_norm_(wide, 0.5)
        if norm is None:
            torch.nn.utils.clip_grad_norm_(weights, 0.5)
            native.step()
        else:
            torch.testing.assert_close(norm.double(), expected, rtol=1e-6, atol=0)
        torchs.step()
        for w, v in zip(weights, wide, strict=True):
            torch.testing.assert_close(w.grad.double(), v.grad, rtol=1e-6, atol=1e-12)
    for w, v in zip(weights, wide, strict=True):
        torch.testing.assert_close(w.detach().double(), v.detach(), rtol=0, atol=4e-6)
        state, other = native.state[w], torchs.state[v]
        assert state["step"] == 20
        torch.testing.assert_close(state["exp_avg"].double(), other["exp_avg"], rtol=0, atol=1e-7)


def _stepped(**options):
    weights, native = _pair(**options)
    _gradients(weights, _wide(weights)[0], 1.0, 0)
    native.step()
    return weights, native


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(bad):
    weights, native = _stepped()
    weights[1].grad[3, 4] = bad
    before = copy.deepcopy((weights, native.state_dict(), [w.grad for w in weights]))
    assert not clipped_adam_step(native, weights, 0.5).isfinite()
    after = (weights, native.state_dict(), [w.grad for w in weights])
    torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads_gives_the_same_bits(threads):
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            weights, native = _stepped()
            found.append([clipped_adam_step(native, weights, 0.5), *weights])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_each_weight_has_a_count_of_its_own():
    weights, native = _stepped()
    native.state[weights[1]]["step"] += 7
    native.state[weights[5]]["step"] += 1
    expected = copy.deepcopy((weights, native.state_dict()))
    others = expected[0]
    for other, weight in zip(others, weights, strict=True):
        other.grad = weight.grad.clone()
    torchs = Adam(others, 3e-3, eps=1e-5, fused=True)
    torchs.load_state_dict(expected[1])
    assert clipped_adam_step(native, weights, 1e9) is not None
    torchs.step()
    for weight, other in zip(weights, others, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-6, atol=1e-7)
        assert native.state[weight]["step"] == torchs.state[other]["step"]


def _without_gradient(weights, native):
    weights[0].grad = None


def _with_hook(weights, native):
    native.register_step_pre_hook(lambda *args: None)


def _with_strides(weights, native):
    weights[1].grad = torch.randn(64, 128).t()


def _with_rate_in_tensor(weights, native):
    native.param_groups[0]["lr"] = torch.tensor(1e-3)


@pytest.mark.parametrize(
    "change", [_without_gradient, _with_hook, _with_strides, _with_rate_in_tensor]
)
def test_what_it_does_not_take_is_left_to_torch(change):
    weights, native = _stepped()
    change(weights, native)
    before = copy.deepcopy(weights)
    assert clipped_adam_step(native, weights, 0.5) is None
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))


@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}])
def test_other_kinds_of_adam_are_left_to_torch(options):
    weights, native = _stepped(**options)
    assert clipped_adam_step(native, weights, 0.5) is None


def test_other_optimisers_and_other_weights_are_left_to_torch():
    weights, native = _stepped()
    assert clipped_adam_step(torch.optim.AdamW(weights), weights, 0.5) is None
    assert clipped_adam_step(native, weights[:-1], 0.5) is None
    assert clipped_adam_step(native, weights[::-1], 0.5) is None


def test_a_graph_that_kept_a_weight_is_refused():
    weights, native = _stepped()
    loss = (weights[0] ** 2).sum()
    clipped_adam_step(native, weights, 0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()

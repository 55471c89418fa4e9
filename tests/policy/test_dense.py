"""Encoders and heads in one native call, and when they go module by module."""

import copy
import pickle

import pytest
import torch
import torch.nn.utils.prune
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from xlstm_rl.policy import dense
from xlstm_rl.policy.config import PolicyConfig
from xlstm_rl.policy.dense import MLP
from xlstm_rl.policy.trunk import Head


@pytest.fixture
def native_runs(monkeypatch):
    made = []
    run = dense.run_layers

    def counted(*args):
        found = run(*args)
        made.append(found is not None)
        return found

    monkeypatch.setattr(dense, "run_layers", counted)
    return made


def _mlp():
    return MLP(nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 5), nn.ReLU())


def test_modules_and_one_call_agree(native_runs):
    mlp, x = _mlp(), torch.randn(4, 6, 3)
    torch.testing.assert_close(mlp(x), nn.Sequential.forward(mlp, x))
    assert native_runs == [True]


@pytest.mark.parametrize("make", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_run_too(make, native_runs):
    mlp, x = _mlp(), torch.randn(4, 3)
    assert torch.equal(make(mlp)(x), mlp(x)) and native_runs == [True, True]


def test_hooks_of_parts_see_what_goes_through(native_runs):
    mlp, seen = _mlp(), []
    mlp[2].register_forward_hook(lambda module, given, out: seen.append(out.shape))
    mlp[0].register_full_backward_hook(lambda module, given, out: seen.append("back"))
    mlp(torch.randn(4, 3, requires_grad=True)).sum().backward()
    assert seen == [(4, 5), "back"] and native_runs == []


def test_hooks_of_a_heads_parts_see_what_goes_through(native_runs):
    head, seen = Head(12, 2, PolicyConfig(head_widths=(8,)), 1.0), []
    head.hidden.register_forward_hook(lambda module, given, out: seen.append(out.shape))
    head.output.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape))
    head(torch.randn(5, 12))
    assert seen == [(5, 8), (5, 8)]


def test_a_weight_that_a_hook_makes_is_made(native_runs):
    head, x = Head(12, 2, PolicyConfig(head_widths=()), 1.0), torch.randn(5, 12)
    nn.utils.prune.l1_unstructured(head.output, "weight", amount=0.5)
    with torch.no_grad():
        head.output.weight_orig.fill_(1.0)
    weight = head.output.weight_mask
    torch.testing.assert_close(head(x), x @ weight.T + head.output.bias)


def test_global_hooks_see_what_goes_through(native_runs):
    mlp, seen = _mlp(), []
    handle = nn.modules.module.register_module_forward_hook(lambda m, x, y: seen.append(type(m)))
    try:
        mlp(torch.randn(4, 3))
    finally:
        handle.remove()
    assert seen == [nn.Linear, nn.Tanh, nn.Linear, nn.ReLU, MLP] and native_runs == []


def test_operations_are_counted(native_runs):
    mlp, x = _mlp(), torch.randn(4, 3, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        mlp(x).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 4 * (3 * 40 + 40 * 5) and native_runs == []


def test_other_parts_run_module_by_module(native_runs):
    x = torch.randn(4, 3)
    for mlp in (MLP(nn.Linear(3, 2), nn.GELU()), MLP(nn.Tanh(), nn.Linear(3, 2)), MLP()):
        assert torch.equal(mlp(x), nn.Sequential.forward(mlp, x))
    parametrized = _mlp()
    nn.utils.parametrizations.weight_norm(parametrized[0])
    assert parametrized(x).shape == (4, 5)
    assert native_runs == []


def test_silu_runs_in_torch(native_runs):
    mlp, x = MLP(nn.Linear(3, 2), nn.SiLU()), torch.randn(4, 3)
    assert torch.equal(mlp(x), nn.Sequential.forward(mlp, x))
    assert native_runs == [False]


@pytest.mark.parametrize("widths", [(), (8,), (8, 6)])
def test_a_head_is_one_call(widths, native_runs):
    head, x = Head(12, 2, PolicyConfig(head_widths=widths), 1.0), torch.randn(5, 12)
    torch.testing.assert_close(head(x), head.output(head.hidden(x)))
    assert native_runs[0] is True

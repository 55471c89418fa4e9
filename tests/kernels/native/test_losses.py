"""PPO's loss and the categorical distribution in C, held to torch in float64."""

import itertools
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from xlstm_rl.agents import ppo
from xlstm_rl.agents.config import PPOConfig
from xlstm_rl.agents.ppo import Sequences, whole_loss
from xlstm_rl.kernels.native.categorical import (
    MASKED_BELOW,
    choice_terms,
    equations,
    mean_equations,
)
from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.ppo_loss import clipped_loss
from xlstm_rl.policy.actions.categorical import LEAST_LOGIT, MASKED_LOGIT

pytestmark = pytest.mark.skipif(not LOADED, reason="needs the native library")

N, T = 5, 13


def _batch(valid: bool, least: float | None, scale: float = 1.0) -> Sequences:
    x = [scale * torch.randn(N, T) for _ in range(4)]
    none = torch.zeros(N, T)
    return Sequences(
        *(none, none, *x),
        reset=none > 0,
        valid=torch.rand(N, T) < 0.7 if valid else None,
        state=(),
        least_scale=None if least is None else torch.tensor(least),
    )


def _wide(batch: Sequences) -> Sequences:
    values = {name: getattr(batch, name) for name in vars(batch)}
    return Sequences(
        **{
            name: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
            for name, x in values.items()
        }
    )


def _loss(batch: Sequences, new: list[Tensor], config: PPOConfig, native: bool) -> Any:
    """Loss and parts of log-probabilities, entropies, values and, if there are any, barriers."""
    log_prob, entropy, value, *barrier = new
    now = {"clip": 0.2, "entropy_coef": 0.01, "log_barrier_coef": 0.3}
    terms = log_prob, entropy, barrier[0] if barrier else None
    with mock.patch.object(ppo, "clipped_loss", wraps=clipped_loss) as run:
        if not native:
            run.side_effect = lambda *_: None
        found = whole_loss(batch, terms, value, now, config)
    assert run.called
    return found


def _both(batch: Sequences, new: list[Tensor], config: PPOConfig) -> Any:
    """Loss, parts and gradients: of C, and of torch in float64."""
    found = []
    wide = [x.double() for x in new]
    for one, tensors, native in ((batch, new, True), (_wide(batch), wide, False)):
        leaves = [x.clone().requires_grad_() for x in tensors]
        loss, log = _loss(one, leaves, config, native)
        assert ("Loss" in type(loss.grad_fn).__name__) is native
        grads = torch.autograd.grad(2.5 * loss, leaves, allow_unused=True)
        found.append((loss, log, grads))
    return found


def _assert_same(mine: Any, theirs: Any) -> None:
    assert mine[1].keys() == theirs[1].keys()
    close = {"rtol": 2e-5, "atol": 2e-6, "equal_nan": True}
    torch.testing.assert_close(mine[0].double(), theirs[0], **close)
    for name in mine[1]:
        torch.testing.assert_close(mine[1][name].double(), theirs[1][name].double(), **close)
    for a, b in zip(mine[2], theirs[2], strict=True):
        torch.testing.assert_close(a.double(), b, **close)


@pytest.mark.parametrize(
    "valid, least, value_clip, normalize",
    [*itertools.product((False, True), (None, 0.1, 3.0), (None, 0.3), (False, True))],
)
def test_the_loss_is_that_of_float64(
    valid: bool, least: float | None, value_clip: float | None, normalize: bool
) -> None:
    torch.manual_seed(0)
    config = PPOConfig(
        value_clip=value_clip,
        normalize_advantage=normalize,
        advantage_scale_decay=PPOConfig.advantage_scale_decay,
    )
    batch = _batch(valid, least)
    near = batch.log_prob + 0.3 * torch.randn(N, T)
    new = [near, torch.rand(N, T), batch.value + 0.5 * torch.randn(N, T)]
    _assert_same(*_both(batch, new, config))
    _assert_same(*_both(batch, [*new, -torch.rand(N, T)], config))


def test_a_policy_that_has_not_changed_has_both_sides_of_the_clip() -> None:
    torch.manual_seed(0)
    batch = _batch(False, None)
    new = [batch.log_prob, torch.rand(N, T), batch.value]
    for value_clip in (None, 0.2):
        _assert_same(*_both(batch, new, PPOConfig(value_clip=value_clip)))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_of_few_valid_steps(count: int) -> None:
    torch.manual_seed(0)
    batch = _batch(True, None)
    batch.valid = torch.zeros(N, T, dtype=torch.bool)
    batch.valid.view(-1)[:count] = True
    new = [torch.randn(N, T), torch.rand(N, T), torch.randn(N, T), torch.randn(N, T)]
    _assert_same(*_both(batch, new, PPOConfig()))


@pytest.mark.parametrize(
    "which", ["log_prob", "entropy", "value", "barrier", "advantage", "target"]
)
def test_what_is_not_finite_shows_where_it_does_in_torch(which: str) -> None:
    torch.manual_seed(0)
    for bad in (float("nan"), float("inf")):
        batch = _batch(False, None)
        new = {"log_prob": batch.log_prob.clone(), "entropy": torch.rand(N, T)}
        new |= {"value": torch.randn(N, T), "barrier": torch.randn(N, T)}
        tensor = new[which] if which in new else getattr(batch, which)
        tensor[2, 3] = bad
        is_finite = [
            [bool(torch.isfinite(x).all()) for x in (loss, *log.values(), *grads)]
            for loss, log, grads in _both(batch, [*new.values()], PPOConfig())
        ]
        assert is_finite[0] == is_finite[1]
        assert not all(is_finite[0])


def test_what_is_not_valid_may_be_anything() -> None:
    torch.manual_seed(0)
    batch = _batch(True, None)
    assert batch.valid is not None
    new = [torch.randn(N, T), torch.rand(N, T), torch.randn(N, T), torch.randn(N, T)]
    for x in (*new, batch.advantage, batch.target):
        x[~batch.valid] = float("nan")
    loss, log = _loss(batch, new, PPOConfig(), True)
    assert torch.isfinite(loss)
    assert all(map(torch.isfinite, log.values()))


def _logits(kind: str, shape: tuple[int, ...]) -> Tensor:
    logits = 3 * torch.randn(*shape)
    if kind == "masked":
        logits[..., 1::2] = -1e30
    elif kind == "certain":
        logits[..., 0] += 200
    return logits


@pytest.mark.parametrize("kind", ["plain", "masked", "certain"])
@pytest.mark.parametrize("shape", [(3, 4, 2), (7, 1), (2, 5, 19), (4,), (0, 3)])
@pytest.mark.parametrize("wants_mean", [False, True])
def test_choices_are_those_of_float64(kind: str, shape: tuple[int, ...], wants_mean: bool) -> None:
    torch.manual_seed(0)
    logits = _logits(kind, shape).requires_grad_()
    action = torch.zeros(shape[:-1], dtype=torch.int64)
    if kind == "plain":
        action = torch.randint(shape[-1], shape[:-1])
    found = choice_terms(logits, action, wants_mean)
    assert found is not None
    assert (found[2] is not None) is wants_mean
    wide = logits.detach().double().requires_grad_()
    expected = *equations(wide, action), mean_equations(wide)
    grads = []
    for (log_prob, entropy, mean), leaf in ((found, logits), (expected, wide)):
        loss = (log_prob.exp() * 3).sum() - 0.7 * entropy.square().sum()
        if wants_mean:
            loss = loss + 0.3 * mean.sin().sum()  # type: ignore[union-attr]
        grads.append(torch.autograd.grad(loss, leaf)[0].double())
    for mine, theirs in zip(found, expected, strict=True):
        if mine is not None:
            torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)


def _by_torch(logits: Tensor, action: Tensor) -> tuple[Tensor, ...]:
    return *equations(logits, action), mean_equations(logits)


@pytest.mark.parametrize("used", [0, 1, 2])
def test_the_gradient_of_one_of_them(used: int) -> None:
    logits, action = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 1, 2, 0, 1, 2])
    found: Any = choice_terms(logits, action, True)
    mine = torch.autograd.grad(found[used].sum(), logits)[0]
    theirs = torch.autograd.grad(_by_torch(logits, action)[used].sum(), logits)[0]
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("used", [0, 1, 2])
def test_second_derivatives_of_choices(used: int) -> None:
    logits, action = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 1, 2, 0, 1, 2])
    found = []
    for outputs in (choice_terms(logits, action, True), _by_torch(logits, action)):
        chosen: Any = outputs
        (first,) = torch.autograd.grad(chosen[used].sin().sum(), logits, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), logits)[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_of_masked_choices_alone_the_mean_is_0() -> None:
    assert MASKED_LOGIT < MASKED_BELOW < LEAST_LOGIT
    logits = torch.full((2, 3), MASKED_LOGIT, requires_grad=True)
    action = torch.zeros(2, dtype=torch.int64)
    for outputs in (choice_terms(logits, action, True), _by_torch(logits, action)):
        mean: Any = outputs[2]  # type: ignore[index]
        assert not mean.any()
        assert not torch.autograd.grad(mean.sum(), logits)[0].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_shows_in_all_of_them(bad: float) -> None:
    logits = torch.tensor([[bad, 0.0], [1.0, 2.0]], requires_grad=True)
    action = torch.zeros(2, dtype=torch.int64)
    for outputs in (choice_terms(logits, action, True), _by_torch(logits, action)):
        for one in outputs:  # type: ignore[union-attr]
            assert torch.isfinite(one).tolist() == [False, True]
            (grad,) = torch.autograd.grad(one.sum(), logits, retain_graph=True)
            assert torch.isfinite(grad).all(-1).tolist() == [False, True]


@pytest.mark.parametrize("action", [-1, 3])
def test_a_choice_that_there_is_not_is_left_to_torch(action: int) -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    assert choice_terms(logits, torch.tensor([0, action]), True) is None
    assert choice_terms(logits, torch.tensor([0, 2]), True) is not None


def test_who_is_not_covered() -> None:
    logits, action = torch.randn(2, 3, requires_grad=True), torch.tensor([0, 2])
    assert choice_terms(logits.double(), action, True) is None
    assert choice_terms(logits, action.int(), True) is None
    assert choice_terms(logits, action[:1], True) is None
    assert choice_terms(logits.detach(), action, True) is None

import math
from itertools import pairwise

import pytest
import torch
from torchrl.objectives.value.functional import generalized_advantage_estimate

from xlstm_rl.returns import generalized_advantage, vtrace


def _flags(*positions: int, steps: int = 3) -> torch.Tensor:
    flags = torch.zeros(1, steps, dtype=torch.bool)
    for position in positions:
        flags[0, position] = True
    return flags


def test_advantages_of_three_steps_computed_by_hand() -> None:
    reward = torch.tensor([[1.0, 2.0, 3.0]])
    value = torch.tensor([[0.5, 1.0, 1.5]])
    next_value = torch.tensor([[1.0, 1.5, 2.0]])
    advantage, target = generalized_advantage(
        reward, value, next_value, _flags(), _flags(), gamma=0.5, gae_lambda=0.5
    )
    # delta = 1 + .5*1 - .5 = 1;  2 + .5*1.5 - 1 = 1.75;  3 + .5*2 - 1.5 = 2.5
    # A2 = 2.5;  A1 = 1.75 + .25*2.5 = 2.375;  A0 = 1 + .25*2.375 = 1.59375
    assert advantage.tolist() == [[1.59375, 2.375, 2.5]]
    assert target.tolist() == [[2.09375, 3.375, 4.0]]


def test_termination_neither_bootstraps_nor_carries() -> None:
    ones = torch.ones(1, 3)
    advantage, _ = generalized_advantage(
        ones, 0 * ones, 10 * ones, _flags(1), _flags(), gamma=1.0, gae_lambda=1.0
    )
    # A2 = 1 + 10;  A1 = 1;  A0 = (1 + 10) + A1
    assert advantage.tolist() == [[12.0, 1.0, 11.0]]


def test_truncation_bootstraps_but_does_not_carry() -> None:
    ones = torch.ones(1, 3)
    advantage, _ = generalized_advantage(
        ones, 0 * ones, 10 * ones, _flags(), _flags(1), gamma=1.0, gae_lambda=1.0
    )
    # A2 = 11;  A1 = 11, nothing of A2;  A0 = 11 + A1
    assert advantage.tolist() == [[22.0, 11.0, 11.0]]


def test_agrees_with_torchrl_on_random_rollouts() -> None:
    shape = (5, 40)
    reward, value, next_value = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    terminated, truncated = torch.rand(shape) < 0.1, torch.rand(shape) < 0.1
    truncated &= ~terminated
    # TorchRL rounds its discounts to float32; these are exact there.
    gamma, gae_lambda = 31 / 32, 29 / 32
    ours = generalized_advantage(
        reward, value, next_value, terminated, truncated, gamma, gae_lambda
    )
    theirs = generalized_advantage_estimate(
        gamma,
        gae_lambda,
        value.unsqueeze(-1),
        next_value.unsqueeze(-1),
        reward.unsqueeze(-1),
        (terminated | truncated).unsqueeze(-1),
        terminated.unsqueeze(-1),
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.squeeze(-1), rtol=1e-9, atol=1e-9)


def test_shapes_that_differ_are_refused() -> None:
    x = torch.zeros(2, 3)
    flag = torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\(2, 2\).*expected five of \[B, T\]"):
        generalized_advantage(x, x, x[:, :2], flag, flag, 0.9, 0.9)


class OffPolicy:
    """A random rollout in float64 with every kind of episode end, and the paper's V-trace of it."""

    def __init__(self, rows: int = 6, steps: int = 30) -> None:
        shape = (rows, steps)
        self.reward, self.value, self.next_value, self.log_ratio = (
            torch.randn(shape, dtype=torch.float64) for _ in range(4)
        )
        self.terminated, self.truncated = torch.rand(shape) < 0.1, torch.rand(shape) < 0.1
        self.truncated &= ~self.terminated
        self.terminated[0], self.truncated[0] = False, False  # one row without a border
        done = self.terminated | self.truncated
        # Within an episode the value of what follows is the next step's.
        inside = torch.cat((~done[:, :-1], torch.zeros(rows, 1, dtype=torch.bool)), 1)
        self.next_value = torch.where(inside, self.value.roll(-1, 1), self.next_value)
        assert self.terminated.any() and self.truncated.any()

    def ours(
        self, gamma: float, trace_lambda: float, rho_bar: float, c_bar: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rollout = (self.reward, self.value, self.next_value, self.terminated, self.truncated)
        return vtrace(self.log_ratio, *rollout, gamma, trace_lambda, rho_bar, c_bar)

    def papers(
        self, gamma: float, trace_lambda: float, rho_bar: float, c_bar: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Equation 1, a sum over products for each step, and the advantage of section 4.2."""
        rows, steps = self.reward.shape
        target, advantage = self.value.clone(), torch.zeros_like(self.value)
        for b in range(rows):
            begins = [0] + [t + 1 for t in range(steps) if self._done(b, t)] + [steps]
            for first, end in pairwise(begins):
                self._episode(b, first, end, target, advantage, gamma, trace_lambda, rho_bar, c_bar)
        return advantage, target

    def _done(self, b: int, t: int) -> bool:
        return bool(self.terminated[b, t] | self.truncated[b, t])

    def _episode(
        self,
        b: int,
        first: int,
        end: int,
        target: torch.Tensor,
        advantage: torch.Tensor,
        gamma: float,
        trace_lambda: float,
        rho_bar: float,
        c_bar: float,
    ) -> None:
        if first == end:
            return
        ratio = [math.exp(x) for x in self.log_ratio[b, first:end].tolist()]
        reward, values = self.reward[b, first:end].tolist(), self.value[b, first:end].tolist()
        # V(x_n), the bootstrap: nothing after a terminated episode.
        last = 0.0 if self.terminated[b, end - 1] else self.next_value[b, end - 1].item()
        values.append(last)
        n = end - first
        corrected = []
        for s in range(n):
            total = values[s]
            for t in range(s, n):
                weight = gamma ** (t - s)
                for i in range(s, t):
                    weight *= trace_lambda * min(c_bar, ratio[i])
                error = reward[t] + gamma * values[t + 1] - values[t]
                total += weight * min(rho_bar, ratio[t]) * error
            corrected.append(total)
        corrected.append(last)
        for s in range(n):
            follows = trace_lambda * corrected[s + 1] + (1 - trace_lambda) * values[s + 1]
            target[b, first + s] = corrected[s]
            rho = min(rho_bar, ratio[s])
            advantage[b, first + s] = rho * (reward[s] + gamma * follows - values[s])


@pytest.mark.parametrize(
    ("trace_lambda", "rho_bar", "c_bar"),
    [(1.0, 1.0, 1.0), (0.9, 1.0, 1.0), (1.0, 2.5, 0.7), (0.5, 3.0, 3.0), (1.0, math.inf, math.inf)],
)
def test_vtrace_is_the_papers_sum(trace_lambda: float, rho_bar: float, c_bar: float) -> None:
    rollout = OffPolicy()
    ours = rollout.ours(0.97, trace_lambda, rho_bar, c_bar)
    papers = rollout.papers(0.97, trace_lambda, rho_bar, c_bar)
    for a, b in zip(ours, papers, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_vtrace_of_three_steps_computed_by_hand() -> None:
    ratio = torch.tensor([[2.0, 0.5, 1.0]])
    reward, value = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 1.0, 2.0]])
    next_value = torch.tensor([[1.0, 2.0, 4.0]])
    advantage, target = vtrace(
        ratio.log(), reward, value, next_value, _flags(), _flags(), 0.5, 1.0, 1.0, 1.0
    )
    # delta = 1 + .5*1 - 0 = 1.5;  2 + .5*2 - 1 = 2;  3 + .5*4 - 2 = 3;  rho = c = 1, .5, 1
    # v2 = 2 + 3 = 5;  v1 = 1 + .5*2 + .5*.5*(5 - 2) = 2.75;  v0 = 0 + 1.5 + .5*(2.75 - 1) = 2.375
    torch.testing.assert_close(target, torch.tensor([[2.375, 2.75, 5.0]]))
    # A2 = 3;  A1 = .5*(2 + .5*5 - 1) = 1.75;  A0 = 1 + .5*2.75 - 0 = 2.375
    torch.testing.assert_close(advantage, torch.tensor([[2.375, 1.75, 3.0]]))


@pytest.mark.parametrize("trace_lambda", [1.0, 0.8, 0.0])
@pytest.mark.parametrize("clip", [1.0, 4.0, math.inf])
def test_vtrace_on_policy_is_generalised_advantage_estimation(
    trace_lambda: float, clip: float
) -> None:
    rollout = OffPolicy()
    rollout.log_ratio.zero_()
    expected = generalized_advantage(
        rollout.reward,
        rollout.value,
        rollout.next_value,
        rollout.terminated,
        rollout.truncated,
        0.97,
        trace_lambda,
    )
    for a, b in zip(rollout.ours(0.97, trace_lambda, clip, clip), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_vtrace_on_policy_with_lambda_1_has_n_step_returns_as_targets() -> None:
    rollout = OffPolicy()
    rollout.log_ratio.zero_()
    _, target = rollout.ours(0.97, 1.0, 1.0, 1.0)
    rows, steps = rollout.reward.shape
    for b in range(rows):
        for t in range(steps):
            total, discount = 0.0, 1.0
            for u in range(t, steps):
                total += discount * rollout.reward[b, u].item()
                discount *= 0.97
                if rollout.terminated[b, u]:
                    break
                if rollout.truncated[b, u] or u == steps - 1:
                    total += discount * rollout.next_value[b, u].item()
                    break
            assert target[b, t].item() == pytest.approx(total, rel=1e-11, abs=1e-11)


def test_small_clips_leave_the_value_and_a_c_bar_of_zero_one_step() -> None:
    rollout = OffPolicy()
    advantage, target = rollout.ours(0.97, 1.0, 1e-12, 1.0)
    torch.testing.assert_close(target, rollout.value, rtol=0, atol=1e-9)
    torch.testing.assert_close(advantage, torch.zeros_like(advantage), rtol=0, atol=1e-9)
    _, target = rollout.ours(0.97, 1.0, 1.0, 0.0)
    delta = rollout.reward + 0.97 * rollout.next_value * ~rollout.terminated - rollout.value
    one_step = rollout.value + rollout.log_ratio.exp().clamp(max=1.0) * delta
    torch.testing.assert_close(target, one_step, rtol=1e-12, atol=1e-12)


def test_without_clips_vtrace_values_the_policy_that_learns() -> None:
    """Two steps of two actions, every path weighted by how often the old policy takes it."""
    old, new = torch.tensor([0.8, 0.2]).double(), torch.tensor([0.3, 0.7]).double()
    rewards = torch.tensor([[1.0, -2.0], [0.5, 3.0]]).double()  # of each action in each step
    paths = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    weight = old[paths].prod(1)
    flags = torch.zeros(4, 2, dtype=torch.bool)
    ended = flags.clone()
    ended[:, 1] = True

    def value_of(rho_bar: float, c_bar: float) -> float:
        zero = torch.zeros(4, 2, dtype=torch.float64)
        reward = torch.stack((rewards[0][paths[:, 0]], rewards[1][paths[:, 1]]), 1)
        ratio = (new / old)[paths].log()
        _, target = vtrace(ratio, reward, zero, zero, ended, flags, 0.9, 1.0, rho_bar, c_bar)
        return float((weight * target[:, 0]).sum())

    def true_value(policy: torch.Tensor) -> float:
        return float(policy @ rewards[0] + 0.9 * policy @ rewards[1])

    assert value_of(math.inf, math.inf) == pytest.approx(true_value(new))
    # Remark 1: clipped, each step has the value of min(rho_bar * old, new) before it is scaled.
    clipped = torch.minimum(old, new)
    first, second = clipped @ rewards[0], clipped @ rewards[1]
    assert value_of(1.0, 1.0) == pytest.approx(float(first + 0.9 * clipped.sum() * second))


def test_vtrace_refuses_shapes_that_differ() -> None:
    x = torch.zeros(2, 3)
    flag = torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"vtrace got .*\(2, 2\).*expected six of \[B, T\]"):
        vtrace(x, x, x, x[:, :2], flag, flag, 0.9, 0.9)

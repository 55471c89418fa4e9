"""The baseline that a step's other environments are: what it takes away, and what it leaves."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.step_baseline import without_common_error
from xlstm_rl.errors import NonFiniteLossError


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(advantage: Tensor, valid: Tensor) -> list[list[float]]:
    """The same in loops, of numbers of Python's."""
    B, T = advantage.shape
    rows, counts = advantage.tolist(), valid.tolist()
    steps = [[rows[b][t] for b in range(B) if counts[b][t]] for t in range(T)]
    compared = [step for step in steps if len(step) > 1]
    means = [sum(step) / len(step) for step in compared]
    apart = sum((x - m) ** 2 for step, m in zip(compared, means, strict=True) for x in step)
    within = apart / sum(len(step) - 1 for step in compared)
    chance = within * sum(1 / len(step) for step in compared) / len(compared)
    middle = sum(means) / len(means)
    between = sum((m - middle) ** 2 for m in means) / (len(means) - 1)
    share = max(0.0, 1 - chance / between)
    found = [row[:] for row in rows]
    for t, step in enumerate(steps):
        for b in range(B):
            if counts[b][t] and len(step) > 1:
                found[b][t] -= share * (sum(step) - rows[b][t]) / (len(step) - 1)
    return found


@pytest.mark.parametrize("common", [0.0, 0.3, 1.0, 100.0])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.7])
def test_it_is_what_loops_say(common: float, part: float) -> None:
    advantage = (draw(6, 20) + common * draw(20, seed=1)).double()
    valid = torch.rand(6, 20, generator=torch.Generator().manual_seed(2)) >= part
    expected = torch.tensor(by_hand(advantage, valid), dtype=torch.float64)
    torch.testing.assert_close(without_common_error(advantage, valid), expected)
    if not part:
        torch.testing.assert_close(without_common_error(advantage, None), expected)


def test_a_common_error_goes_and_what_is_ones_own_stays() -> None:
    own = draw(16, 200)
    found = without_common_error(own + 10.0 * draw(200, seed=1), None)
    assert (found - own).std() < 0.3
    assert (own + 10.0 * draw(200, seed=1) - own).std() > 9.0


@pytest.mark.parametrize(("B", "most"), [(2, 0.15), (4, 0.06), (16, 0.03)])
def test_what_is_of_each_environment_alone_hardly_changes(B: int, most: float) -> None:
    """Neighbouring steps share most of what they are, as generalised advantages do."""
    changes = []
    for seed in range(50):
        own, found = draw(B, 128, seed=seed), torch.zeros(B)
        for t in reversed(range(128)):
            own[:, t] = found = own[:, t] + 0.94 * found
        changes.append((without_common_error(own, None) - own).std() / own.std())
    assert torch.stack(changes).mean() < most


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1), (4, 0), (0, 4)])
def test_with_nothing_to_compare_advantages_stay(shape: tuple[int, int]) -> None:
    advantage = draw(*shape)
    assert torch.equal(without_common_error(advantage, None), advantage)
    nothing = torch.zeros(shape, dtype=torch.bool)
    assert torch.equal(without_common_error(advantage, nothing), advantage)


def test_equal_advantages_stay_finite() -> None:
    assert without_common_error(torch.zeros(4, 5), None).eq(0).all()
    assert without_common_error(torch.full((4, 5), 3.0), None).isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_steps_that_do_not_count_are_not_looked_at(bad: float) -> None:
    advantage, valid = draw(4, 6), torch.ones(4, 6, dtype=torch.bool)
    valid[1, 2] = valid[3, 5] = False
    spoilt = advantage.masked_fill(~valid, bad)
    found = without_common_error(spoilt, valid)[valid]
    assert torch.equal(found, without_common_error(advantage, valid)[valid])


def agent_of(algorithm: Any, wanted: bool) -> Any:
    agent = {"rollout_steps": 8, "step_baseline": wanted}
    return algorithm("CartPole-v1", env={"num_envs": 4}, agent=agent, logger="none")


def test_one_that_is_not_finite_still_stops_the_update() -> None:
    with agent_of(RecurrentPPO, True) as one:
        rollout = one._make_collector().collect()
        rollout.data["reward"][2, 3] = math.nan
        with pytest.raises(NonFiniteLossError, match="non-finite"):
            one.update(rollout, 0.0)


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
def test_an_agent_takes_it_if_it_is_told_to(algorithm: Any) -> None:
    weights = []
    for wanted in (True, False):
        with agent_of(algorithm, wanted) as one:
            one.learn(8 * 4 * 3)
            weights.append(torch.cat([w.detach().flatten() for w in one.parameters]))
    assert not torch.equal(*weights)


def test_vtrace_has_none() -> None:
    with pytest.raises(ValueError, match="step_baseline"):
        RecurrentA2C("CartPole-v1", agent={"advantages": "vtrace", "step_baseline": True})

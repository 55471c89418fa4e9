"""Minibatches that are laid out once: what of others' own they do not go past."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xlstm_rl import RecurrentPPO
from xlstm_rl.agents import minibatch_program, ppo
from xlstm_rl.agents.direct import DirectLoss
from xlstm_rl.agents.minibatch_losses import LossInTorch
from xlstm_rl.agents.minibatch_program import MinibatchProgram
from xlstm_rl.agents.sequences import Sequences
from xlstm_rl.distributed import Moments
from xlstm_rl.kernels.native.choose import LOADED

from .ways import ONE, STEPS, C, Change, agent_of, assert_equal, changed, no_program, trained

pytestmark = pytest.mark.skipif(not LOADED, reason="without the C library there is no program")

NOISY: dict[str, Any] = {"std": "state", "bounds": "tanh"}


def _own_loss(agent: RecurrentPPO) -> None:
    loss = agent._loss

    def tripled(now: Any, moments: Any, batch: Any, made: Any) -> DirectLoss:
        found, log, back = loss(now, moments, batch, None)
        return DirectLoss(3 * found, log, back)

    agent._loss = tripled  # type: ignore[method-assign]


def _own_moments(agent: RecurrentPPO) -> None:
    def moments(sequences: Any, rows: Tensor) -> list[Moments | None]:
        return [Moments(*map(torch.tensor, (0.5, 2.0, 10.0))) for _ in rows]

    agent._moments = moments  # type: ignore[method-assign]


class Flipped(Sequences):
    def rows(self, index: Tensor) -> Sequences:
        found = super().rows(index)
        found.advantage = -found.advantage
        return found


def _own_rows(agent: RecurrentPPO) -> None:
    made = agent._sequences
    agent._sequences = lambda rollout: Flipped(**vars(made(rollout)))  # type: ignore[method-assign]


def _compare(make: Any) -> set[str]:
    """Train with programs and without; say how minibatches went with them."""
    ways, mine = trained(ONE, make())
    _, theirs = trained(C, make())
    assert_equal(mine, theirs)
    return ways


@pytest.mark.parametrize("change", [_own_loss, _own_moments, _own_rows])
def test_parts_of_an_algorithm_of_ones_own_are_asked(change: Change) -> None:
    assert ONE not in _compare(lambda: changed(agent_of(), change))
    _, own = trained(ONE, changed(agent_of(), change))
    _, plain = trained(ONE, agent_of())
    assert not all(map(torch.equal, own[0], plain[0]))


def _penalty(agent: RecurrentPPO) -> None:
    network: Any = agent.policy.network
    weight, terms = network.action_head.output.weight, network.distribution.log_prob_and_entropy

    def penalized(params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        log_prob, entropy = terms(params, action)
        return log_prob, entropy - weight.square().sum()

    network.distribution.log_prob_and_entropy = penalized


def test_a_loss_whose_graph_reaches_to_a_weight_has_that_gradient_too() -> None:
    agent = {"entropy_coef": 0.05}
    _compare(lambda: changed(agent_of("Pendulum-v1", agent=agent), _penalty))


def test_gradients_that_somebody_keeps_stay_whatever_the_loss() -> None:
    kept: list[list[tuple[Tensor, Tensor]]] = []

    def keep(*_: Any) -> None:
        grads = [one.grad for one in agent.parameters]
        kept.append([(one, one.clone()) for one in grads if one is not None])

    policy = {"action_distribution": NOISY}
    for change in (lambda agent: None, _penalty):
        with changed(agent_of("Pendulum-v1", policy=policy), change) as agent:
            agent.learn(STEPS, on_update=keep)
    assert len(kept) == 6 and all(torch.equal(*pair) for pairs in kept for pair in pairs)


def test_another_log_std_than_the_one_that_is_trained() -> None:
    def make() -> RecurrentPPO:
        agent = agent_of("Pendulum-v1")
        agent.learn(64)
        old = agent.policy.network.log_std
        assert old is not None
        agent.policy.network.log_std = nn.Parameter(torch.full_like(old, -1.0))
        return agent  # whose parameters are those of before

    assert ONE not in _compare(make)


def _noise(agent: RecurrentPPO) -> None:
    distribution: Any = agent.policy.network.distribution
    density = distribution.log_prob_and_entropy

    def noisy(params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return density(params + 0.1 * torch.randn(params.shape), action)

    distribution.log_prob_and_entropy = noisy


@pytest.mark.parametrize("fails", [False, True], ids=["done", "begun anew"])
def test_noise_of_a_loss_is_drawn_once_a_minibatch(fails: bool) -> None:
    def make() -> RecurrentPPO:
        torch.manual_seed(3)
        agent = changed(agent_of("Pendulum-v1"), _noise)
        agent.learn(64)
        return agent

    backward = LossInTorch.backward

    def lost(loss: LossInTorch) -> bool:
        return backward(loss) and not fails

    with mock.patch.object(LossInTorch, "backward", lost):
        _compare(make)


def test_a_graph_that_somebody_keeps_of_a_minibatch_is_refused_behind_the_next_one() -> None:
    kept: list[Tensor] = []
    with agent_of() as agent:
        distribution: Any = agent.policy.network.distribution
        terms = distribution.loss_terms

        def keep(params: Tensor, *rest: Any) -> Any:
            kept.append(params.square().sum())
            return terms(params, *rest)

        agent.learn(64)
        distribution.loss_terms = keep
        agent.learn(64)
    (early, *_) = [one for one in kept if one.requires_grad]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        early.backward()


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_for_steps_that_c_does_not_take_nothing_is_laid_out(optimizer: str) -> None:
    lent = mock.patch.object(minibatch_program, "lend_chains", side_effect=AssertionError)
    with agent_of(agent={"optimizer": optimizer}) as agent, lent:
        agent.learn(STEPS)


def test_what_cannot_be_laid_out_is_tried_once_an_update() -> None:
    tried = []

    class Tried(MinibatchProgram):
        def __init__(self, *args: Any) -> None:
            tried.append(self)
            no_program()

    with agent_of() as agent, mock.patch.object(ppo, "MinibatchProgram", Tried):
        agent.learn(STEPS)
    assert len(tried) == 3  # one an update: the first minibatch of all makes Adam's averages


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def another_default(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """A type of torch's tensors that this library's are not to follow."""
    before = torch.get_default_dtype()
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("pattern", ["m", "s"])
def test_an_agent_of_float32_stays_one_under_another_default(
    env: str, pattern: str, another_default: torch.dtype
) -> None:
    found = []
    for dtype in (torch.float32, another_default):
        torch.set_default_dtype(torch.float32)
        with agent_of(env, memory={"pattern": pattern}, policy={"previous_action": True}) as agent:
            agent.learn(64)
            torch.set_default_dtype(dtype)
            agent.learn(64)
            obs = np.zeros(agent.policy.observation_space.shape, np.float32)
            actor = agent.policy.actor(deterministic=True)
            actions = [actor(obs, reset=not step) for step in range(3)]
            found.append([*[one.detach() for one in agent.parameters], *map(torch.tensor, actions)])
    assert all(map(torch.equal, *found))

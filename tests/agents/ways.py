"""How an update can go: in calls laid out once, all in C, with a graph of the loss, or of all."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from xlstm_rl import RecurrentPPO
from xlstm_rl.agents import base, ppo
from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.agents.direct import direct_loss, placed_loss
from xlstm_rl.agents.minibatch_losses import LossInC
from xlstm_rl.agents.minibatch_program import MinibatchProgram
from xlstm_rl.kernels.native.held import NotCoveredError
from xlstm_rl.policy.direct import direct_pass

STEPS = 16 * 4 * 3
Change = Callable[[RecurrentPPO], Any]


def changed(agent: RecurrentPPO, change: Change) -> RecurrentPPO:
    change(agent)
    return agent


def agent_of(env: Any = "CartPole-v1", **sections: Any) -> RecurrentPPO:
    agent = {"rollout_steps": 16, "epochs": 2, "minibatches": 2, **sections.pop("agent", {})}
    memory = {"width": 16, **sections.pop("memory", {})}
    sections = {"env": {"num_envs": 4}, "logger": "none", **sections}
    return RecurrentPPO(env, memory=memory, agent=agent, **sections)


WAYS = ONE, C, MIXED, SHORT, GRAPH = (
    *("calls laid out once", "C", "calls laid out once around a graph of the loss"),
    *("a graph of the loss alone", "a graph of all"),
)


def no_program(*_: Any) -> Any:
    raise NotCoveredError


def no_loss(*_: Any) -> None:
    return None


def trained(best: str, agent: RecurrentAgent) -> tuple[set[str], list[Any]]:
    """How minibatches went, none better than `best`, and all that came of it.

    Which are the weights, their gradients and the metrics.
    """
    ways: list[str] = []
    rows: list[Any] = []

    def run_all(*args: Any) -> Any:
        found = None if best == GRAPH else direct_pass(*args)
        ways.append(GRAPH if found is None else SHORT)
        return found

    def run_loss(*args: Any) -> Any:
        found = direct_loss(*args) if best in (ONE, C) else None
        if found is not None:
            ways[-1] = C
        return found

    class Program(MinibatchProgram):
        def run(self, *args: Any) -> Any:
            ways.append(ONE if isinstance(self._loss, LossInC) else MIXED)
            found = super().run(*args)
            if found is None:
                del ways[-1]
            return found

    def keep(_: int, metrics: Any) -> None:
        rows.append({k: v for k, v in metrics.items() if not k.startswith("time/")})

    with (
        agent,
        mock.patch.object(base, "direct_pass", run_all),
        mock.patch.object(ppo, "direct_loss", run_loss),
        mock.patch.object(ppo, "placed_loss", placed_loss if best == ONE else no_loss),
        mock.patch.object(ppo, "MinibatchProgram", Program if best in (ONE, MIXED) else no_program),
    ):
        agent.learn(STEPS, on_update=keep)
    weights = [one.detach() for one in agent.parameters]
    return set(ways), [weights, [one.grad for one in agent.parameters], rows]


def assert_equal(mine: list[Any], theirs: list[Any]) -> None:
    for own, other in zip(mine[:2], theirs[:2], strict=True):
        for a, b in zip(own, other, strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)
    assert repr(mine[2]) == repr(theirs[2])


def assert_same_bits(make: Callable[[], RecurrentAgent], best: str) -> None:
    """Minibatches can go as `best` and all that are slower, and nothing tells them apart."""
    found = []
    for way in WAYS[WAYS.index(best) :]:
        if best == C and way == MIXED:  # what is laid out for no loss is laid out for none
            continue
        ways, made = trained(way, make())
        _assert_went(ways, way)
        found.append(made)
    ways, made = trained(ONE, make())
    _assert_went(ways, best)
    for one in found:
        assert_equal(one, made)


def _assert_went(ways: set[str], way: str) -> None:
    if way in (ONE, MIXED):  # but for the first minibatch: torch makes Adam's averages
        assert ways == {way, C if way == ONE else SHORT}
    else:
        assert ways <= {way} and (ways or way == GRAPH)

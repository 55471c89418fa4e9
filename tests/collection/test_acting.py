"""Collecting with a captured step, with a stand-in for the capture."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from xlstm_rl import RecurrentPPO
from xlstm_rl.collection.acting import GraphedStep
from xlstm_rl.collection.collector import Collector
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.memory.kinds import MEMORIES
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

from ..rerun import Rerun

CPU = torch.device("cpu")
MakeEnv = Callable[[AutoresetMode], SyncVectorEnv]


def _collector(env: Any, graph: Callable[..., Any] | None, **options: Any) -> Collector:
    torch.manual_seed(0)
    policy = Policy(
        env.single_observation_space,
        env.single_action_space,
        options.pop("memory", MemoryConfig(width=16, num_heads=2, pattern="ms")),
        PolicyConfig(head_width=16, **options),
        NormalizationConfig(),
    )
    made = Collector(env, policy, 12, 5, 0, torch.Generator().manual_seed(0))
    if graph is not None:
        made._act = GraphedStep(policy.network, CPU, graph)
    return made


def _assert_alike(one: Collector, other: Collector) -> None:
    """Hold rollouts to be the same, but for the rounding of a step in place."""
    mine, theirs = one.collect(), other.collect()
    assert torch.equal(mine.data["action"], theirs.data["action"])
    pairs = [(mine.data.to_dict(), theirs.data.to_dict())]
    pairs.append((mine.segment_states, theirs.segment_states))
    pairs.append((one.carried()["tensors"], other.carried()["tensors"]))
    for ours, plain in pairs:
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", list(MEMORIES.classes))
@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.each_value
def test_rollouts_are_those_of_the_plain_step(
    countdown_vector: MakeEnv, kind: str, critic: str
) -> None:
    mode = AutoresetMode.SAME_STEP
    options = {"memory": MemoryConfig(kind=kind, width=16), "critic": critic}
    plain = _collector(countdown_vector(mode), None, **options)
    graphed = _collector(countdown_vector(mode), lambda _: Rerun(), **options)
    for _ in range(3):
        _assert_alike(graphed, plain)


def test_a_rollout_that_was_cut_off_leaves_no_memory(countdown_vector: MakeEnv) -> None:
    mode = AutoresetMode.NEXT_STEP
    one, other = (_collector(countdown_vector(mode), g) for g in (lambda _: Rerun(), None))
    for collector in (one, other):
        collector.collect()
        collector.is_cut_off = True
    _assert_alike(one, other)


def test_other_weights_at_the_same_place_are_seen_and_elsewhere_captured(
    countdown_vector: MakeEnv,
) -> None:
    captures = []
    graphs = [lambda _: captures.append(None) or Rerun(), None]  # type: ignore[func-returns-value]
    one, other = (_collector(countdown_vector(AutoresetMode.SAME_STEP), g) for g in graphs)
    _assert_alike(one, other)
    for collector in (one, other):
        with torch.no_grad():
            for weight in collector.policy.network.parameters():
                weight.mul_(1.1)
    _assert_alike(one, other)
    assert len(captures) == 1
    for collector in (one, other):
        network = collector.policy.network
        weights = {name: 0.9 * weight for name, weight in network.state_dict().items()}
        network.load_state_dict(weights, assign=True)
    _assert_alike(one, other)
    assert len(captures) == 2


class Waits:
    """What a capture does to a network that asks the GPU for a number."""

    def capture(self, run: Callable[[], Any]) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    def replay(self) -> None:
        raise AssertionError


def test_what_cannot_be_captured_acts_without_and_says_so_once(countdown_vector: MakeEnv) -> None:
    graphs = [lambda _: Waits(), None]
    one, other = (_collector(countdown_vector(AutoresetMode.SAME_STEP), g) for g in graphs)
    with pytest.warns(RuntimeWarning, match=r"cannot be captured: CUDA error: .*capturing$"):
        _assert_alike(one, other)
    _assert_alike(one, other)  # a second warning would be an error


def test_the_state_of_an_episode_is_handed_over(countdown_vector: MakeEnv) -> None:
    mode = AutoresetMode.SAME_STEP
    one, other = (_collector(countdown_vector(mode), g) for g in (lambda _: Rerun(), None))
    _assert_alike(one, other)
    carried = one.carried()
    own = tuple(tensor.clone() for tensor in carried["tensors"])
    one.carry_on({**carried, "tensors": own})
    _assert_alike(one, other)


@pytest.mark.gpu
@pytest.mark.parametrize("tensors", [True, False])
@pytest.mark.parametrize("kind", list(MEMORIES.classes))
def test_on_a_gpu_rollouts_from_a_graph_are_those_without(kind: str, tensors: bool) -> None:
    collectors = []
    for graphed in (True, False):
        agent = RecurrentPPO(
            "xlstm_rl/MemoryChain-v0",
            device="cuda",
            env={"num_envs": 8, "kwargs": {"length": 4, "tensors": tensors}},
            memory={"kind": kind},
            agent={"rollout_steps": 12},
            logger={"kind": "none"},
        )
        collector = agent._make_collector()
        assert isinstance(collector, Collector)
        assert isinstance(collector._act, GraphedStep)
        if not graphed:
            collector._act = agent.policy.network.actor_step
        collectors.append(collector)
    for _ in range(3):
        _assert_alike(*collectors)

"""PPO's gradients without a graph of torch's: the same bits as with one."""

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from xlstm_rl import RecurrentPPO
from xlstm_rl.agents import base, minibatch_program, ppo
from xlstm_rl.agents.direct import direct_loss, placed_loss
from xlstm_rl.agents.minibatch_program import MinibatchProgram
from xlstm_rl.errors import NonFiniteLossError
from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.program import Program
from xlstm_rl.kernels.native.sequence_chain import SequenceChain
from xlstm_rl.policy.direct import direct_pass

from .ways import (
    GRAPH,
    MIXED,
    ONE,
    STEPS,
    WAYS,
    C,
    agent_of,
    assert_same_bits,
    no_loss,
    no_program,
)

pytestmark = pytest.mark.skipif(not LOADED, reason="without the C library there is always a graph")


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize(
    "memory, agent",
    [
        ({}, {}),
        ({"pattern": "ms"}, {"value_clip": 0.2, "segment_steps": 8}),
        ({"kind": "lstm"}, {"log_barrier_coef": 0.0, "normalize_advantage": False}),
        ({"kind": "gru"}, {"max_grad_norm": 0.01}),
    ],
)
@pytest.mark.each_value
def test_the_bits_are_those_of_a_graph(
    memory: dict[str, Any], agent: dict[str, Any], critic: str
) -> None:
    assert_same_bits(lambda: agent_of(memory=memory, agent=agent, policy={"critic": critic}), ONE)


SIDE_BY_SIDE: list[Any] = [
    spaces.MultiDiscrete([3, 3]),
    spaces.MultiDiscrete([2, 4, 1]),
    spaces.MultiDiscrete([[2, 3], [4, 2]]),
    spaces.MultiBinary(3),
]


@pytest.mark.parametrize("space", SIDE_BY_SIDE, ids=str)
def test_the_bits_of_choices_side_by_side_are_those_of_a_graph_too(
    space: Any, any_spaces: Any
) -> None:
    def env() -> Any:
        return any_spaces(*copy.deepcopy((spaces.Box(-1, 1, (3,)), space)))

    assert_same_bits(lambda: agent_of(env), ONE)


@pytest.mark.parametrize("where", ["info", "observation"])
@pytest.mark.parametrize(
    ("space", "mask"),
    [
        (spaces.Discrete(4), spaces.MultiBinary(4)),
        (SIDE_BY_SIDE[0], spaces.Tuple([spaces.MultiBinary(3)] * 2)),
    ],
    ids=str,
)
def test_the_bits_of_masked_choices_are_those_of_a_graph_too(
    space: Any, mask: Any, where: str, any_spaces: Any
) -> None:
    seen = spaces.Dict(x=spaces.Box(-1, 1, (3,)))
    if where == "observation":
        seen["action_mask"] = mask

    def env() -> Any:
        return any_spaces(*copy.deepcopy((seen, space)), mask_in=where)

    assert_same_bits(lambda: agent_of(env, policy={"action_mask": where}), ONE)


FREE: dict[str, Any] = {}
STATE = {"std": "state", "initial_log_std": -0.7}


@pytest.mark.parametrize("std", [FREE, STATE], ids=["free", "state"])
@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize(
    ("memory", "agent"),
    [
        ({}, {"entropy_coef": 0.01}),
        ({"pattern": "ms"}, {"segment_steps": 8, "value_clip": 0.2}),
    ],
)
@pytest.mark.each_value
def test_the_bits_of_numbers_are_those_of_a_graph_too(
    memory: dict[str, Any], agent: dict[str, Any], critic: str, std: dict[str, Any]
) -> None:
    policy = {"critic": critic, "action_distribution": std}
    sections: dict[str, Any] = {"memory": memory, "agent": agent, "policy": policy}
    assert_same_bits(lambda: agent_of("Pendulum-v1", **sections), ONE)


def test_a_weight_in_two_places_has_the_sum_of_both_gradients() -> None:
    def make() -> RecurrentPPO:
        agent = agent_of(policy={"critic": "separate", "previous_action": False})
        network: Any = agent.policy.network
        network.critic_trunk.encoder[0].weight = network.trunk.encoder[0].weight
        agent.parameters = [*network.parameters()]
        agent.optimizer = agent.make_optimizer()
        return agent

    assert_same_bits(make, C)


def test_gradients_are_there_behind_an_update_and_stay_as_they_are() -> None:
    kept: list[list[Tensor]] = []

    def keep(*_: Any) -> None:
        grads = [one.grad for one in agent.parameters]
        kept.append([one for one in grads if one is not None])
        copies.append([one.clone() for one in kept[-1]])

    copies: list[list[Tensor]] = []
    with agent_of() as agent:
        agent.learn(STEPS, on_update=keep)
    for one, two in zip(kept, copies, strict=True):
        assert len(one) == len(agent.parameters)
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(*kept[:2], strict=True))


@pytest.mark.parametrize("broken", ["advantage", "target", "log_prob", "weight", "gradient"])
def test_what_is_not_finite_is_refused_as_it_is_with_a_graph(broken: str) -> None:
    said = []
    for best in WAYS:
        agent = agent_of(agent={"minibatches": 1})
        with (
            agent,
            mock.patch.object(ppo, "direct_loss", direct_loss if best in (ONE, C) else no_loss),
            mock.patch.object(
                *(ppo, "MinibatchProgram"),
                MinibatchProgram if best in (ONE, MIXED) else no_program,
            ),
            mock.patch.object(ppo, "placed_loss", placed_loss if best == ONE else no_loss),
            mock.patch.object(base, "direct_pass", no_loss if best == GRAPH else direct_pass),
        ):
            agent.learn(64)
            rollout = agent._make_collector().collect()
            sequences = agent._sequences(rollout)
            if broken == "weight":
                agent.parameters[0].data[0, 0] = float("nan")
            elif broken == "gradient":
                sequences.advantage[0, 3] = 1e30
                sequences.target[1, 2] = 1e25
            else:
                getattr(sequences, broken)[0, 3] = float("nan")
            before = [one.detach().clone() for one in agent.parameters]
            with (
                mock.patch.object(agent, "_sequences", return_value=sequences),
                pytest.raises(NonFiniteLossError) as error,
            ):
                agent.update(rollout, 0.0)
            said.append(str(error.value))
            for now, one in zip(agent.parameters, before, strict=True):
                assert torch.equal(now.nan_to_num(7.0), one.nan_to_num(7.0))
    assert len({*said}) == 1 and len(said) == len(WAYS)


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_a_gradient_that_c_refuses_is_that_of_the_modules(critic: str) -> None:
    with (
        mock.patch.object(SequenceChain, "backward", no_loss),
        mock.patch.object(Program, "run", return_value=1),
    ):
        assert_same_bits(lambda: agent_of(policy={"critic": critic}), C)


@pytest.mark.parametrize("last", ["xl_choice_loss", "xl_dense_backward", "xl_adam"])
def test_a_minibatch_whose_calls_fail_goes_the_ordinary_way(last: str) -> None:
    run = Program.run

    def fail(program: Program) -> int:
        return 1 if program.calls[-1].name == last else run(program)

    with mock.patch.object(Program, "run", fail):
        assert_same_bits(agent_of, C)


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_parts_of_an_observation_are_read_by_calls_laid_out_once_too(
    critic: str, any_spaces: Any
) -> None:
    parts = {"there": spaces.Box(-1, 1, (3,)), "which": spaces.Discrete(4)}

    def env() -> Any:
        return any_spaces(*copy.deepcopy((spaces.Dict(parts), spaces.Discrete(3))))

    policy = {"critic": critic, "previous_action": True}
    assert_same_bits(lambda: agent_of(env, policy=policy), ONE)


def test_codes_of_a_whole_update_that_are_many_are_made_by_each_minibatch() -> None:
    def make() -> RecurrentPPO:
        return agent_of(policy={"previous_action": True})

    assert_same_bits(make, ONE)
    with mock.patch.object(minibatch_program, "MOST_CODES", 16 * 4 * 6 - 1):  # vector and action
        assert_same_bits(make, C)


def test_torch_hears_that_the_weights_are_others() -> None:
    with agent_of() as agent:
        agent.learn(64)
        before = agent.parameters[0].square().sum()
        agent.learn(64)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            before.backward()


def test_the_network_is_nobodys_behind_an_update() -> None:
    """Else a graph that somebody makes there would be torch's, and slower."""
    with agent_of() as agent:
        agent.learn(128)
        network = agent.policy.network
        assert network._native_sequences.lend(network, (2, 16)) is not None


def test_a_minibatch_of_ones_own_is_asked() -> None:
    class Own(RecurrentPPO):
        algo = "ppo"

        def _minibatch(self, *args: Any) -> dict[str, Tensor]:
            return {"approx_kl": torch.zeros(())}

    with Own("CartPole-v1", memory={"width": 16}, logger="none") as agent:
        before = [one.detach().clone() for one in agent.parameters]
        agent.learn(64)
        assert all(torch.equal(a, b) for a, b in zip(agent.parameters, before, strict=True))

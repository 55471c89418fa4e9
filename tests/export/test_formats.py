"""Exported files act as their policies do, step after step, from their own state."""

import json
import logging

import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl.export import export_policy, onnx, pt2
from xlstm_rl.export.parity import largest_difference
from xlstm_rl.export.step import ExportedStep

from .conftest import BOX, CASES, COMPARED, make_policy

# writing ONNX takes seconds: the default run has two
FEW = ("discrete ms", "mask in the observation, mlp")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in CASES if name not in FEW]


def moved(policy):
    """With statistics of observations that are not those of a fresh policy."""
    if (
        policy.normalizer.__class__.__name__ == "ObservationNormalizer"
        and policy.normalizer.moments
    ):
        size = policy.normalizer.moments.mean.numel()
        policy.normalizer.update(3 * torch.randn(100, size, dtype=torch.float64) + 1)
    return policy


@pytest.mark.parametrize("case", [*FEW, *SLOW])
@pytest.mark.few(1)
def test_onnx_acts_as_the_policy(case, tmp_path):
    policy = moved(make_policy(*CASES[case]))
    path = export_policy(policy, tmp_path / "policy.onnx")
    step = ExportedStep(policy)
    worst, where = largest_difference(step, onnx.load(path), steps=200)
    assert worst < 1e-4, where


# each memory alone is exported in tests/memory
OF_PT2 = [pytest.param(name, marks=[pytest.mark.slow] * (name in COMPARED)) for name in CASES]


@pytest.mark.parametrize("case", OF_PT2)
@pytest.mark.few(1)
def test_pt2_acts_as_the_policy(case, tmp_path):
    policy = moved(make_policy(*CASES[case]))
    path = export_policy(policy, tmp_path / "policy.pt2", "pt2")
    worst, where = largest_difference(ExportedStep(policy), pt2.load(path), steps=60)
    assert worst < 1e-4, where


def test_the_step_is_what_an_actor_does(policy):
    """Against `policy.act`, which reads masks and rewards in its own way."""
    policy, step = moved(policy), ExportedStep(policy)
    rng, state = np.random.default_rng(0), None
    mine = [port.example(2) for port in step.ports.state]
    policy.observation_space.seed(0)
    for number in range(30):
        obs = [policy.observation_space.sample() for _ in range(2)]
        for one in obs:
            if isinstance(one, dict) and "mask" in one:
                one["mask"][rng.integers(4)] = 1
        batch = _stack(obs)
        reset = np.array([number == 0, number % 7 == 0])
        reward = rng.normal(size=2).astype(np.float32)
        mask = rng.random((2, step.policy.auxiliary_reader.mask.width)) < 0.5
        mask[:, 0] = True
        reads_mask = "action_mask" in step.ports.input_names
        action, state = policy.act(
            batch, state, reset, reward=reward, action_mask=mask if reads_mask else None
        )
        given = {"reset": reset, "reward": reward, "action_mask": mask}
        leaves = _leaves(batch)
        found = step(
            *(torch.from_numpy(np.ascontiguousarray(x)) for x in leaves),
            *(torch.from_numpy(given[port.name]) for port in step.ports.others),
            *mine,
        )
        count = len(step.ports.action)
        for a, b in zip(found[:count], _leaves(action), strict=True):
            np.testing.assert_allclose(a.numpy(), b, atol=1e-5)
        mine = list(found[count:])


def test_metadata_says_what_a_reader_needs(tmp_path):
    import onnx as library

    policy = make_policy(*CASES["previous inputs, lstm"])
    path = export_policy(policy, tmp_path / "policy.onnx")
    model = library.load(path)
    described = json.loads({p.key: p.value for p in model.metadata_props}["xlstm_rl"])
    names = [one["name"] for one in described["inputs"]]
    state = ["previous.action", "previous.started", "memory.h", "memory.c"]
    assert names == ["obs", "reset", "reward", *(f"state.{name}" for name in state)]
    assert described["outputs"] == ["action", *(f"next.{name}" for name in state)]
    assert [one.name for one in model.graph.input] == names
    assert [one.name for one in model.graph.output] == described["outputs"]
    assert described["observation_space"]["type"] == "MultiDiscrete"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_names_of_a_memory_s_state():
    step = ExportedStep(make_policy(BOX, spaces.Discrete(3), {"pattern": "ms"}, {}))
    assert step.ports.input_names[:6] == [
        *("obs", "reset", "state.memory.block_0.conv", "state.memory.block_0.C"),
        *("state.memory.block_0.n", "state.memory.block_0.m"),
    ]
    assert step.ports.output_names[-1] == "next.memory.block_1.m"


def test_the_batch_size_is_free(tmp_path):
    policy = make_policy(BOX, spaces.Discrete(3), {"kind": "gru"}, {})
    run = pt2.load(export_policy(policy, tmp_path / "policy.pt2", "pt2"))
    step = ExportedStep(policy)
    for rows in (1, 5):
        inputs = {port.name: port.example(rows).numpy() for port in step.ports.inputs}
        assert run(inputs)["action"].shape == (rows,)


def test_a_name_without_an_ending_is_no_reason_to_warn(tmp_path, caplog, capfd):
    policy = make_policy(BOX, spaces.Discrete(3), {"kind": "gru"}, {})
    export_policy(policy, tmp_path / "policy", "pt2", check=True)
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert not capfd.readouterr().err


def test_the_policy_stays_as_it_is(tmp_path):
    policy = make_policy(BOX, spaces.Discrete(3), {"kind": "gru"}, {"critic": "separate"})
    policy = policy.double().train()
    before = {name: x.clone() for name, x in policy.state_dict().items()}
    export_policy(policy, tmp_path / "policy.pt2", "pt2", check=True)
    assert policy.training and policy.dtype == torch.float64
    assert policy.network.critic_trunk is not None
    for name, x in policy.state_dict().items():
        assert torch.equal(x, before[name])


def _stack(values):
    first = values[0]
    if isinstance(first, dict):
        return {key: _stack([one[key] for one in values]) for key in first}
    if isinstance(first, tuple):
        return tuple(_stack(list(parts)) for parts in zip(*values, strict=True))
    return np.stack([np.asarray(one) for one in values])


def _leaves(value):
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in _leaves(part)]
    if isinstance(value, tuple):
        return [leaf for part in value for leaf in _leaves(part)]
    return [value]

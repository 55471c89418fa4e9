"""Exported C files act as their policies do, whatever memory and spaces these have."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl.errors import ExportError
from xlstm_rl.export import c, export_policy
from xlstm_rl.export.c.compiled import CompiledPolicy
from xlstm_rl.export.parity import _own, largest_difference
from xlstm_rl.export.step import ExportedStep
from xlstm_rl.memory.config import MEMORIES

from .c_cases import ALL, PATTERNS, ExactStep
from .conftest import BOX, CASES, make_policy
from .test_formats import moved

FAST = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-O1")


@pytest.fixture
def small():
    return make_policy(BOX, spaces.Discrete(3), {"kind": "mlp"}, {})


@pytest.fixture(autouse=True)
def _quickly_compiled(monkeypatch):
    monkeypatch.setattr("xlstm_rl.export.c.compiled.FLAGS", FAST)


@pytest.mark.parametrize("case", ALL)
@pytest.mark.few(14)
def test_c_acts_as_the_policy(case, tmp_path):
    """In double precision; where torch in single precision is further off, so may C be."""
    policy = moved(make_policy(*ALL[case]))
    path, step = export_policy(policy, tmp_path / "policy.c", "c"), ExportedStep(policy)
    exact = ExactStep(step)
    worst, where = largest_difference(exact, c.load(path), steps=80)
    if worst >= 1e-4:
        assert worst < largest_difference(exact, partial(_own, step), steps=80)[0], where


@pytest.mark.parametrize(
    "case", ["m", "ms, exponential gates", "lstm of two layers", "gru of two layers"]
)
@pytest.mark.few(2)
def test_a_thousand_steps_do_not_drift(case, tmp_path):
    policy = moved(make_policy(*ALL[case]))
    assert export_policy(policy, tmp_path / "policy.c", "c", check=True).is_file()


INT8 = ("msm, odd sizes", "m, dense q, k, v", "gru of two layers", "dict with images, s")
INT8 += ("transformer with gates", "mamba2 of odd sizes", "rwkv of odd sizes")
INT8_SLOW = [pytest.param(one, marks=pytest.mark.slow) for one in PATTERNS if one not in INT8]


@pytest.mark.parametrize("case", [*INT8, *INT8_SLOW])
@pytest.mark.few(3)
def test_int8_acts_as_the_policy_with_rounded_weights(case, tmp_path):
    policy = moved(make_policy(*ALL[case]))
    step = ExportedStep(policy)
    path = tmp_path / "policy.c"
    c.write(step, path, {"xlstm_rl": "", "inputs": _inputs(step)}, int8=True)
    worst, where = largest_difference(ExactStep(step), c.load(path), steps=80)
    assert worst < 1e-4, where


def _inputs(step):
    return [port.description() for port in step.ports.inputs]


def test_rounded_weights_are_at_most_half_a_level_off(tmp_path):
    policy = make_policy(*CASES["discrete ms"])
    step = ExportedStep(policy)
    c.write(step, tmp_path / "policy.c", {"xlstm_rl": "", "inputs": _inputs(step)}, int8=True)
    before = dict(policy.named_parameters())
    changed = []
    for name, after in step.policy.named_parameters():
        if torch.equal(after, before[name]):
            continue
        changed.append(name)
        largest = before[name].abs().max()
        assert (after - before[name]).abs().max() <= 0.5001 * largest / 127, name
    assert len(changed) == 3 + 4 + 4  # of encoder and head, of the mLSTM, of the sLSTM
    whole = export_policy(policy, tmp_path / "whole.c", "c").with_suffix(".weights")
    small = (tmp_path / "policy.weights").stat().st_size
    assert small < whole.stat().st_size / 2


@pytest.mark.parametrize("bounds", ["clip", "tanh"])
def test_the_deviations_of_gsde_follow_the_memory(bounds, tmp_path):
    config = {"action_distribution": {"std": "gsde", "bounds": bounds}}
    policy = make_policy(BOX, spaces.Box(-2.0, 2.0, (2,), np.float32), {}, config)
    with torch.no_grad():
        policy.network.exploration.log_sigma.normal_()
    run = CompiledPolicy(export_policy(policy, tmp_path / "policy.c", "c"))
    tensors, rng = policy.initial_tensors(1), np.random.default_rng(0)
    for t in range(5):
        obs = rng.normal(size=BOX.shape).astype(np.float32)
        run.give({"reset": np.array(t == 0), "obs": obs})
        assert run.step() == 0
        raw, _, _ = policy.reader.read(obs[None], None, "")
        params, tensors = policy.network.action_step(policy.normalizer(raw), tensors, None)
        expected = params[0].detach().numpy()
        np.testing.assert_allclose(run.outputs()["params"], expected, atol=1e-4)


def test_the_parameters_of_the_distribution_are_those_of_the_policy(tmp_path):
    """Logits; means and log standard deviations with their limits, as samples need them."""
    case = ALL["a tuple of everything"]
    policy = make_policy(*case[:3], {})
    with torch.no_grad():
        policy.network.log_std.fill_(50.0)  # beyond what a deviation may be
    run = CompiledPolicy(export_policy(policy, tmp_path / "policy.c", "c"))
    policy.observation_space.seed(3)
    obs = policy.observation_space.sample()
    names = ["obs.0", "obs.1", "obs.2", "obs.3"]
    run.give({"reset": np.array(True), **dict(zip(names, obs, strict=True))})
    assert run.step() == 0
    found = run.outputs()
    batch = tuple(np.asarray(one)[None] for one in obs)
    raw, _, _ = policy.reader.read(batch, None, "")
    params, _ = policy.network.action_step(policy.normalizer(raw), policy.initial_tensors(1), None)
    expected = params[0].detach().numpy()
    logits, mean = expected[:12], expected[12:14]
    np.testing.assert_allclose(found["params_0"], logits[:3], atol=1e-5)
    np.testing.assert_allclose(found["params_1"], logits[3:8], atol=1e-5)
    np.testing.assert_allclose(found["params_2"], expected[8:16], atol=1e-5)
    np.testing.assert_allclose(found["params_3"][:2], expected[16:18], atol=1e-5)
    np.testing.assert_array_equal(found["params_3"][2:], [40.0, 40.0])
    assert mean.shape == (2,)


def test_a_choice_outside_its_space_is_refused_and_nothing_is_read(tmp_path):
    policy = make_policy(*ALL["a tuple of everything"][:3], {})
    run = CompiledPolicy(export_policy(policy, tmp_path / "policy.c", "c"))
    obs = {"obs.0": np.zeros(3, np.float32), "obs.2": np.zeros((2, 2), np.int8)}
    good, bad = np.array([1, -4]), np.array([1, -5])
    for pair, last, expected in (
        (good, 2, 0),
        (bad, 2, 1),
        (good, 3, 2),
        (good, -1, 2),
        (np.array([2**62, 0]), 0, 1),
    ):
        run.give({"reset": np.array(True), **obs, "obs.1": pair, "obs.3": np.array(last)})
        assert run.step() == expected


def test_functions_and_sizes_are_called_after_the_file(small, tmp_path):
    text = export_policy(small, tmp_path / "left-arm.c", "c").read_text()
    assert "int left_arm_step(const void *weights" in text and "LEFT_ARM_STATE" in text
    assert CompiledPolicy(tmp_path / "left-arm.c").description["c"]["name"] == "left_arm"


def test_metadata_names_inputs_spaces_and_version(small, tmp_path):
    from xlstm_rl import __version__

    found = CompiledPolicy(export_policy(small, tmp_path / "policy.c", "c")).description
    assert found["xlstm_rl"] == __version__
    assert found["observation_space"]["type"] == "Box"
    assert found["action_space"]["type"] == "Discrete"
    assert [one["name"] for one in found["inputs"]] == ["obs", "reset"]
    assert found["outputs"] == ["action"]


def test_names_of_leaves_become_fields(tmp_path):
    space = spaces.Dict(
        {"a b": BOX, "a.b": BOX, "for": BOX, "*/ \\": BOX, "ä": BOX, "??/": spaces.Discrete(2)}
    )
    policy = make_policy(space, spaces.Dict({"1": spaces.Discrete(2)}), {"kind": "gru"}, {})
    path = export_policy(policy, tmp_path / "policy.c", "c")
    worst, where = largest_difference(ExportedStep(policy), c.load(path), steps=5)
    assert worst < 1e-4, where


SAMPLED = ("choices side by side", "bits", "double numbers", "bounds of all kinds")
SAMPLED += ("squashed, deviation of the state", "a tuple of everything")


@pytest.mark.parametrize("case", SAMPLED)
def test_an_action_that_the_caller_took_instead_is_remembered(case, tmp_path):
    """As `policy.act` remembers a sample: by the features of its distribution."""
    policy = make_policy(*ALL[case])
    run = CompiledPolicy(export_policy(policy, tmp_path / "policy.c", "c"))
    policy.action_space.seed(1)
    distribution, fields = policy.network.distribution, run.description["c"]["outputs"]
    for _ in range(5):
        action = policy.action_space.sample()
        leaves = action if isinstance(action, tuple) else (action,)
        run.acted({one[0]: np.asarray(x) for one, x in zip(fields, leaves, strict=False)})
        batch = tuple(torch.from_numpy(np.asarray(x))[None] for x in leaves)
        own = distribution.from_env(batch if isinstance(action, tuple) else batch[0])
        expected = distribution.features(own)[0].numpy()
        np.testing.assert_allclose(run.state[: expected.size], expected, atol=1e-5)


def test_a_policy_without_previous_actions_has_nothing_to_remember(small, tmp_path):
    run = CompiledPolicy(export_policy(small, tmp_path / "policy.c", "c"))
    with pytest.raises(ExportError, match="reads no previous action"):
        run.acted({})


WRITTEN = {"xlstm", "lstm", "gru", "mlp", "framestack", "mingru", "transformer", "mamba2", "rwkv"}


@pytest.mark.parametrize("kind", sorted(MEMORIES.classes))
@pytest.mark.few(4)
def test_every_registered_memory_is_written_or_refused_in_one_line(kind, tmp_path):
    policy = make_policy(BOX, spaces.Discrete(3), {"kind": kind}, {})
    try:
        assert export_policy(policy, tmp_path / "policy.c", "c", check=True).is_file()
    except ExportError as error:
        assert "c does not support the memory" in str(error) and list(tmp_path.iterdir()) == []
        assert kind not in WRITTEN


@pytest.mark.parametrize("part", [{"input_gate": "sigmoid"}, {"normalizer": False}], ids=str)
@pytest.mark.parametrize("pattern", ["m", "s"])
def test_cells_without_a_part_are_refused_in_one_line(pattern, part, tmp_path):
    policy = make_policy(BOX, spaces.Discrete(3), {"pattern": pattern, **part}, {})
    with pytest.raises(
        ExportError, match=r"not support memory\.input_gate=sigmoid or memory\.normalizer"
    ):
        export_policy(policy, tmp_path / "policy.c", "c")
    assert list(tmp_path.iterdir()) == []

"""The numbers of an episode are those of the equations, and of what the policy says elsewhere."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl.inspection.parts import Block
from xlstm_rl.inspection.recording import record
from xlstm_rl.inspection.trace import Columns, gate_columns, trace
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.memory.gates import Gates
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

from .policies import remembers_the_cue

BOX = spaces.Box(-np.inf, np.inf, (2,), np.float32)


def _traced(
    any_spaces: Any,
    memory: dict[str, Any],
    action: Any = None,
    observation: Any = None,
    **options: Any,
) -> tuple[Policy, Any, Columns]:
    action = spaces.Discrete(3, start=2) if action is None else action
    policy = Policy(
        BOX if observation is None else observation,
        action,
        MemoryConfig(**{"width": 16, **memory}),
        PolicyConfig(**options),
        NormalizationConfig(),
    ).double()
    env = any_spaces(policy.observation_space, action)
    (episode,), _ = record(policy, env, deterministic=False, frames=False)
    read = episode.read_by(policy)
    return policy, (episode, read), trace(policy, episode, read)


def test_what_the_policy_says_is_what_it_says_of_the_same_actions(any_spaces: Any) -> None:
    policy, (episode, _), found = _traced(any_spaces, {"pattern": "ms", "num_heads": 2})
    obs, actions = np.stack(episode.observations[:-1]), np.stack(episode.actions)
    known = policy.evaluate_actions(obs[None], actions[None])
    for name in ("value", "log_prob", "entropy"):
        np.testing.assert_allclose(found[name], getattr(known, name)[0].detach(), rtol=1e-6)
    chosen = [found[f"probability/{action}"][t] for t, action in enumerate(actions)]
    np.testing.assert_allclose(np.log(chosen), found["log_prob"], rtol=1e-6)
    assert found["action"].tolist() == actions.tolist()
    np.testing.assert_allclose(found["observation/1"], obs[:, 1])
    np.testing.assert_allclose(found["return"], np.cumsum(episode.rewards))


@pytest.mark.parametrize(
    ("memory", "tensors", "parts"),
    [
        ({"pattern": "ms", "num_heads": 2}, ("0:C n", "1:h c n"), ("0.0", "0.1", "1.0", "1.1")),
        (
            {"pattern": "ms", "num_heads": 2, "normalizer": False},
            ("0:C", "1:h c"),
            ("0.0", "0.1", "1.0", "1.1"),
        ),
        ({"kind": "lstm", "num_blocks": 2}, ("0:h c",), ("0.0", "0.1")),
        ({"kind": "gru"}, ("0:h",), ("0.0",)),
    ],
)
def test_every_head_has_its_gates_and_norms(
    memory: Any, tensors: Any, parts: Any, any_spaces: Any
) -> None:
    _, (episode, _), found = _traced(any_spaces, memory, critic="separate")
    expected = set()
    for owner in ("memory", "critic_memory"):
        for part in parts:
            names = ["input_gate", "forget_gate", "length", "age"]
            held = next(one[2:] for one in tensors if one[0] == part[0])
            names += [f"norm_{name}" for name in held.split()]
            expected |= {f"{owner}/{part}/{name}" for name in names}
    assert {name for name in found if "memory/" in name} == expected
    assert all(one.shape == (episode.length,) and np.isfinite(one).all() for one in found.values())


def test_a_policy_without_memory_has_no_rows_of_it(any_spaces: Any) -> None:
    _, _, found = _traced(any_spaces, {"kind": "mlp"})
    assert not [name for name in found if "memory/" in name] and "value" in found


def test_normals_and_parts_have_their_names(any_spaces: Any) -> None:
    action = spaces.Dict({"go": spaces.Discrete(2), "turn": spaces.Box(-2, 2, (2,), np.float32)})
    observation = spaces.Dict({"eye": spaces.Box(0, 255, (36, 36, 3), np.uint8), "pose": BOX})
    _, _, found = _traced(any_spaces, {"kind": "gru"}, action, observation)
    assert {name for name in found if "memory/" not in name} == {
        *("observation/pose/0", "observation/pose/1", "reward", "return"),
        *("action/go", "action/turn/0", "action/turn/1", "value", "entropy", "log_prob"),
        *("go/probability/0", "go/probability/1"),
        *("turn/mean/0", "turn/mean/1", "turn/std/0", "turn/std/1"),
    }


def test_of_many_choices_the_most_probable_are_shown(any_spaces: Any) -> None:
    _, _, found = _traced(any_spaces, {"kind": "gru"}, spaces.Discrete(300))
    assert len([name for name in found if name.startswith("probability/")]) == 16


def test_lengths_and_ages_are_those_of_constant_gates() -> None:
    keep, new = torch.full((1, 6, 2), 0.5).log(), torch.zeros(1, 6, 2)
    keep[..., 1] = 0.0  # the second head forgets nothing
    found = dict(gate_columns([Block("0", 2, {}, frozenset())], {"0": Gates(new, keep)}))
    assert found["0.0/length"] == pytest.approx([1 / np.log(2)] * 6)
    assert found["0.1/length"] == pytest.approx([1e6] * 6)
    weights = 0.5 ** np.arange(6)
    ages = [np.average(np.arange(t + 1), weights=weights[: t + 1]) for t in range(6)]
    assert found["0.0/age"] == pytest.approx(ages)
    assert found["0.1/age"] == pytest.approx(np.arange(6) / 2)


def test_what_is_written_once_grows_old_with_the_episode() -> None:
    new = torch.full((1, 5, 1), -40.0)
    new[0, 1] = 3.0
    found = dict(
        gate_columns([Block("0", 1, {}, frozenset())], {"0": Gates(new, torch.zeros(1, 5, 1))})
    )
    assert found["0.0/age"] == pytest.approx([0, 0, 1, 2, 3])


def test_units_of_a_head_are_averaged() -> None:
    forget = torch.tensor([0.2, 0.6]).log().expand(1, 1, 1, 2)
    new = torch.tensor([1.0, 4.0]).log().expand(1, 1, 1, 2)
    found = dict(gate_columns([Block("0", 1, {}, frozenset())], {"0": Gates(new, forget)}))
    assert float(found["0.0/forget_gate"][0]) == pytest.approx(0.4)
    assert float(found["0.0/input_gate"][0]) == pytest.approx(2.0)
    assert float(found["0.0/length"][0]) == pytest.approx(
        np.mean([-1 / np.log(0.2), -1 / np.log(0.6)])
    )


@torch.no_grad()
def test_norms_are_those_of_the_state_without_its_scale(any_spaces: Any) -> None:
    policy, (_, read), found = _traced(any_spaces, {"pattern": "ms", "num_heads": 2})
    memory, x = policy.network.trunk.memory, policy.network.trunk.encoder(read.observation)
    _, state = memory(x)
    m, n, C = (state["block_0", name][0] for name in ("m", "n", "C"))
    for head in (0, 1):
        assert found[f"memory/0.{head}/norm_n"][-1] == pytest.approx(
            float(n[head].norm() * m[head].exp())
        )
        assert found[f"memory/0.{head}/norm_C"][-1] == pytest.approx(
            float(C[head].norm() * m[head].exp())
        )
        own = {name: state["block_1", name][0, head] for name in ("h", "c", "m")}
        assert found[f"memory/1.{head}/norm_h"][-1] == pytest.approx(float(own["h"].norm()))
        scaled = own["c"] * own["m"].exp()
        assert found[f"memory/1.{head}/norm_c"][-1] == pytest.approx(float(scaled.norm()))


def test_the_hand_set_memory_holds_the_cue_as_long_as_the_episode_lasts() -> None:
    policy = remembers_the_cue(10)
    (episode,), _ = record(policy, frames=False)
    found = trace(policy, episode, episode.read_by(policy))
    held = 2 * np.tanh(2.0)  # the cue is shown twice
    assert found["memory/0.0/norm_c"][1:] == pytest.approx([held] * 10, rel=1e-5)
    assert found["observation/2"][:2] == pytest.approx([found["observation/2"][0]] * 2)

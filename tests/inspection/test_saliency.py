"""The weights of the past are those of finite differences, and find what a policy remembers."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl.inspection.recording import record
from xlstm_rl.inspection.saliency import Saliency, find_saliency
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig
from xlstm_rl.policy.queries import Sequences

from .policies import remembers_the_cue, remembers_the_sign, repeats

BOX = spaces.Box(-np.inf, np.inf, (2,), np.float32)
NESTED = spaces.Dict(
    {"pose": BOX, "door": spaces.Discrete(3), "cards": spaces.MultiDiscrete([2, 3])}
)
CASES: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    "ms, discrete": (
        BOX,
        spaces.Discrete(3),
        {"pattern": "ms", "num_heads": 2},
        {"critic": "separate"},
    ),
    "s, box": (BOX, spaces.Box(-2, 3, (2,)), {"pattern": "s", "num_heads": 2}, {}),
    "lstm, previous": (
        BOX,
        spaces.MultiDiscrete([2, 3]),
        {"kind": "lstm"},
        {"previous_action": True, "previous_reward": True, "first_step": True},
    ),
    "gru, separate critic": (BOX, spaces.Discrete(2), {"kind": "gru"}, {"critic": "separate"}),
    "m, parts": (NESTED, spaces.Discrete(4), {"pattern": "m", "num_heads": 2}, {}),
    "image": (
        spaces.Box(0, 255, (36, 36, 1), np.uint8),
        spaces.Discrete(3),
        {"pattern": "m", "num_heads": 2},
        {"image_encoder": "flat"},
    ),
    "mlp, choices": (spaces.Discrete(4), spaces.Discrete(3), {"kind": "mlp"}, {}),
}


SEEN = torch.tensor([[1.0, -4.0], [4.0, 0.0], [1.0, 1.0]])
"""What the normaliser of numbers has seen."""


class OneHot(torch.nn.Module):
    """An encoder of somebody's own, which reads integers."""

    def __init__(self, space: Any, width: int) -> None:
        super().__init__()
        self.n = int(space.n)
        self.linear = torch.nn.Linear(self.n, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = torch.nn.functional.one_hot(x, self.n)
        return self.linear(code.to(self.linear.weight.dtype))


def _policy(case: str) -> Policy:
    """A policy in float64 whose every weight matters."""
    observation, action, memory, options = CASES[case]
    policy = Policy(
        observation,
        action,
        MemoryConfig(width=8, **memory),
        PolicyConfig(**options),
        NormalizationConfig(),
    ).double()
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    if observation is BOX:  # what is normalised is not what came
        policy.normalizer.update(SEEN)
    return policy


def _played(policy: Policy, any_spaces: Any) -> Sequences:
    env = any_spaces(policy.observation_space, policy.action_space)
    env.episode = 2  # four steps and more
    episodes, _ = record(policy, env, deterministic=False, frames=False)
    return episodes[0].read_by(policy)


@torch.no_grad()
def _decision(policy: Policy, read: Sequences, step: int, changed: dict[str, Any]) -> torch.Tensor:
    """What decides at a step, one step after the other, with other inputs or embeddings."""
    network = policy.network
    bare = isinstance(read.observation, torch.Tensor)
    tensors = read.tensors
    for t in range(step + 1):
        named = {"observation": read.observation} if bare else read.observation
        x = {name: changed.get(name, one)[:, t] for name, one in named.items()}
        params, _, tensors = network.step(x["observation"] if bare else x, tensors, None)
    return network.distribution.decision(params, read.action[:, step])[0]


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("mlp, choices", "image")])
def test_weights_of_numbers_are_those_of_finite_differences_of_steps(
    case: str, any_spaces: Any
) -> None:
    policy = _policy(case)
    read = _played(policy, any_spaces)
    step = read.action.shape[1] - 1
    found = find_saliency(policy, read, [step])
    named: Any = read.observation
    named = {"observation": named} if isinstance(named, torch.Tensor) else named
    std, mean = SEEN.std(0, correction=0), SEEN.mean(0)
    numbers = [name for name, one in named.items() if one.is_floating_point()]
    assert numbers
    for name in numbers:
        x, h = named[name], 1e-5
        expected = np.zeros(step + 1)
        raw = x + mean / std if name == "observation" else x  # in units of the deviation
        for t in range(step + 1):
            for j in range(x.shape[-1]):
                up, down = x.clone(), x.clone()
                up[0, t, j] += h
                down[0, t, j] -= h
                change = _decision(policy, read, step, {name: up})
                change = (change - _decision(policy, read, step, {name: down})) / (2 * h)
                expected[t] += float((raw[0, t, j] * change).norm())
        np.testing.assert_allclose(found.by_input[name][0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["m, parts", "mlp, choices"])
def test_weights_of_choices_are_those_of_finite_differences_of_embeddings(
    case: str, any_spaces: Any
) -> None:
    policy = _policy(case)
    read = _played(policy, any_spaces)
    step = read.action.shape[1] - 1
    found = find_saliency(policy, read, [step])
    encoder: Any = policy.network.trunk.encoder
    first = encoder[0] if isinstance(encoder, torch.nn.Sequential) else encoder
    if case == "mlp, choices":
        name, embedding, codes = "observation", first.embedding, read.observation
    else:
        name, embedding = (
            "door",
            dict(zip(first.names, first.encoders, strict=True))["door"].embedding,
        )
        codes = read.observation["door"]  # type: ignore[index]
    rows = embedding.weight[codes[0]].detach()
    away = rows - rows.mean(0)
    expected, h = np.zeros(step + 1), 1e-5
    for t in range(step + 1):
        ends = []
        for sign in (1, -1):
            calls = 0

            def nudge(_: Any, __: Any, out: Any, t: int = t, sign: int = sign) -> Any:
                nonlocal calls
                calls += 1
                return out + sign * h * away[t] if calls == t + 1 else out

            handle = embedding.register_forward_hook(nudge)
            ends.append(_decision(policy, read, step, {}))
            handle.remove()
        expected[t] = float(((ends[0] - ends[1]) / (2 * h)).norm())
    np.testing.assert_allclose(found.by_input[name][0], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", ["image", "ms, discrete", "s, box"])
def test_contributions_add_up_to_the_slope_along_the_inputs(case: str, any_spaces: Any) -> None:
    policy = _policy(case)
    read = _played(policy, any_spaces)
    step, h = read.action.shape[1] - 1, 1e-5
    found = find_saliency(policy, read, [step])
    assert isinstance(read.observation, torch.Tensor)
    x = read.observation.double()
    # where an observation of zeros lies behind the normaliser
    zero = torch.zeros(1) if case == "image" else -SEEN.mean(0) / SEEN.std(0, correction=0)
    ends = [{"observation": zero + (x - zero) * k} for k in (1 + h, 1 - h)]
    up, down = (_decision(policy, read, step, one) for one in ends)
    slope = float(((up - down) / (2 * h)).sum())
    assert found.signed[0].sum() == pytest.approx(slope, rel=1e-6)


def test_an_encoder_of_ones_own_that_reads_integers_is_blind(any_spaces: Any) -> None:
    options = PolicyConfig(encoder=f"{__name__}:OneHot")
    space, memory = spaces.Discrete(3), MemoryConfig(kind="gru", width=8)
    policy = Policy(space, space, memory, options, NormalizationConfig())
    found = find_saliency(policy, _played(policy, any_spaces))
    assert found.blind == ("observation",) and not found.total.any()


@pytest.mark.parametrize("case", ["ms, discrete", "lstm, previous", "s, box"])
@pytest.mark.few(1)
def test_integrated_gradients_add_up_to_what_the_inputs_change(case: str, any_spaces: Any) -> None:
    policy = _policy(case)
    read = _played(policy, any_spaces)
    step = read.action.shape[1] - 1
    found = find_saliency(policy, read, [step], points=150)
    named: Any = read.observation
    named = {"observation": named} if isinstance(named, torch.Tensor) else named
    zeros = {name: torch.zeros_like(one) for name, one in named.items()}
    zeros["observation"] -= SEEN.mean(0) / SEEN.std(0, correction=0)
    gained = _decision(policy, read, step, {}) - _decision(policy, read, step, zeros)
    assert found.signed[0].sum() == pytest.approx(float(gained.sum()), rel=1e-3, abs=1e-4)


def test_many_actions_at_once_weigh_as_each_alone(any_spaces: Any) -> None:
    policy = _policy("ms, discrete")
    read = _played(policy, any_spaces)
    length = read.action.shape[1]
    found = find_saliency(policy, read)
    assert found.steps.tolist() == [*range(length)]
    for step in range(length):
        alone = find_saliency(policy, read, [step])
        np.testing.assert_allclose(found.row(step), alone.row(step), rtol=1e-9, atol=1e-12)
        assert not found.row(step)[step + 1 :].any()


def test_the_cue_is_the_most_salient_step_of_a_memory_chain() -> None:
    policy = remembers_the_cue(32)
    episodes, _ = record(policy, episodes=4, frames=False)
    for episode in episodes:
        assert sum(episode.rewards) == 1.0
        found = find_saliency(policy, episode.read_by(policy))
        row = found.row(episode.length - 1)
        assert row[:2].min() > 0.0 and np.abs(row[2:]).max() < 1e-6 * row[0]
        assert found.most_salient(episode.length - 1) in (0, 1)


def test_the_sign_is_the_most_salient_step_of_a_t_maze() -> None:
    policy = remembers_the_sign(10)
    episodes, _ = record(policy, episodes=4, frames=False)
    for episode in episodes:
        assert sum(episode.rewards) == 1.0
        found = find_saliency(policy, episode.read_by(policy))
        assert found.most_salient(episode.length - 1) == 0


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("points", [0, 8])
def test_the_card_k_steps_back_is_the_most_salient_of_repeat_previous(k: int, points: int) -> None:
    policy = repeats(k)
    (episode,), _ = record(policy, frames=False)
    assert sum(episode.rewards) == pytest.approx(1.0)
    found = find_saliency(policy, episode.read_by(policy), points=points)
    for step in range(k, episode.length):
        row = found.row(step)
        others = np.delete(row, step - k)
        assert found.most_salient(step) == step - k
        assert others.max() < 1e-6 * row[step - k]


def test_a_memory_that_is_none_sees_the_present_alone(any_spaces: Any) -> None:
    policy = _policy("mlp, choices")
    total = find_saliency(policy, _played(policy, any_spaces)).total
    assert not np.tril(total, -1).any() and np.diag(total).all()


def test_actions_are_spread_evenly_and_hold_the_last() -> None:
    policy = remembers_the_cue(9)
    (episode,), _ = record(policy, frames=False)
    read = episode.read_by(policy)
    assert find_saliency(policy, read, 3).steps.tolist() == [3, 6, 9]
    assert find_saliency(policy, read, 99).steps.tolist() == [*range(10)]


@pytest.mark.parametrize(("steps", "points"), [([10], 0), ([-1], 0), ([], 0), (0, 0), (1, -1)])
def test_steps_and_points_that_there_are_not_are_refused(steps: Any, points: int) -> None:
    policy = remembers_the_cue(9)
    (episode,), _ = record(policy, frames=False)
    with pytest.raises(ValueError, match="expected"):
        find_saliency(policy, episode.read_by(policy), steps, points)


def test_the_first_step_has_nothing_before_it() -> None:
    one = Saliency(np.array([0]), {"observation": np.ones((1, 1))}, np.ones((1, 1)))
    with pytest.raises(ValueError, match="step 0 has no past"):
        one.most_salient(0)


def test_inputs_beside_the_observation_have_weights_of_their_own(any_spaces: Any) -> None:
    policy = _policy("lstm, previous")
    found = find_saliency(policy, _played(policy, any_spaces))
    assert [*found.by_input] == [
        "observation",
        "~previous_action",
        "~previous_reward",
        "~first_step",
    ]

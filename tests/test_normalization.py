import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentPPO
from xlstm_rl.normalization import (
    NestedNormalizer,
    NormalizationConfig,
    ObservationNormalizer,
    RewardNormalizer,
    RunningMoments,
    make_normalizer,
)

BOX = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)


def test_moments_merged_from_uneven_batches_equal_those_of_all_the_data() -> None:
    data = np.random.default_rng(0).normal(1e4, 0.1, (1000, 3))
    moments = RunningMoments(3)
    for part in np.split(data, [1, 2, 300, 999]):
        moments.update(torch.from_numpy(part))
    np.testing.assert_allclose(moments.mean.numpy(), data.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.var.numpy(), data.var(0), rtol=1e-8)
    assert moments.count.item() == 1000


def test_moments_of_several_processes_merge_to_those_of_all_the_data() -> None:
    data = np.random.default_rng(0).normal(1e4, 0.1, (1000, 3))
    parts = []
    for part in np.split(data, [7, 500, 501]):
        parts.append(RunningMoments(3))
        parts[-1].update(torch.from_numpy(part))
    whole = RunningMoments(3)
    for moments in (RunningMoments(3), *parts, RunningMoments(3)):
        whole.merge(moments)
    np.testing.assert_allclose(whole.mean.numpy(), data.mean(0), rtol=1e-12)
    np.testing.assert_allclose(whole.var.numpy(), data.var(0), rtol=1e-8)
    assert whole.count.item() == 1000


def test_an_empty_batch_changes_nothing() -> None:
    moments = RunningMoments(2)
    moments.update(torch.zeros(0, 2))
    assert moments.count.item() == 0 and moments.var.tolist() == [1.0, 1.0]


def test_observations_become_standard_after_an_update() -> None:
    normalizer = ObservationNormalizer(BOX, NormalizationConfig())
    data = torch.randn(500, 3) * torch.tensor([1.0, 100.0, 0.01]) + 7
    torch.testing.assert_close(normalizer(data), data.clamp(-10, 10))
    normalizer.update(data)
    out = normalizer(data)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_a_constant_feature_stays_finite_and_clipped() -> None:
    normalizer = ObservationNormalizer(BOX, NormalizationConfig(clip_observation=5.0))
    normalizer.update(torch.full((10, 3), 2.0))
    assert normalizer(torch.full((1, 3), 2.0)).tolist() == [[0.0, 0.0, 0.0]]
    assert normalizer(torch.full((1, 3), 3.0)).tolist() == [[5.0, 5.0, 5.0]]


@pytest.mark.parametrize("value", [0.1, 123456.789, -3e7, 1e30])
def test_a_constant_feature_of_any_size_becomes_zero(value: float) -> None:
    normalizer = ObservationNormalizer(BOX, NormalizationConfig())
    data = torch.full((37, 3), value)
    for _ in range(3):
        normalizer.update(data)
    assert not normalizer(data).any()


def test_integer_features_are_normalised_as_numbers() -> None:
    space = gymnasium.spaces.Box(0, 200, (2,), np.uint8)
    normalizer = ObservationNormalizer(space, NormalizationConfig())
    data = torch.randint(0, 200, (400, 2), dtype=torch.uint8)
    normalizer.update(normalizer.numbers(normalizer.flatten(data)))
    mean, std = data.double().mean(0), data.double().std(0, correction=0)
    torch.testing.assert_close(normalizer(data), ((data - mean) / std).float())


def test_of_a_nested_space_only_the_numbers_are_normalised() -> None:
    spaces = gymnasium.spaces
    space = spaces.Dict(
        eye=spaces.Box(0, 255, (4, 4), np.uint8),
        room=spaces.Discrete(3, start=1),
        bits=spaces.MultiBinary(2),
        keys=spaces.MultiDiscrete([2, 3], start=[5, 0]),
        pose=BOX,
    )
    normalizer = make_normalizer(space, NormalizationConfig())
    assert isinstance(normalizer, NestedNormalizer)
    raw = {
        "eye": torch.full((9, 4, 4), 200, dtype=torch.uint8),
        "room": torch.full((9,), 3),
        "bits": torch.ones(9, 2, dtype=torch.int8),
        "keys": torch.tensor([[6, 2]] * 9),
        "pose": torch.randn(9, 3) * 5 + 2,
    }
    normalizer.update(normalizer.numbers(normalizer.flatten(raw)))
    out = normalizer(raw)
    assert torch.equal(out["eye"], raw["eye"])
    assert out["room"].tolist() == [2] * 9
    assert out["bits"].tolist() == [[1.0, 1.0]] * 9
    assert out["keys"].tolist() == [[1, 2]] * 9
    torch.testing.assert_close(out["pose"].mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    other = make_normalizer(space, NormalizationConfig())
    other.load_state_dict(normalizer.state_dict())
    torch.testing.assert_close(other(raw)["pose"], out["pose"])


def test_loaded_statistics_take_effect_at_once() -> None:
    first = ObservationNormalizer(BOX, NormalizationConfig())
    first.update(torch.randn(100, 3) * 3 + 1)
    second = ObservationNormalizer(BOX, NormalizationConfig())
    x = torch.randn(4, 3)
    second(x)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(x), first(x))


def test_discrete_observations_become_indices_from_zero() -> None:
    space = gymnasium.spaces.Discrete(4, start=10)
    normalizer = ObservationNormalizer(space, NormalizationConfig())
    out = normalizer(torch.tensor([[10, 13]]))
    assert out.tolist() == [[0, 3]] and out.dtype == torch.int64


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return() -> None:
    rng = np.random.default_rng(1)
    reward, done = rng.normal(2, 3, (4, 50)), rng.random((4, 50)) < 0.2
    reset = np.concatenate((np.ones((4, 1), bool), done[:, :-1]), 1)
    normalizer = RewardNormalizer(4, 0.9, NormalizationConfig(clip_reward=1e9))
    halves = [
        normalizer(torch.tensor(reward[:, part]), torch.tensor(reset[:, part]), None)
        for part in (slice(0, 20), slice(20, 50))
    ]
    returns = []
    for row in range(4):
        running = 0.0
        for t in range(50):
            running = running * 0.9 + reward[row, t]
            returns.append(running)
            if done[row, t]:
                running = 0.0
    np.testing.assert_allclose(normalizer.moments.var.item(), np.var(returns), rtol=1e-9)
    np.testing.assert_allclose(halves[1].numpy(), reward[:, 20:] / np.std(returns), rtol=1e-6)


def test_dead_steps_do_not_count() -> None:
    reward, reset = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[True, False, True]])
    valid = torch.tensor([[True, False, True]])
    normalizer = RewardNormalizer(1, 0.9, NormalizationConfig())
    normalizer(reward, reset, valid)
    assert normalizer.moments.count.item() == 2
    assert normalizer.moments.mean.item() == 1.0


def test_an_episode_that_was_lost_between_two_rollouts_is_not_carried_on() -> None:
    begin, go_on = torch.tensor([[True, False]]), torch.tensor([[False, False]])
    normalizer = RewardNormalizer(1, 0.5, NormalizationConfig())
    normalizer(torch.tensor([[8.0, 4.0]]), begin, None)  # 8 and 8, and no end
    normalizer(torch.tensor([[2.0, 1.0]]), begin, None)  # 2 and 2
    assert normalizer.moments.mean.item() == 5.0
    normalizer(torch.tensor([[2.0, 1.0]]), go_on, None)  # 3 and 2.5
    assert normalizer.moments.mean.item() == pytest.approx((8 + 8 + 2 + 2 + 3 + 2.5) / 6)


def test_a_clip_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"normalization\.clip_reward=0\.0: expected a number > 0"):
        NormalizationConfig(clip_reward=0.0)


@pytest.mark.parametrize(
    ("dtype", "center"),
    [(np.float64, 1e9), (np.float64, -3e12), (np.int32, 2**30), (np.int64, 2**44)],
)
def test_small_changes_of_large_numbers_are_seen(dtype: type, center: float) -> None:
    space = gymnasium.spaces.Box(
        -(2**60) if dtype is np.int64 else -(2**31), 2**31 - 1, (2,), dtype
    )
    normalizer = ObservationNormalizer(space, NormalizationConfig())
    steps = np.random.default_rng(0).integers(-9, 10, (500, 2))
    data = torch.from_numpy((center + steps).astype(dtype))
    normalizer.update(normalizer.numbers(normalizer.flatten(data)))
    expected = (steps - steps.mean(0)) / steps.std(0)
    out = normalizer(data)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), expected, atol=0.05)


@pytest.mark.parametrize("value", [0.1, 1234.5678, -3e7, 1e15, 1e30])
def test_a_constant_double_of_any_size_stays_near_zero(value: float) -> None:
    space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    normalizer = ObservationNormalizer(space, NormalizationConfig())
    data = torch.full((37, 3), value, dtype=torch.float64)
    for _ in range(1000):
        normalizer.update(data)
    assert normalizer(data).abs().max() < 0.1
    assert (normalizer(2.0 * data) > 1.0).all() or value < 0.0


def test_a_rollout_and_acting_see_the_same_large_numbers(any_spaces: type) -> None:
    observation = gymnasium.spaces.Box(1e9, 1e9 + 10, (3,), np.float64)
    agent = RecurrentPPO(
        lambda: any_spaces(observation, gymnasium.spaces.Discrete(2)),
        env={"num_envs": 2},
        memory={"width": 16, "num_heads": 2},
        agent={"rollout_steps": 16, "epochs": 1, "minibatches": 1},
        logger={"kind": "none"},
    )
    agent.learn(32)
    assert agent._collector is not None
    rollout = agent._collector.collect()
    raw, seen = rollout.raw_observation, rollout.data["observation"]
    assert raw.dtype == torch.float64
    assert torch.equal(agent.policy.normalizer(raw), seen)
    assert raw.std(dim=(0, 1)).min() > 1.0 and seen.std(dim=(0, 1)).min() > 0.5

"""Rollouts from environments that answer tensors: the same numbers, and no look on the way."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from xlstm_rl import MemoryConfig
from xlstm_rl.collection.collector import Collector, Rollout
from xlstm_rl.config import ConfigError
from xlstm_rl.envs import EnvConfig, MemoryChainVectorEnv, make_vector_env
from xlstm_rl.errors import EnvError, TrainingError
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

CHAIN = ("MemoryChain-v0", {"length": 4, "bits": 2})
CASES: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "terminates": (*CHAIN, None),
    "truncates": (*CHAIN, 3),
    "ends as the actions have it": ("TMaze-v0", {"length": 3}, None),
    "ends as the actions have it or is cut": ("TMaze-v0", {"length": 3}, 3),
    "discrete observations": ("Parity-v0", {"length": 5}, 4),
    "moved in the middle": ("NavigateAndReturn-v0", {"size": 2, "returns": 1}, None),
    "cards": ("RepeatPrevious-v0", {"k": 2}, 9),
    "pairs": ("AssociativeRecall-v0", {"pairs": 2}, None),
    "nested": (*CHAIN, 3),
}
MODES = ["same_step", "next_step", "disabled"]


class Nested(VectorEnv[Any, Any, Any]):
    """MemoryChain whose observations are a Dict with a Tuple in it, on arrays or on tensors."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.num_envs, self.metadata = inner, inner.num_envs, inner.metadata
        self.tensors, self.may_truncate = inner.tensors, inner.may_truncate
        box = inner.single_observation_space
        low, high = box.low, box.high
        signs = spaces.Box(low[2:], high[2:])
        self.single_observation_space = spaces.Dict(
            {
                "time": spaces.Box(low[:1], high[:1]),
                "rest": spaces.Tuple((spaces.Discrete(9), signs)),
            }
        )
        self.single_action_space = inner.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = inner.action_space

    def _split(self, x: Any) -> Any:
        index = x[..., 1].long() if self.tensors else np.int64(x[..., 1])
        return {"time": x[..., :1], "rest": (index, x[..., 2:])}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = self.inner.reset(seed=seed, options=options)
        return self._split(observation), info

    def step(self, actions: Any) -> Any:
        observation, *rest, info = self.inner.step(actions)
        if "final_obs" in info:
            final = info["final_obs"]
            if not self.tensors:
                for row in np.flatnonzero(info["_final_obs"]):
                    final[row] = self._split(final[row])
            info["final_obs"] = self._split(final) if self.tensors else final
        return (self._split(observation), *rest, info)


def _env(case: str, mode: str, tensors: bool, device: str = "cpu") -> Any:
    name, arguments, limit = CASES[case]
    kwargs = {**arguments, "tensors": tensors, "device": device}
    config = EnvConfig(
        f"xlstm_rl/{name}", 6, "native", autoreset=mode, kwargs=kwargs, max_episode_steps=limit
    )  # type: ignore[arg-type]
    env = make_vector_env(config)
    return Nested(env) if case == "nested" else env


def _collector(
    env: Any, policy: PolicyConfig | None = None, pattern: str = "ms", device: str = "cpu"
) -> Collector:
    torch.manual_seed(0)
    made = Policy(
        env.single_observation_space,
        env.single_action_space,
        MemoryConfig(width=16, num_heads=2, pattern=pattern),
        policy or PolicyConfig(head_width=16),
        NormalizationConfig(),
    ).to(device)
    with torch.no_grad():  # far from the near-constant start, so that errors are seen
        for weight in made.network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return Collector(env, made, 14, 7, 5, torch.Generator(device).manual_seed(0))


def _assert_equal(ours: Rollout, expected: Rollout) -> None:
    for key, column in expected.data.items(include_nested=True, leaves_only=True):
        own = ours.data[key]
        assert own.dtype == column.dtype and own.shape == column.shape, key
        if key == "next_value":
            # those of final observations are of a batch of another size
            torch.testing.assert_close(own, column, rtol=1e-6, atol=1e-6)
            where = ~expected.data["truncated"]
            assert torch.equal(own[where], column[where])
        else:
            assert torch.equal(own, column), key
    assert ours.episode_lengths == expected.episode_lengths
    # summed up in float64 of rewards that were float32 or float64
    assert ours.episode_returns == pytest.approx(expected.episode_returns, abs=1e-6)
    for segment, other in zip(ours.segment_states, expected.segment_states, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(segment, other, strict=True))
    raw, expected_raw = ours.raw_observation, expected.raw_observation
    if isinstance(raw, torch.Tensor):
        assert torch.equal(raw, expected_raw)
    else:
        assert (raw == expected_raw).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.each_value
def test_a_rollout_on_tensors_is_the_one_through_arrays(case: str, mode: str) -> None:
    ours, expected = (_collector(_env(case, mode, tensors)) for tensors in (True, False))
    ended = 0
    for _ in range(3):  # the second and third start in the middle of episodes
        rollout = expected.collect()
        _assert_equal(ours.collect(), rollout)
        ended += len(rollout.episode_lengths)
        assert bool(rollout.data["truncated"].any()) == (CASES[case][2] is not None)
    assert ended >= 6 or case == "cards"


INPUTS = PolicyConfig(
    head_width=16, critic="separate", previous_action=True, previous_reward=True, first_step=True
)


@pytest.mark.parametrize("case", ["truncates", "nested"])
def test_a_rollout_with_the_step_before_as_input_is_the_same(case: str) -> None:
    ours, expected = (
        _collector(_env(case, "same_step", tensors), INPUTS) for tensors in (True, False)
    )
    for _ in range(2):
        _assert_equal(ours.collect(), expected.collect())


def _watch(collector: Collector, context: Callable[[], Any]) -> None:
    step = collector._step

    def watched(*args: Any) -> None:
        with context():
            step(*args)

    collector._step = watched  # type: ignore[method-assign]


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells look for resets on a CPU, where that is cheap, and while nothing is compiled."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("mode", ["same_step", "next_step"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.each_value
def test_no_step_looks_at_a_number(
    looking_is_an_error: Callable[[], Any], case: str, mode: str
) -> None:
    collector = _collector(_env(case, mode, tensors=True), INPUTS if case == "nested" else None)
    _watch(collector, looking_is_an_error)
    collector.collect()
    collector.collect()


@pytest.mark.usefixtures("as_on_a_gpu")
def test_with_disabled_autoreset_the_end_of_an_episode_is_looked_for(
    looking_is_an_error: Callable[[], Any],
) -> None:
    collector = _collector(_env("terminates", "disabled", tensors=True))
    _watch(collector, looking_is_an_error)
    with pytest.raises(AssertionError, match="__bool__ brings a tensor to the host"):
        collector.collect()


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["same_step", "next_step"])
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_no_step_waits(
    waiting_is_an_error: Callable[[], Any], case: str, mode: str
) -> None:
    collector = _collector(_env(case, mode, True, "cuda"), device="cuda")
    collector.collect()  # the kernels are compiled, and memory is there
    _watch(collector, waiting_is_an_error)
    collector.collect()


class Wrong(MemoryChainVectorEnv):
    """Answers what a test says from step 5 on."""

    def __init__(self, change: Callable[[list[Any]], None], **kwargs: Any) -> None:
        super().__init__(3, length=4, tensors=True, **kwargs)
        self.change, self.t = change, 0

    def step(self, actions: Any) -> Any:
        answer = list(super().step(actions))
        self.t += 1
        if self.t == 6:
            self.change(answer)
        return tuple(answer)


def _nan(place: int) -> Callable[[list[Any]], None]:
    def change(answer: list[Any]) -> None:
        answer[place][1] = torch.nan

    return change


def _nan_at_the_end(row: int) -> Callable[[list[Any]], None]:
    def change(answer: list[Any]) -> None:
        answer[4]["final_obs"][row] = torch.nan

    return change


def _cast(answer: list[Any]) -> None:
    answer[0] = answer[0].numpy()


def _cut_off(answer: list[Any]) -> None:
    answer[0] = answer[0][:2]


def _complex(answer: list[Any]) -> None:
    answer[0] = answer[0] * 1j


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_nan(0), TrainingError, "non-finite observation in environment 1 at step 18"),
        (_nan(1), TrainingError, "non-finite reward in environment 1 at step 15"),
        (_nan_at_the_end(2), TrainingError, "non-finite observation in environment 2 at step 18"),
        (_cast, EnvError, "step 15: the observation is a ndarray, expected a tensor"),
        (_complex, EnvError, "step 15: the observation has dtype torch.complex64"),
        (_cut_off, EnvError, r"step 15: the observation has shape \[2, 3\], expected \[3, 3\]"),
    ],
)
def test_wrong_answers_are_told_with_the_step(
    change: Callable[[list[Any]], None], error: type[Exception], message: str
) -> None:
    collector = _collector(Wrong(change, max_episode_steps=3))
    with pytest.raises(error, match=message):
        collector.collect()


def test_what_running_episodes_have_for_a_final_observation_does_not_matter() -> None:
    def change(answer: list[Any]) -> None:
        answer[4]["final_obs"] = torch.full((3, 3), torch.nan)

    env = Wrong(change, max_episode_steps=4)  # ends at 4 and 8, not at 6
    rollout = _collector(env).collect()
    assert rollout.data["next_value"].isfinite().all()


def test_float_choices_are_refused() -> None:
    env = make_vector_env(EnvConfig("xlstm_rl/Parity-v0", 2, kwargs={"length": 3, "tensors": True}))
    observe = env._observe  # type: ignore[attr-defined]
    env._observe = lambda: observe().float()  # type: ignore[attr-defined]
    with pytest.raises(EnvError, match=r"dtype torch.float32, its space is Discrete\(2\)"):
        _collector(env)


def test_masks_on_tensors_are_refused() -> None:
    env = _env("terminates", "same_step", tensors=True)
    with pytest.raises(ConfigError, match=r"set env\.kwargs\.tensors to false"):
        _collector(env, PolicyConfig(action_mask="info"))

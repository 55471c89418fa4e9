"""An episode is the same alone and beside others, and evaluation is unseen from outside."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl import RecurrentPPO, evaluate
from xlstm_rl.evaluation import EvaluationResult, episodes
from xlstm_rl.policy import Policy
from xlstm_rl.seeding import spawn_seed

TORQUE = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))
ACTIONS: dict[str, tuple[spaces.Space[Any], dict[str, Any]]] = {
    "Discrete": (spaces.Discrete(5), {}),
    "MultiDiscrete": (spaces.MultiDiscrete([3, 4]), {}),
    "MultiBinary": (spaces.MultiBinary(6), {}),
    "Box": (TORQUE, {}),
    "Box, tanh": (TORQUE, {"action_bounds": "tanh", "action_std": "state"}),
    "Dict": (spaces.Dict(arm=TORQUE, gear=spaces.Discrete(4)), {"previous_action": True}),
    "masked": (spaces.Discrete(5), {"action_mask": "info", "previous_reward": True}),
}
EXACT = ("Discrete", "MultiDiscrete", "MultiBinary", "masked")


class Walk(gymnasium.Env[Any, Any]):
    """Observes a walk that actions push; pays what was done; ends by chance after 3 to 12 steps."""

    def __init__(
        self, action_space: Any, render_mode: str | None = None, is_masked: bool = False
    ) -> None:
        self.is_masked = is_masked
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space, self.render_mode = action_space, render_mode

    def _answer(self) -> Any:
        mask = self.np_random.integers(2, size=5, dtype=np.int8)
        mask[self.np_random.integers(5)] = 1
        return self.at.astype(np.float32), {"action_mask": mask} if self.is_masked else {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at, self.left = self.np_random.normal(size=3), int(self.np_random.integers(3, 13))
        return self._answer()

    def step(self, action: Any) -> Any:
        paid = float(
            np.sum(spaces.flatten(self.action_space, action) * np.arange(1, 100)[: self.n])
        )
        self.at = 0.9 * self.at + self.np_random.normal(size=3) + 0.1 * paid
        self.left -= 1
        observation, info = self._answer()
        return observation, paid, self.left == 0, False, info

    @property
    def n(self) -> int:
        return spaces.flatdim(self.action_space)

    def render(self) -> Any:
        return np.zeros((16, 16, 3), np.uint8)


def _agent(name: str, **sections: Any) -> RecurrentPPO:
    space, policy = ACTIONS[name]
    return RecurrentPPO(
        lambda render_mode=None: Walk(space, render_mode, name == "masked"),
        env={"num_envs": 2},
        memory={"pattern": "ms", "width": 16, "num_heads": 2},
        policy={"head_width": 8, **policy},
        agent={"rollout_steps": 8, "minibatches": 1, "epochs": 1},
        **{"logger": {"kind": "none"}, **sections},
    )


def _opinionated(name: str) -> tuple[Policy, Callable[..., Any]]:
    policy = _agent(name).policy
    with torch.no_grad():
        policy.network.action_head.output.weight.mul_(30.0)
    space = ACTIONS[name][0]
    return policy, lambda render_mode=None: Walk(space, render_mode, name == "masked")


def _alone(policy: Policy, env: Any, seed: int, episode: int) -> tuple[float, int]:
    """Play one episode with a batch of one."""
    generator = torch.Generator().manual_seed(spawn_seed(seed, "evaluation_actions", episode))
    observation, info = env.reset(seed=spawn_seed(seed, "evaluation", episode))
    state, reward, total, steps, over = None, 0.0, 0.0, 0, False
    while not over:
        auxiliary: dict[str, Any] = {}
        if policy.auxiliary.reads_mask:
            auxiliary["action_mask"] = info["action_mask"][None]
        if policy.auxiliary.reads_reward:
            auxiliary["reward"] = np.array([reward])
        flags = np.array([steps == 0])
        action, state = policy.act(observation[None], state, flags, False, [generator], **auxiliary)
        one = {k: v[0] for k, v in action.items()} if isinstance(action, dict) else action[0]
        observation, reward, over, _, info = env.step(one)
        total, steps = total + reward, steps + 1
    return total, steps


@pytest.mark.parametrize("name", ACTIONS)
def test_a_sampled_episode_is_the_same_alone_and_beside_six(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, make = _opinionated(name)
    found: dict[int, EvaluationResult] = {}
    for count in (1, 7):
        monkeypatch.setattr(episodes, "_MAX_PARALLEL", count)
        found[count] = evaluate(policy, make, episodes=9, seed=4, deterministic=False)
    by_hand = [_alone(policy, make(), 4, episode) for episode in range(9)]
    for result in found.values():
        assert result.lengths == [steps for _, steps in by_hand]
        if name in EXACT:
            assert result.returns == [total for total, _ in by_hand]
        else:
            np.testing.assert_allclose(result.returns, [total for total, _ in by_hand], rtol=1e-4)
    fewer = evaluate(policy, make, episodes=5, seed=4, deterministic=False)
    np.testing.assert_allclose(fewer.returns, found[7].returns[:5], rtol=1e-4)
    other = evaluate(policy, make, episodes=5, seed=5, deterministic=False)
    assert other.returns != found[1].returns[:5]


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_video_changes_nothing(
    deterministic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorder(gymnasium.Wrapper[Any, Any, Any, Any]):
        def __init__(self, env: Any, folder: str, episode_trigger: Any) -> None:
            super().__init__(env)
            folders.append(folder)

    folders: list[str] = []
    monkeypatch.setattr(gymnasium.wrappers, "RecordVideo", Recorder)
    policy, make = _opinionated("Discrete")
    plain = evaluate(policy, make, episodes=5, deterministic=deterministic)
    filmed = evaluate(policy, make, 5, deterministic=deterministic, video_dir=tmp_path)
    assert filmed == plain and folders == [str(tmp_path)]


def test_as_many_generators_as_environments_are_needed() -> None:
    policy, _ = _opinionated("Box")
    with pytest.raises(ValueError, match="2 generators came for 3 environments"):
        policy.act(np.zeros((3, 3), np.float32), None, True, False, [torch.Generator()] * 2)


class Draws(Walk):
    """Draws from every global stream, as many environments do."""

    def step(self, action: Any) -> Any:
        observation, paid, *rest = super().step(action)
        noise = random.random() + np.random.random() + float(torch.rand(()))
        return observation + np.float32(noise), paid + noise, *rest


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("env", ["Discrete", "Box", "global", "xlstm_rl/RepeatPrevious-v0"])
@pytest.mark.each_value
def test_evaluation_between_updates_leaves_training_equal_to_the_bit(
    env: str, deterministic: bool
) -> None:
    def train(evaluated: bool) -> list[torch.Tensor]:
        made: Any = env
        if env in ACTIONS or env == "global":
            space = ACTIONS["Box" if env == "global" else env][0]
            made = lambda: (Draws if env == "global" else Walk)(space)  # noqa: E731
        agent = RecurrentPPO(
            made,
            env={"num_envs": 2},
            memory={"pattern": "ms", "width": 16, "num_heads": 2},
            agent={"rollout_steps": 8, "minibatches": 2, "epochs": 2},
            logger={"kind": "none"},
        )

        def look(steps: int, metrics: dict[str, float]) -> None:
            if evaluated:
                at = made if callable(made) else None
                results.append(evaluate(agent.policy, at, 3, steps, deterministic))

        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        agent.learn(64, on_update=look)
        after = [random.random(), np.random.random(), float(torch.rand(()))]
        statistics = agent.policy.state_dict().values()
        return [torch.tensor(after), *(one.detach().clone() for one in statistics)]

    results: list[EvaluationResult] = []
    with_it, without = train(True), train(False)
    assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))
    assert len(results) == 4


def test_global_streams_follow_from_the_seed_of_the_evaluation() -> None:
    policy, _ = _opinionated("Box")
    first, same, other = (
        evaluate(policy, lambda: Draws(TORQUE), episodes=2, seed=seed) for seed in (1, 1, 2)
    )
    assert first == same and first != other

"""What environments hand over when a run is interrupted, and what begins anew."""

import random
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentPPO


@pytest.mark.parametrize("mask_in", ["info", "observation"])
def test_action_masks_go_on_to_the_bit(
    going_on: Any, mask_in: str, any_spaces: type[Any], tmp_path: Path
) -> None:
    spaces = gymnasium.spaces
    action = spaces.MultiDiscrete([3, 2])
    mask = spaces.Tuple([spaces.MultiBinary(3), spaces.MultiBinary(2)])
    parts: dict[str, Any] = {"x": spaces.Box(-1, 1, (2,)), "y": spaces.Discrete(3)}
    if mask_in == "observation":
        parts["action_mask"] = mask

    def env() -> Any:
        return any_spaces(spaces.Dict(parts), action, mask_in)

    going_on.assert_to_the_bit(tmp_path, [2, 7], env=env, policy={"action_mask": mask_in})


class Drawing(gymnasium.Env[Any, Any]):
    """Draws from every global stream, and keeps objects that grow with time."""

    observation_space = gymnasium.spaces.Box(-9, 9, (3,))
    action_space = gymnasium.spaces.Discrete(2)

    class Thing:
        """What is there in some steps only."""

        def __init__(self, size: float) -> None:
            self.size = size

    def __init__(self) -> None:
        self.things: list[Any] = []
        self.t = 0

    def _see(self) -> Any:
        drawn = [random.gauss(0, 1), np.random.normal(), torch.randn(()).item()]
        self.things.append(self.Thing(drawn[0]))
        self.things = self.things[-3:]
        return np.clip(drawn, -9, 9).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        reward = sum(thing.size for thing in self.things)
        return self._see(), float(reward), self.t == 5, False, {}


def test_an_environment_that_draws_from_the_global_streams_goes_on(
    going_on: Any, tmp_path: Path
) -> None:
    def learned(run: Path, stop: int | None) -> dict[str, Any]:
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        agent = going_on.make(run, env=Drawing)
        if stop is not None:
            going_on.interrupt_at(agent, stop)
            random.seed(4), np.random.seed(4), torch.manual_seed(4)
            agent = RecurrentPPO.load(run, Drawing)
        with agent:
            agent.learn(agent.steps_to_go())
        return going_on.state_of(agent)

    going_on.assert_same(learned(tmp_path / "run", 4), learned(tmp_path / "whole", None))


class Handed(gymnasium.Env[Any, Any]):
    """Keeps its state where attributes do not show it, and hands it over when it is asked."""

    observation_space = gymnasium.spaces.Box(-9, 9, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.hidden = iter(range(10**6))  # which nothing here knows how to copy
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.hidden = iter(range(state["count"], 10**6))
        self.count = state["count"]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count = next(self.hidden) + 1
        seen = np.array([self.count % 7], np.float32)
        return seen, float(self.count % 3), self.count % 5 == 0, False, {}


def test_an_environment_with_a_form_of_its_own_goes_on_to_the_bit(
    going_on: Any, tmp_path: Path
) -> None:
    going_on.assert_to_the_bit(tmp_path, [3], env=Handed)


class Bare(Handed):
    """The same, with nothing that it hands over."""

    state_dict = None  # type: ignore[assignment]


def test_other_environments_begin_new_episodes_and_one_line_says_so(
    going_on: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = going_on.make(tmp_path / "run", env=lambda: _Unpicklable())
    going_on.interrupt_at(agent, 3)
    capsys.readouterr()
    with RecurrentPPO.load(tmp_path / "run", lambda: _Unpicklable()) as loaded:
        loaded.learn()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "new episodes begin: the environments cannot hand over" in said
    assert loaded.steps_done == going_on.steps
    assert [row["step"] for row in going_on.rows(tmp_path / "run")][-1] == str(going_on.steps)


class _Unpicklable(Bare):
    def __init__(self) -> None:
        super().__init__()
        self.window = memoryview(b"a handle to something outside")


def test_what_was_pickled_is_read_with_trust_alone(
    going_on: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    going_on.assert_to_the_bit(tmp_path / "trusted", [3], env=Bare, trust_code=True)
    agent = going_on.make(tmp_path / "run", env=Bare)
    going_on.interrupt_at(agent, 3)
    capsys.readouterr()
    with RecurrentPPO.load(tmp_path / "run", Bare) as loaded:
        loaded.learn()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "trust_code=True (--trust-code) reads it" in said


def test_loading_leaves_the_global_streams_alone(going_on: Any, tmp_path: Path) -> None:
    going_on.interrupt_at(going_on.make(tmp_path / "run"), 2)
    random.seed(8), np.random.seed(8), torch.manual_seed(8)
    expected = random.random(), np.random.random(), torch.rand(()).item()
    random.seed(8), np.random.seed(8), torch.manual_seed(8)
    RecurrentPPO.load(tmp_path / "run").close()
    assert (random.random(), np.random.random(), torch.rand(()).item()) == expected

"""Runs that are interrupted and go on, held to runs that are not."""

import csv
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.errors import CallbackError
from xlstm_rl.runs.folder import checkpoint_steps

from ..same import assert_same

ROLLOUTS = 8
ROLLOUT = 16  # steps: 2 environments, 8 steps each
MEMORIES: dict[str, dict[str, Any]] = {
    "m": {"pattern": "m", "width": 8, "num_heads": 2},
    "s": {"pattern": "s", "width": 8, "num_heads": 2},
    "lstm": {"kind": "lstm", "width": 8},
}


class _StoppedError(Exception):
    """What a callback raises."""


def make(
    run: Path,
    algo: str = "ppo",
    memory: str = "m",
    env: Any = "xlstm_rl/CartPoleNoVel-v1",
    policy: dict[str, Any] | None = None,
    **section: Any,
) -> RecurrentAgent:
    """An agent with statistics, previous actions and rewards, segments and cut episodes."""
    agent = {"minibatches": 2, "segment_steps": 4, "epochs": 2} if algo == "ppo" else {}
    cls = RecurrentPPO if algo == "ppo" else RecurrentA2C
    return cls(
        env,
        seed=5,
        run_dir=str(run),
        total_steps=ROLLOUTS * ROLLOUT,
        env={"num_envs": 2, "max_episode_steps": 11, **section},
        memory=MEMORIES[memory],
        policy={"previous_action": True, "previous_reward": True, "first_step": True}
        | (policy or {}),
        agent={"rollout_steps": 8, **agent},
        logger={"kind": "csv"},
    )


def interrupt_at(agent: RecurrentAgent, rollout: int) -> None:
    """Train until a callback raises behind a rollout."""

    def on_update(step: int, metrics: dict[str, float]) -> None:
        if step == rollout * ROLLOUT:
            raise _StoppedError

    with agent, pytest.raises(CallbackError):
        agent.learn(agent.steps_to_go(), on_update)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if v and k != "time/sps"} for row in csv.DictReader(file)
        ]


def state_of(agent: RecurrentAgent) -> dict[str, Any]:
    """All that training goes on with, but for streams that no seed begins and the call's length."""
    state = agent.trainer_state()
    del state["generators"]["global"]
    del state["collector"]["environments"]  # spaces have generators that nobody draws from
    return {**state, "config": None, "budget": None, "weights": agent.policy.state_dict()}


def assert_goes_on_to_the_bit(
    tmp_path: Path, points: list[int], *, trust_code: bool = False, **what: Any
) -> None:
    """Hold a run that is interrupted behind some rollouts, one after the other, to a whole one."""
    whole = make(tmp_path / "whole", **what)
    with whole:
        whole.learn()
        expected = state_of(whole)
    agent = make(tmp_path / "run", **what)
    given = [what["env"]] if callable(what.get("env")) else []
    for point in points:
        interrupt_at(agent, point)
        agent = type(agent).load(tmp_path / "run", *given, trust_code=trust_code)
        assert agent.steps_done == point * ROLLOUT
    with agent:
        agent.learn()
        assert_same(state_of(agent), expected)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert checkpoint_steps(tmp_path / "run")[-1] == ROLLOUTS * ROLLOUT


def points(count: int, seed: Any) -> list[int]:
    return sorted(random.Random(str(seed)).sample(range(1, ROLLOUTS), count))


@pytest.fixture(scope="session")
def going_on() -> SimpleNamespace:
    """The functions above: `make`, `interrupt_at`, `rows`, `state_of`, `assert_same`, ..."""
    return SimpleNamespace(
        steps=ROLLOUTS * ROLLOUT,
        rollout=ROLLOUT,
        make=make,
        interrupt_at=interrupt_at,
        rows=rows,
        state_of=state_of,
        assert_same=assert_same,
        assert_to_the_bit=assert_goes_on_to_the_bit,
        points=points,
    )

"""Agents whose environments are played by processes of their own."""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.cli import main
from xlstm_rl.collection.rollout import Rollout
from xlstm_rl.config import ConfigError
from xlstm_rl.distributed.actors import ActorPool, pool
from xlstm_rl.distributed.actors.process import ActorProcess
from xlstm_rl.errors import EnvError, TrainingError

ROOT = Path(__file__).parents[3]
ROLLOUT = 4 * 8


@pytest.fixture(autouse=True)
def found_by_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def make(
    actors: int | str, env: Any = "CartPole-v1", algo: str = "ppo", **agent: Any
) -> RecurrentAgent:
    cls, own = (
        (RecurrentPPO, {"minibatches": 2, "epochs": 2, "segment_steps": 4})
        if algo == "ppo"
        else (RecurrentA2C, {"advantages": "vtrace"})
    )
    return cls(
        env,
        seed=7,
        total_steps=100 * ROLLOUT,
        env={"num_envs": 4, "max_episode_steps": 9},
        memory={"pattern": "ms", "num_blocks": 2, "width": 16, "num_heads": 2},
        policy={"head_width": 16, "previous_action": True},
        agent={"rollout_steps": 8, "actors": actors, **own, **agent},
        logger={"kind": "none"},
    )


def learn(agent: RecurrentAgent, updates: int, wait: float = 0.0) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []

    def on_update(step: int, metrics: dict[str, float]) -> None:
        rows.append({k: v for k, v in metrics.items() if not k.startswith("time")})
        time.sleep(wait)

    agent.learn(updates * ROLLOUT, on_update)
    return rows


@pytest.mark.parametrize("algo", ["ppo", pytest.param("a2c", marks=pytest.mark.slow)])
def test_one_actor_that_takes_turns_learns_as_one_process_to_the_bit(algo: str) -> None:
    with make(0, algo=algo) as alone:
        expected = learn(alone, 4)
    with make(1, algo=algo, max_staleness=0) as agent:
        found = learn(agent, 3)
        found += learn(agent, 1)
    assert [row.pop("actors/staleness") for row in found] == [0.0] * 4
    own = [{k: v for k, v in row.items() if not k.startswith("actors")} for row in found]
    assert own == [pytest.approx(row, rel=0, abs=0, nan_ok=True) for row in expected]
    weights = agent.policy.state_dict()
    assert all(torch.equal(value, weights[k]) for k, value in alone.policy.state_dict().items())


@pytest.mark.slow
def test_no_rollout_is_staler_than_the_bound_and_actors_run_ahead() -> None:
    with make(2, max_staleness=2) as agent:
        rows = learn(agent, 7, wait=0.1)  # a slow learner
    staleness = [row["actors/max_staleness"] for row in rows]
    assert staleness[0] == 0.0 and 1.0 < max(staleness) <= 2.0
    assert all(row["actors/staleness"] <= row["actors/max_staleness"] for row in rows)
    assert all(0.0 < row["actors/learner_sps"] < ROLLOUT / 0.1 for row in rows[1:])
    assert all(row["actors/sps"] > 0.0 for row in rows)


def test_ppo_takes_ratios_to_the_policy_that_acted(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    sequences = RecurrentPPO._sequences

    def recorded(agent: RecurrentPPO, rollout: Rollout) -> Any:
        result = sequences(agent, rollout)
        found.append((torch.cat(rollout.data["log_prob"].chunk(2, 1)), result.log_prob))
        return result

    monkeypatch.setattr(RecurrentPPO, "_sequences", recorded)
    with make(2, max_staleness=1) as agent:
        rows = learn(agent, 4, wait=0.1)
    assert max(row["actors/staleness"] for row in rows) > 0.0
    assert len(found) == 4 and all(torch.equal(*pair) for pair in found)


class Slow(CartPoleEnv):
    """Takes longer than an update."""

    def step(self, action: Any) -> Any:
        time.sleep(0.01)
        return super().step(action)


@pytest.mark.slow
def test_slow_actors_take_over_new_weights_inside_a_rollout() -> None:
    with make(1, Slow) as agent:
        rows = learn(agent, 6)
    assert all(row["actors/max_staleness"] == 1.0 for row in rows[2:])
    assert min(row["actors/staleness"] for row in rows[2:]) < 0.9


def test_a_killed_actor_is_replaced_and_the_run_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    pids = []

    def on_update(step: int, metrics: dict[str, float]) -> None:
        assert isinstance(agent._collector, ActorPool)
        pids.append([actor.process.pid for actor in agent._collector._actors])
        if step == 2 * ROLLOUT:
            os.kill(pids[-1][1], signal.SIGKILL)

    with make(2) as agent:
        agent.learn(6 * ROLLOUT, on_update)
        assert agent.steps_done == 6 * ROLLOUT
        assert all(value.isfinite().all() for value in agent.policy.state_dict().values())
    assert {one[0] for one in pids} == {pids[0][0]} and len({one[1] for one in pids}) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"actor 1 (process {pids[0][1]}) died (killed by signal 9)")
    assert not any(_lives(pid) for one in pids for pid in one)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("cut", "max_staleness"),
    [pytest.param("take", 0, marks=pytest.mark.slow), ("joined_rollout", 1)],
)
@pytest.mark.slow
def test_learning_goes_on_with_new_actors_after_an_interrupt(
    cut: str, max_staleness: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner: Any = ActorProcess if cut == "take" else pool
    run = getattr(owner, cut)
    with make(1, max_staleness=max_staleness) as agent:
        agent.learn(2 * ROLLOUT)

        def cut_off(*args: Any) -> Any:
            if run(*args) is not None:  # what came is lost
                raise KeyboardInterrupt

        monkeypatch.setattr(owner, cut, cut_off)
        with pytest.raises(KeyboardInterrupt):
            agent.learn(ROLLOUT)
        monkeypatch.setattr(owner, cut, run)
        assert isinstance(agent._collector, ActorPool)
        before = {actor.process.pid for actor in agent._collector._actors}
        rows = learn(agent, 2)
        assert agent.steps_done == 4 * ROLLOUT
        assert all(row["actors/max_staleness"] <= max_staleness for row in rows)
        assert not any(_lives(pid) for pid in before)


class Failing(CartPoleEnv):
    """Raises at its sixth step."""

    steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 6:
            raise OSError("the wire is cut")
        return super().step(action)


class Deadly(CartPoleEnv):
    """Ends its process."""

    def step(self, action: Any) -> Any:
        os._exit(3)


def test_an_environment_that_fails_in_an_actor_stops_the_run_with_its_name() -> None:
    agent = make(2, Failing)
    with agent, pytest.raises(EnvError, match=r"^actor \d: .*the wire is cut"):
        agent.learn(ROLLOUT)


@pytest.mark.slow
def test_actors_that_die_as_often_as_they_are_replaced_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "_MOST_DEATHS", 1)
    with make(1, Deadly) as agent, pytest.raises(TrainingError, match=r"exit status 3"):
        agent.learn(ROLLOUT)


@pytest.mark.slow
def test_actors_end_with_a_learner_that_is_killed() -> None:
    code = """
import os, signal, sys
from tests.distributed.actors.test_actors import make
agent = make(2)
def on_update(step, metrics):
    print(*[actor.process.pid for actor in agent._collector._actors], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
agent.learn(64, on_update)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    until = time.monotonic() + 20
    while any(_lives(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(_lives(pid) for pid in pids)


def test_a_checkpoint_of_a_run_with_actors_goes_on_with_new_episodes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with make(1) as agent:
        agent.learn(2 * ROLLOUT)
        agent.save(tmp_path / "run")
    with RecurrentPPO.load(tmp_path / "run", agent={"actors": 0, "max_staleness": 1}) as again:
        again.learn(ROLLOUT)
        assert again.steps_done == 3 * ROLLOUT
    assert "new episodes begin: actors play" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--agent.actors", "32"], "more actors than environments"),
        (["--agent.actors", "3"], "does not divide env.num_envs=16: use a divisor of 16"),
        (["--agent.actors", "-1"], "an integer >= 0"),
        (["--agent.actors", "1.5"], "expected an integer >= 0, `ray` or `ray://host:port`"),
        (["--agent.actors", "ray:/localhost:1"], "expected an integer >= 0, `ray` or"),
        (["--agent.actors", "ray://localhost"], "expected an integer >= 0, `ray` or"),
        (["--agent.actors", "ray://localhost:70000"], "expected an integer >= 0, `ray` or"),
        (["--agent.actors", "ray/3"], "does not divide env.num_envs=16: use a divisor of 16"),
        (["--agent.actors", "ray/32"], "more actors than environments"),
        (["--agent.max-staleness", "2"], "agent.actors is 0"),
        (["--agent.algo", "a2c", "--agent.actors", "2"], "use agent.advantages=vtrace"),
        (["--agent.actors", "2", "--env.id", "CartPole-v7"], "CartPole-v7"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", *words, "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and line in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("is_there", "line"),
    [(True, "nothing answers there"), (False, 'pip install "xlstm_rl[ray]"')],
)
def test_a_cluster_that_cannot_be_used_is_one_line(
    is_there: bool,
    line: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: is_there or None)
    words = ["--agent.actors", "ray://localhost:9", "--run-dir", str(tmp_path / "run")]
    assert main(["train", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and line in said
    assert not (tmp_path / "run").exists()


def test_a_ready_vector_environment_is_refused() -> None:
    env = gymnasium.make_vec("CartPole-v1", 4)
    with pytest.raises(ConfigError, match=r"agent\.actors: a ready vector environment"):
        make(2, env)
    env.close()


@pytest.mark.slow
def test_a_callable_goes_to_the_actors() -> None:
    with make(2, functools.partial(CartPoleEnv, sutton_barto_reward=True)) as agent:
        agent.learn(2 * ROLLOUT)
        assert agent.steps_done == 2 * ROLLOUT

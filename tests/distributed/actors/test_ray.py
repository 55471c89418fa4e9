"""Actors on a Ray cluster of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv

from xlstm_rl.agents.actor_options import ActorPlan, most_actors
from xlstm_rl.errors import EnvError

from .test_actors import ROLLOUT, ROOT, Failing, learn, make

ray: Any = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A cluster of this machine that all tests use, and that finds their modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
        ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_one_actor_that_takes_turns_learns_as_one_process_to_the_bit(algo: str) -> None:
    with make(0, algo=algo) as alone:
        expected = learn(alone, 4)
    with make("ray/1", algo=algo, max_staleness=0) as agent:
        found = learn(agent, 4)
    assert [row.pop("actors/staleness") for row in found] == [0.0] * 4
    own = [{k: v for k, v in row.items() if not k.startswith("actors")} for row in found]
    assert own == [pytest.approx(row, rel=0, abs=0, nan_ok=True) for row in expected]
    weights = agent.policy.state_dict()
    assert all(torch.equal(value, weights[k]) for k, value in alone.policy.state_dict().items())


def test_there_is_an_actor_for_each_cpu_and_none_is_staler_than_the_bound() -> None:
    with make("ray", max_staleness=2) as agent:
        rows = learn(agent, 7, wait=0.1)  # a slow learner
        assert len(agent._collector._actors) == 4
    staleness = [row["actors/max_staleness"] for row in rows]
    assert staleness[0] == 0.0 and 1.0 < max(staleness) <= 2.0


class Slow(CartPoleEnv):
    """Takes longer than an update."""

    def step(self, action: Any) -> Any:
        time.sleep(0.01)
        return super().step(action)


def test_slow_actors_take_over_new_weights_inside_a_rollout() -> None:
    with make("ray/1", Slow) as agent:
        rows = learn(agent, 6)
    assert min(row["actors/staleness"] for row in rows[2:]) < 0.9


class Mortal(CartPoleEnv):
    """Kills its process at its twelfth step, once for each file."""

    def __init__(self, will: Path) -> None:
        super().__init__()
        self._will, self._steps = will, 0

    def step(self, action: Any) -> Any:
        self._steps += 1
        if self._steps == 12 and self._will.exists():
            self._will.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


def test_a_killed_actor_is_replaced_and_the_run_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    will = tmp_path / "will"
    will.touch()
    with make("ray/2", lambda: Mortal(will)) as agent:
        rows = learn(agent, 6)
        assert agent.steps_done == 6 * ROLLOUT and rows[-1]["actors/replaced"] == 1.0
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("actor ")]
    assert len(said) == 1 and "another one takes its place" in said[0]


def test_an_environment_that_fails_in_an_actor_stops_the_run_with_its_name() -> None:
    with (
        make("ray/2", Failing) as agent,
        pytest.raises(EnvError, match=r"^actor \d: .*wire is cut"),
    ):
        agent.learn(ROLLOUT)


def test_the_command_starts_a_cluster_of_its_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--env.id", "CartPole-v1", "--env.num-envs", "4", "--agent.rollout-steps", "8"]
    words += ["--agent.actors", "ray/2", "--total-steps", "64", "--logger.kind", "csv"]
    done = subprocess.run(
        [sys.executable, "-m", "xlstm_rl", "train", *words, "--run-dir", str(run)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (run / "metrics.csv").read_text().count("\n") == 3


def test_plans_say_how_many_and_where() -> None:
    assert ActorPlan.of(3) == ActorPlan(3)
    assert ActorPlan.of("ray") == ActorPlan(None, "ray")
    assert ActorPlan.of("ray/8") == ActorPlan(8, "ray")
    address = "ray://head.example:10001"
    assert ActorPlan.of(f"{address}/8") == ActorPlan(8, address, "head.example", 10001)
    assert ActorPlan.of("ray://[::1]:10001") == ActorPlan(None, "ray://[::1]:10001", "::1", 10001)
    assert [most_actors(16, cpus) for cpus in (0, 1, 3, 12, 64)] == [1, 1, 2, 8, 16]

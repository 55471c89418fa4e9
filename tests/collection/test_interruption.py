"""A rollout that an interrupt or an error cuts off: the next one begins afresh."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl import RecurrentPPO
from xlstm_rl.collection.collector import Collector
from xlstm_rl.errors import EnvError

MODES = ["same_step", "next_step", "disabled"]
KINDS = ["sync", "async", "async that restarts", "native", "native on tensors"]
MakeAgent = Callable[..., RecurrentPPO]
AgentOf = Callable[[str, str], RecurrentPPO]
Check = Callable[[Collector], None]
Interrupt = Callable[[RecurrentPPO, int], AbstractContextManager[None]]

pytestmark = pytest.mark.usefixtures("forked")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.each_value
def test_learning_goes_on_with_new_episodes_after_an_interrupt(
    assert_begins_afresh: Check,
    interrupted_in_step: Interrupt,
    agent_of: AgentOf,
    kind: str,
    mode: str,
) -> None:
    agent = agent_of(kind, mode)
    agent.learn(60)
    with interrupted_in_step(agent, 7):
        agent.learn(60)
    assert agent.steps_done == 60
    collector = agent._collector
    assert collector is not None
    assert_begins_afresh(collector)
    with interrupted_in_step(agent, 2):
        agent.learn(60)
    agent.learn(60)
    assert agent.steps_done == 120 and set(collector.collect().episode_lengths) <= {3, 4, 5}
    assert all(torch.isfinite(p).all() for p in agent.parameters)
    agent.close()


@pytest.mark.parametrize("mode", MODES)
def test_an_interrupt_between_rollouts_loses_nothing(agent_of: AgentOf, mode: str) -> None:
    def interrupt(steps: int, metrics: dict[str, float]) -> None:
        raise KeyboardInterrupt

    ours, expected = agent_of("sync", mode), agent_of("sync", mode)
    with pytest.raises(KeyboardInterrupt):
        ours.learn(120, on_update=interrupt)
    expected.learn(60)
    assert ours.steps_done == 60 and ours._collector is not None
    one, other = ours._collector.collect(), expected._collector.collect()  # type: ignore[union-attr]
    assert (one.data["observation"] == other.data["observation"]).all()
    assert one.episode_returns == other.episode_returns


@pytest.mark.parametrize("kind", ["sync", "native", "native on tensors"])
@pytest.mark.parametrize("mode", MODES)
def test_an_interrupt_at_any_line_of_a_step_leaves_nothing_behind(
    assert_begins_afresh: Check, agent_of: AgentOf, mode: str, kind: str
) -> None:
    collector = agent_of(kind, mode)._make_collector()
    collector.collect()
    parts = ("/gymnasium/vector/", "/envs/tasks/", "/collection/")

    def interrupt_at(count: int) -> bool:
        left = count

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal left
            if not any(part in frame.f_code.co_filename for part in parts):
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            collector.collect()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    assert all(interrupt_at(count) for count in range(1, 400, 23))
    assert_begins_afresh(collector)


def _first_observations(agent: RecurrentPPO) -> Any:
    collector = agent._collector
    assert collector is not None
    return collector.collect().raw_observation[:, 0]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_episode_is_played_again_after_an_interrupt(
    interrupted_in_step: Interrupt, agent_of: AgentOf, kind: str
) -> None:
    def run() -> tuple[Any, Any]:
        agent = agent_of(kind, "same_step")
        collector = agent._collector = agent._make_collector()
        first = collector.collect().raw_observation[:, 0]
        with interrupted_in_step(agent, 3):
            collector.collect()
        again = _first_observations(agent)
        agent.close()
        return first, again

    (first, again), (_, repeated) = run(), run()
    assert not (first == again).any()
    assert torch.equal(again, repeated)  # and a run with an interrupt can be repeated


class FailsOnce(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Its fifth step fails in one of the ways of `fail`, in the first life of one environment."""

    def __init__(self, env: Any, flag: Path, fail: Callable[[], None]) -> None:
        super().__init__(env)
        self.flag, self.fail, self.count = flag, fail, 0

    def step(self, action: Any) -> Any:
        self.count += 1
        if self.count == 5 and not self.flag.exists():
            self.flag.write_text("")
            self.fail()
        return super().step(action)


def _raise() -> None:
    raise ZeroDivisionError("no floor")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Gymnasium prints the traceback with them
@pytest.mark.parametrize(("kind", "fail"), [("sync", _raise), ("async", _raise), ("async", _kill)])
def test_learning_goes_on_after_an_error_of_an_environment(
    make_agent: MakeAgent,
    fixed_env: type[gymnasium.Env[Any, Any]],
    kind: str,
    fail: Callable[[], None],
    tmp_path: Path,
) -> None:
    def run(flag: Path) -> Any:
        agent = make_agent(
            lambda: FailsOnce(fixed_env(), flag, fail), num_envs=3, vectorization=kind
        )
        with pytest.raises(EnvError, match=r"no floor|process.* died"):
            agent.learn(60)
        collector = agent._collector
        assert collector is not None
        first = collector.collect().raw_observation[:, 0]
        agent.learn(60)
        assert agent.steps_done == 60
        agent.close()
        return first

    first = run(tmp_path / "one")
    assert len(np.unique(first)) == first.numel()  # new processes have seeds of their own
    if fail is _raise:  # who else was in the middle of a step when one was killed is not known
        assert torch.equal(first, run(tmp_path / "two"))

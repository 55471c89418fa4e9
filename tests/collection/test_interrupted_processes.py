"""An interrupt that reaches environments in processes: they go on, are replaced or are named."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import vector
from gymnasium.vector import AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState

from xlstm_rl import RecurrentPPO
from xlstm_rl.collection.collector import Collector
from xlstm_rl.envs import EnvConfig, make_vector_env
from xlstm_rl.errors import EnvError

MakeAgent = Callable[..., RecurrentPPO]
AgentOf = Callable[[str, str], RecurrentPPO]
Check = Callable[[Collector], None]
Interrupt = Callable[[RecurrentPPO, int], AbstractContextManager[None]]

pytestmark = pytest.mark.usefixtures("forked")


class Cut:
    """A pipe that interrupts in one of its calls, before or behind what it does there."""

    def __init__(self, pipe: Any, call: str, when: str, skip: int = 0) -> None:
        self.pipe, self.call, self.when, self.skip = pipe, call, when, skip

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.pipe, name)
        if name != self.call:
            return found
        self.skip -= 1
        if self.skip >= 0:
            return found

        def cut(*args: Any) -> Any:
            self.call = ""
            if self.when == "behind":
                found(*args)
            raise KeyboardInterrupt

        return cut


@pytest.mark.parametrize(
    ("call", "when", "kind"),
    [
        ("send", "before", "async"),
        ("send", "behind", "async"),
        ("recv", "before", "async"),
        ("recv", "behind", "async"),
        ("recv", "before", "async that restarts"),
    ],
)
def test_a_call_to_processes_may_be_cut_off_anywhere(
    assert_begins_afresh: Check, agent_of: AgentOf, call: str, when: str, kind: str
) -> None:
    agent, row = agent_of(kind, "same_step"), 1
    processes = [one.pid for one in agent.env.processes]
    collector = agent._make_collector()
    for begin in (collector.collect, lambda: collector._adapter.env.reset()):
        agent.env.parent_pipes[row] = Cut(agent.env.parent_pipes[row], call, when)
        with pytest.raises(KeyboardInterrupt):
            begin()
        collector.is_cut_off = True
        assert_begins_afresh(collector)
    assert [one.pid for one in agent.env.processes] == processes
    agent.env.parent_pipes[row] = Cut(agent.env.parent_pipes[row], call, when)
    with pytest.raises(KeyboardInterrupt):
        collector.collect()
    agent.close()
    assert not any(one.is_alive() for one in agent.env.processes)


@pytest.mark.parametrize("skip", [0, 1])
def test_the_first_reset_and_a_recovery_may_be_cut_off_too(agent_of: AgentOf, skip: int) -> None:
    agent = agent_of("async", "same_step")
    agent.env.parent_pipes[1] = Cut(agent.env.parent_pipes[1], "recv", "before", skip)
    with pytest.raises(KeyboardInterrupt):
        agent.learn(60)
    assert agent.learn(60).steps_done == 60
    agent.close()


@pytest.fixture
def own_async(fixed_env: type[gymnasium.Env[Any, Any]]) -> vector.AsyncVectorEnv:
    return vector.AsyncVectorEnv([fixed_env] * 3, autoreset_mode=AutoresetMode.SAME_STEP)


def test_a_vector_in_processes_of_the_users_own_goes_on_too(
    assert_begins_afresh: Check, make_agent: MakeAgent, own_async: vector.AsyncVectorEnv
) -> None:
    agent = make_agent(own_async)
    agent.learn(60)
    agent.env.parent_pipes[1] = Cut(agent.env.parent_pipes[1], "recv", "behind")
    with pytest.raises(KeyboardInterrupt):
        agent.learn(60)
    assert agent.env._state == AsyncState.WAITING_STEP
    assert agent._collector is not None
    assert_begins_afresh(agent._collector)
    agent.close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_processes_of_the_users_own_that_an_interrupt_ended_are_named(
    interrupted_in_step: Interrupt, make_agent: MakeAgent, own_async: vector.AsyncVectorEnv
) -> None:
    agent = make_agent(own_async)
    with interrupted_in_step(agent, 3):
        agent.learn(60)
    for process in agent.env.processes[:2]:
        os.kill(process.pid, signal.SIGINT)
        process.join()
    with pytest.raises(
        EnvError, match=r"processes of environments \[0, 1\] are gone.*create .* again"
    ):
        agent.learn(60)
    agent.close()
    assert not any(one.is_alive() for one in agent.env.processes)


def test_our_processes_ignore_interrupts_and_this_one_does_not(
    fixed_env: type[gymnasium.Env[Any, Any]],
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    env = make_vector_env(EnvConfig(num_envs=2, vectorization="async"), fixed_env)
    assert signal.getsignal(signal.SIGINT) is handler
    env.reset(seed=0)
    for process in env.processes:  # type: ignore[attr-defined]
        os.kill(process.pid, signal.SIGINT)
    env.step(np.zeros(2, np.int64))
    assert all(process.is_alive() for process in env.processes)  # type: ignore[attr-defined]
    env.close()


TRAIN_AND_TRAIN_AGAIN = """
import sys
from xlstm_rl import RecurrentPPO
agent = RecurrentPPO(
    "Acrobot-v1",
    env={"num_envs": 2, "vectorization": "async"},
    memory={"kind": "gru", "width": 8},
    agent={"rollout_steps": 16, "minibatches": 1, "epochs": 1},
    logger={"kind": "none"},
)
try:
    agent.learn(10**9, on_update=lambda steps, metrics: print(steps, flush=True))
except KeyboardInterrupt:
    agent.learn(64)
    agent.close()
    print("learned again")
    sys.exit(130)
"""


def test_ctrl_c_in_a_terminal_can_be_caught_and_learned_on_from() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN_AND_TRAIN_AGAIN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, err
    assert out.endswith("learned again\n") and err == ""

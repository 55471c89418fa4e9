"""A rollout that an interrupt or an error cuts off: the next one begins afresh."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces, vector
from gymnasium.vector import AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState

from xlstm_rl import RecurrentPPO
from xlstm_rl.collection.collector import Collector
from xlstm_rl.envs import EnvConfig, make_vector_env
from xlstm_rl.errors import EnvError

MODES = ["same_step", "next_step", "disabled"]
LENGTHS = {3, 4, 5}

pytestmark = pytest.mark.usefixtures("forked")


class Fixed(gymnasium.Env[Any, Any]):
    """Episodes of 3, 4 and 5 steps in turn, cut and ended in turn; the n-th step pays n."""

    observation_space, action_space = spaces.Box(-9, 9, (2,)), spaces.Discrete(2)

    def __init__(self) -> None:
        self.episode = self.t = 0

    def _see(self) -> Any:
        return self.np_random.normal(size=2).astype(np.float32).clip(-9, 9)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        over, cut = self.t == 3 + self.episode % 3, self.episode % 2 == 0
        return self._see(), float(self.t), over and not cut, over and cut, {}


def _agent(env: Any, **section: Any) -> RecurrentPPO:
    return RecurrentPPO(
        env,
        memory={"width": 8, "num_heads": 1},
        policy={"previous_action": True, "previous_reward": True, "first_step": True},
        agent={"rollout_steps": 20, "minibatches": 1, "epochs": 1},
        env=section,
        logger={"kind": "none"},
    )


KINDS = ["sync", "async", "async that restarts", "native", "native on tensors"]


def _made(kind: str, mode: str) -> RecurrentPPO:
    if kind.startswith("native"):
        kwargs = {"length": 3, "tensors": kind == "native on tensors"}
        return _agent("xlstm_rl/MemoryChain-v0", num_envs=3, autoreset=mode, kwargs=kwargs)
    on_error = "restart" if kind == "async that restarts" else "stop"
    return _agent(
        Fixed, num_envs=3, autoreset=mode, vectorization=kind.split()[0], on_error=on_error
    )


def _assert_begins_afresh(collector: Collector) -> None:
    first, second = collector.collect(), collector.collect()
    data = first.data
    assert data["reset"][:, 0].all() and data["valid"][:, 0].all()
    assert all(not tensor.any() for tensor in first.segment_states[0])
    lengths = first.episode_lengths + second.episode_lengths
    returns = first.episode_returns + second.episode_returns
    if isinstance(collector._adapter.env.unwrapped, vector.SyncVectorEnv | vector.AsyncVectorEnv):
        assert set(lengths) == LENGTHS
        assert returns == [n * (n + 1) / 2 for n in lengths]
    else:
        assert set(lengths) == {4}
    with torch.no_grad():  # what acted is what trains, from the first step on
        _, value, _ = collector.policy.network(
            data["observation"], first.segment_states[0], data["reset"]
        )
    torch.testing.assert_close(value, data["value"], rtol=1e-5, atol=1e-5)


@contextmanager
def _interrupted_in_step(agent: RecurrentPPO, call: int) -> Iterator[None]:
    """Raise KeyboardInterrupt in a call of the vector's step, behind the step itself."""
    step, calls = agent.env.step, iter(range(1000))

    def interrupted(action: Any) -> Any:
        answer = step(action)
        if next(calls) == call:
            raise KeyboardInterrupt
        return answer

    agent.env.step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        yield
    agent.env.step = step  # type: ignore[method-assign]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_learning_goes_on_with_new_episodes_after_an_interrupt(kind: str, mode: str) -> None:
    agent = _made(kind, mode)
    agent.learn(60)
    with _interrupted_in_step(agent, 7):
        agent.learn(60)
    assert agent.steps_done == 60
    collector = agent._collector
    assert collector is not None
    _assert_begins_afresh(collector)
    with _interrupted_in_step(agent, 2):
        agent.learn(60)
    agent.learn(60)
    assert agent.steps_done == 120 and set(collector.collect().episode_lengths) <= {3, 4, 5}
    assert all(torch.isfinite(p).all() for p in agent.parameters)
    agent.close()


@pytest.mark.parametrize("mode", MODES)
def test_an_interrupt_between_rollouts_loses_nothing(mode: str) -> None:
    def interrupt(steps: int, metrics: dict[str, float]) -> None:
        raise KeyboardInterrupt

    ours, expected = _made("sync", mode), _made("sync", mode)
    with pytest.raises(KeyboardInterrupt):
        ours.learn(120, on_update=interrupt)
    expected.learn(60)
    assert ours.steps_done == 60 and ours._collector is not None
    one, other = ours._collector.collect(), expected._collector.collect()  # type: ignore[union-attr]
    assert (one.data["observation"] == other.data["observation"]).all()
    assert one.episode_returns == other.episode_returns


@pytest.mark.parametrize("kind", ["sync", "native", "native on tensors"])
@pytest.mark.parametrize("mode", MODES)
def test_an_interrupt_at_any_line_of_a_step_leaves_nothing_behind(mode: str, kind: str) -> None:
    collector = _made(kind, mode)._make_collector()
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
    _assert_begins_afresh(collector)


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
def test_a_call_to_processes_may_be_cut_off_anywhere(call: str, when: str, kind: str) -> None:
    agent, row = _made(kind, "same_step"), 1
    processes = [one.pid for one in agent.env.processes]
    collector = agent._make_collector()
    for begin in (collector.collect, lambda: collector._adapter.env.reset()):
        agent.env.parent_pipes[row] = Cut(agent.env.parent_pipes[row], call, when)
        with pytest.raises(KeyboardInterrupt):
            begin()
        collector._is_cut_off = True
        _assert_begins_afresh(collector)
    assert [one.pid for one in agent.env.processes] == processes
    agent.env.parent_pipes[row] = Cut(agent.env.parent_pipes[row], call, when)
    with pytest.raises(KeyboardInterrupt):
        collector.collect()
    agent.close()
    assert not any(one.is_alive() for one in agent.env.processes)


@pytest.mark.parametrize("skip", [0, 1])
def test_the_first_reset_and_a_recovery_may_be_cut_off_too(skip: int) -> None:
    agent = _made("async", "same_step")
    agent.env.parent_pipes[1] = Cut(agent.env.parent_pipes[1], "recv", "before", skip)
    with pytest.raises(KeyboardInterrupt):
        agent.learn(60)
    assert agent.learn(60).steps_done == 60
    agent.close()


def _first_observations(agent: RecurrentPPO) -> Any:
    collector = agent._collector
    assert collector is not None
    return collector.collect().raw_observation[:, 0]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_episode_is_played_again_after_an_interrupt(kind: str) -> None:
    def run() -> tuple[Any, Any]:
        agent = _made(kind, "same_step")
        collector = agent._collector = agent._make_collector()
        first = collector.collect().raw_observation[:, 0]
        with _interrupted_in_step(agent, 3):
            collector.collect()
        again = _first_observations(agent)
        agent.close()
        return first, again

    (first, again), (_, repeated) = run(), run()
    assert not (first == again).any()
    assert torch.equal(again, repeated)  # and a run with an interrupt can be repeated


class FailsOnce(Fixed):
    """Its fifth step fails in one of the ways of `fail`, in the first life of one environment."""

    def __init__(self, flag: Path, fail: Callable[[], None]) -> None:
        super().__init__()
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
    kind: str, fail: Callable[[], None], tmp_path: Path
) -> None:
    def run(flag: Path) -> Any:
        agent = _agent(lambda: FailsOnce(flag, fail), num_envs=3, vectorization=kind)
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


def _own_async() -> vector.AsyncVectorEnv:
    return vector.AsyncVectorEnv([Fixed] * 3, autoreset_mode=AutoresetMode.SAME_STEP)


def test_a_vector_in_processes_of_the_users_own_goes_on_too() -> None:
    agent = _agent(_own_async())
    agent.learn(60)
    agent.env.parent_pipes[1] = Cut(agent.env.parent_pipes[1], "recv", "behind")
    with pytest.raises(KeyboardInterrupt):
        agent.learn(60)
    assert agent.env._state == AsyncState.WAITING_STEP
    assert agent._collector is not None
    _assert_begins_afresh(agent._collector)
    agent.close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_processes_of_the_users_own_that_an_interrupt_ended_are_named() -> None:
    agent = _agent(_own_async())
    with _interrupted_in_step(agent, 3):
        agent.learn(60)
    for process in agent.env.processes[:2]:
        os.kill(process.pid, signal.SIGINT)
        process.join()
    with pytest.raises(EnvError, match=r"processes of environments \[0, 1\] are gone.*anew"):
        agent.learn(60)
    agent.close()
    assert not any(one.is_alive() for one in agent.env.processes)


def test_our_processes_ignore_interrupts_and_this_one_does_not() -> None:
    handler = signal.getsignal(signal.SIGINT)
    env = make_vector_env(EnvConfig(num_envs=2, vectorization="async"), Fixed)
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

"""Agents whose rollouts are cut off, and what must hold of the rollouts that follow."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces, vector

from xlstm_rl import RecurrentPPO
from xlstm_rl.collection.collector import Collector

LENGTHS = {3, 4, 5}


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


def _kind_of_agent(kind: str, mode: str) -> RecurrentPPO:
    if kind.startswith("native"):
        kwargs = {"length": 3, "tensors": kind == "native on tensors"}
        return _agent("xlstm_rl/MemoryChain-v0", num_envs=3, autoreset=mode, kwargs=kwargs)
    on_error = "restart" if kind == "async that restarts" else "stop"
    return _agent(
        Fixed, num_envs=3, autoreset=mode, vectorization=kind.split()[0], on_error=on_error
    )


def _begins_afresh(collector: Collector) -> None:
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


@pytest.fixture
def fixed_env() -> type[Fixed]:
    """The class of the environment whose episodes are 3, 4 and 5 steps long."""
    return Fixed


@pytest.fixture
def make_agent() -> Callable[..., RecurrentPPO]:
    """A function of an environment and options of the section `env`."""
    return _agent


@pytest.fixture
def agent_of() -> Callable[[str, str], RecurrentPPO]:
    """A function of how the environments are run (`sync`, `native on tensors`, ...) and a mode."""
    return _kind_of_agent


@pytest.fixture
def assert_begins_afresh() -> Callable[[Collector], None]:
    """A function that collects twice and holds both rollouts to those of a new collector."""
    return _begins_afresh


@pytest.fixture
def interrupted_in_step() -> Callable[[RecurrentPPO, int], AbstractContextManager[None]]:
    """A context in which a call of the vector's step, counted from 0, ends in KeyboardInterrupt.

    The step itself is taken before.
    """
    return _interrupted_in_step

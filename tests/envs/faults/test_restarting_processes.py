"""With `env.on_error: restart`, a process that dies is replaced and told, whatever it was doing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl.envs import EnvConfig, make_vector_env

IMAGE = spaces.Box(0, 255, (8, 8, 1), np.uint8)
MODES = ["same_step", "disabled", "next_step"]

pytestmark = pytest.mark.usefixtures("forked")


class Process(gymnasium.Env[Any, Any]):
    """Observes its process and the steps of its episode, which has three."""

    observation_space = spaces.Dict(
        pid=spaces.Box(0, np.inf, (), np.float64), t=spaces.Discrete(9), image=IMAGE
    )
    action_space = spaces.Discrete(2)

    def __init__(self, lives: Path | None = None) -> None:
        """With `lives`, a reset ends the process until two are written there."""
        self.lives = lives

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        if self.lives is not None and len(self.lives.read_text()) < 2:
            self.lives.write_text(self.lives.read_text() + "x")
            os._exit(1)
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self._see(), 1.0, self.t == 3, False, {}

    def _see(self) -> Any:
        image = np.full(IMAGE.shape, os.getpid() % 256, np.uint8)
        return {"pid": np.float64(os.getpid()), "t": self.t, "image": image}


def _vector(mode: str, make: Callable[[], Any] = Process) -> Any:
    config = EnvConfig(num_envs=3, on_error="restart", vectorization="async", autoreset=mode)
    return make_vector_env(config, make)


def _end(env: Any, row: int) -> None:
    env.processes[row].kill()
    env.processes[row].join()


def _step(env: Any) -> Any:
    return env.step(np.zeros(3, np.int64))


@pytest.mark.parametrize("mode", MODES)
def test_a_new_process_s_observations_take_the_place_of_the_old_one_s(mode: str) -> None:
    env = _vector(mode)
    old = env.reset(seed=0)[0]["pid"]
    _step(env)
    _end(env, 1)
    with pytest.warns(RuntimeWarning, match=r"environment 1: its process died in step 1 .*SIGKILL"):
        observation, reward, terminated, truncated, info = _step(env)
    assert reward.tolist() == [1, 0, 1] and truncated.tolist() == [False, True, False]
    assert not terminated.any() and observation["t"][[0, 2]].tolist() == [2, 2]
    if mode == "same_step":
        final = info["final_obs"][1]
        assert final["pid"] == old[1] and final["t"] == 1
    else:
        assert observation["pid"][1] == old[1] and observation["t"][1] == 1
        if mode == "disabled":
            observation, _ = env.reset(options={"reset_mask": truncated})
        else:
            observation, reward, terminated, truncated, info = _step(env)
            assert reward[1] == 0 and not truncated[1] and not info
    for t in range(3):
        pids = [one.pid for one in env.processes]
        assert observation["pid"].tolist() == pids and observation["t"][1] == t
        assert (observation["image"][1] == pids[1] % 256).all()
        assert pids[1] != old[1] and [pids[0], pids[2]] == old[[0, 2]].tolist()
        if mode == "disabled" and terminated.any():
            observation, _ = env.reset(options={"reset_mask": terminated})
        if t < 2:
            observation, _, terminated, truncated, _ = _step(env)
            assert not truncated.any()
    env.close()


def test_a_process_that_died_before_another_s_reset_is_told_in_the_next_step() -> None:
    env = _vector("disabled")
    env.reset(seed=0)
    _step(env)
    _end(env, 2)
    with pytest.warns(RuntimeWarning, match="environment 2: its process died in reset"):
        observation, _ = env.reset(options={"reset_mask": np.array([True, False, False])})
    assert observation["t"].tolist() == [0, 1, 1]
    _, reward, _, truncated, _ = _step(env)
    assert reward.tolist() == [1, 1, 0] and truncated.tolist() == [False, False, True]
    env.close()


def test_a_process_that_dies_between_two_episodes_breaks_none() -> None:
    env = _vector("next_step")
    env.reset(seed=0)
    for _ in range(3):
        terminated = _step(env)[2]
    assert terminated.all()
    _end(env, 0)
    with pytest.warns(RuntimeWarning, match="environment 0: its process died in reset"):
        observation, reward, terminated, truncated, info = _step(env)
    assert not (terminated | truncated).any() and not reward.any() and not info
    assert observation["t"].tolist() == [0, 0, 0]
    observation, reward, *_ = _step(env)
    assert observation["t"].tolist() == [1, 1, 1] and reward.all()
    env.close()


def test_processes_that_die_in_their_reset_are_replaced_until_one_lives(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    lives.write_text("")
    config = EnvConfig(num_envs=1, on_error="restart", vectorization="async")
    env = make_vector_env(config, lambda: Process(lives))
    with pytest.warns(RuntimeWarning, match=r"died in reset \(exit status 1\)") as caught:
        observation, _ = env.reset(seed=0)
    # newer Pythons warn of a fork beside threads, too
    of_restarts = [one for one in caught if one.category is RuntimeWarning]
    assert len(of_restarts) == 2 and observation["t"].tolist() == [0]
    lives.unlink()  # now it raises there, which three new environments in the process do not mend
    env.step(np.zeros(1, np.int64))
    _end(env, 0)
    with (
        pytest.warns(RuntimeWarning, match="environment 0: its process died in step 1"),
        pytest.raises(RuntimeError, match=r"0 raised in reset: FileNotFound.*\(3 times in a row"),
    ):
        env.step(np.zeros(1, np.int64))
    assert env.closed and not env.processes[0].is_alive()


def test_a_new_process_does_not_wait_for_threads_that_a_fork_has_lost() -> None:
    class Threads(Process):
        def _see(self) -> Any:
            return {**super()._see(), "t": torch.get_num_threads()}

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        env = _vector("same_step", Threads)
        assert env.reset(seed=0)[0]["t"].tolist() == [2, 2, 2]
        _end(env, 1)
        with pytest.warns(RuntimeWarning, match="environment 1: its process died"):
            assert _step(env)[0]["t"].tolist() == [2, 1, 2]
        env.close()
    finally:
        torch.set_num_threads(before)


def test_a_vector_with_a_dead_process_closes() -> None:
    env = _vector("same_step")
    env.reset(seed=0)
    _end(env, 1)
    env.close()
    assert not any(one.is_alive() for one in env.processes)


@pytest.mark.parametrize("on_error", ["stop", "restart"])
def test_a_process_that_dies_while_it_makes_its_environment_is_told(on_error: Any) -> None:
    parent = os.getpid()

    def make() -> Any:
        return Process() if os.getpid() == parent else os._exit(1)

    config = EnvConfig(num_envs=2, on_error=on_error, vectorization="async")
    with pytest.raises(ValueError, match="died while it made its environment: 'sync' shows"):
        make_vector_env(config, make)

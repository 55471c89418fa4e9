"""Environments in processes of their own: calls that were cut off, and interrupts."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import gymnasium as gym
from gymnasium import vector as gym_vector
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.async_vector_env import AsyncState

from xlstm_rl.closing import closed_on_error
from xlstm_rl.envs.faults.error_context import EnvStepError
from xlstm_rl.envs.faults.infos import AnyInfo
from xlstm_rl.envs.faults.restarting import seed_after
from xlstm_rl.envs.snapshots.graph import SnapshotError, trusting

_PATIENCE = 30.0
"""Seconds that processes may take to end the step in which they were left."""

_PATIENCE_AT_CLOSE = 5.0


class AsyncVectorEnv(AnyInfo, gym_vector.AsyncVectorEnv):
    """Gymnasium's, for infos of any kind, which outlives an interrupt.

    Ctrl-C reaches all processes of a terminal: those of the environments ignore it, and leave it to
    the process that trains. When a call was cut off, `recover` makes the vector ready for the next
    reset. It takes new processes where one of them is gone, and seeds them from the seeds of old.

    Args:
        env_fns: make one environment each.
        autoreset_mode: when finished episodes restart.
    """

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gym.Env[Any, Any]]],
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
    ) -> None:
        self._makers = [_deaf_to_interrupts(make) for make in env_fns]
        self._mode = autoreset_mode
        self._seeds: list[int | None] = [None] * len(self._makers)
        self._renewals, self._is_new, self._is_abandoned = 0, False, False
        self._start()

    def _start(self) -> None:
        self.processes: list[Any] = []
        with closed_on_error(self.abandon):
            super().__init__(self._makers, autoreset_mode=self._mode)

    def reset_async(
        self,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Send the calls of `reset`, with seeds where the processes are new and have none yet."""
        if isinstance(seed, int):
            seed = [seed + row for row in range(self.num_envs)]
        if seed is None and self._is_new:
            seed = [seed_after(one, self._renewals) for one in self._seeds]
        elif seed is not None:
            self._seeds = list(seed)
        super().reset_async(seed, options)
        self._is_new = False

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the environments, and the seeds.

        Raises:
            SnapshotError: one cannot hand it over, or does not answer.
        """
        states = self._ask("hand_over", [()] * self.num_envs)
        for row, state in enumerate(states):
            if isinstance(state, str):
                raise SnapshotError(f"environment {row}: {state}")
        return {"states": states, "seeds": self._seeds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, after a reset.

        Raises:
            SnapshotError: it does not fit, or a process does not answer.
        """
        resets_first = self._mode == AutoresetMode.NEXT_STEP
        states, trust = list(state["states"]), trusting.get()
        if len(states) != self.num_envs:
            raise SnapshotError(f"it holds {len(states)} environments, expected {self.num_envs}")
        arguments = [(one, trust, resets_first) for one in states]
        for row, problem in enumerate(self._ask("take_over", arguments)):
            if problem is not None:
                raise SnapshotError(f"environment {row}: {problem}")
        self._seeds = list(state["seeds"])

    def _ask(self, method: str, arguments: list[Any]) -> list[Any]:
        """Call a method of every environment and return what they answer."""
        if self.closed or self._state != AsyncState.DEFAULT:
            raise SnapshotError("its processes are closed, or busy")
        if not all(process.is_alive() for process in self.processes):
            raise SnapshotError("one of its processes is gone")
        try:
            for pipe, own in zip(self.parent_pipes, arguments, strict=True):
                pipe.send(("_call", (method, own, {})))
            answers = [pipe.recv() for pipe in self.parent_pipes]
        except (EOFError, OSError) as error:
            raise SnapshotError("one of its processes died") from error
        if not all(success for _, success in answers):
            raise SnapshotError(f"a process failed in {method}")
        return [answer for answer, _ in answers]

    def recover(self) -> None:
        """Make ready for a full reset after a call that was interrupted or that failed."""
        if self.closed and not self._is_abandoned:
            return
        if self._is_abandoned or _silent(self, _PATIENCE):
            self.abandon()
            self.closed = False
            try:
                self._start()
            except BaseException:
                self.closed = True
                raise
            self._is_abandoned = False
            _ASKED.discard(self)
            self._renewals, self._is_new = self._renewals + 1, True
        self._state = AsyncState.DEFAULT

    def abandon(self) -> None:
        """End all processes without waiting for what they still have to say."""
        self.closed = self._is_abandoned = True
        for process in self.processes:
            if process.pid is not None:
                process.terminate()
                process.join()

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """End the processes; those that do not answer are not waited for."""
        if not terminate:
            _part_with_the_silent(self)
        self._state = AsyncState.DEFAULT
        super().close_extras(timeout, terminate)


def recover(env: VectorEnv[Any, Any, Any]) -> None:
    """Make a vector ready for a full reset after a call that was interrupted or that failed.

    Args:
        env: any vector; all but those in processes are ready as they are.

    Raises:
        EnvStepError: processes are gone, and nobody here knows how to make new ones.
    """
    vector: Any = env.unwrapped
    if isinstance(vector, AsyncVectorEnv):
        vector.recover()
    elif isinstance(vector, gym_vector.AsyncVectorEnv) and not vector.closed:
        silent = _silent(vector, _PATIENCE)
        if silent:
            raise EnvStepError(
                f"the processes of environments {silent} are gone or do not answer, after an "
                "interrupt or an error: create the vector environment again"
            )
        vector._state = AsyncState.DEFAULT


def close(env: VectorEnv[Any, Any, Any]) -> None:
    """Close a vector, also when a call was cut off or a process died."""
    vector: Any = env.unwrapped
    is_foreign = not isinstance(vector, AsyncVectorEnv)
    if is_foreign and isinstance(vector, gym_vector.AsyncVectorEnv) and not vector.closed:
        _part_with_the_silent(vector)
        vector._state = AsyncState.DEFAULT
    env.close()


def give_up(env: VectorEnv[Any, Any, Any]) -> list[int]:
    """End the processes of a vector of which some died, and return which these are.

    The vector could not be closed: it would wait for the answers of the dead.
    """
    vector: Any = env.unwrapped
    processes = getattr(vector, "processes", [])
    for one in processes:
        one.join(0.1)  # a process that was just killed may still count as alive
    gone = [row for row, one in enumerate(processes) if not one.is_alive()]
    if isinstance(vector, AsyncVectorEnv):
        vector.abandon()
    elif processes:
        for one in processes:
            one.terminate()
            one.join()
        vector.closed = True
    return gone


def _silent(vector: Any, patience: float) -> list[int]:
    """Return the environments whose processes do not answer.

    Which of the others still owe an answer to a call that was cut off cannot be known. All are
    asked something that only needs two words, and read until these come.
    """
    if vector in _ASKED:  # and interrupted before all had answered
        return list(range(vector.num_envs))
    _ASKED.add(vector)
    question = ("_check_spaces", ("same", None, None))
    silent = []
    for row, pipe in enumerate(vector.parent_pipes):
        try:
            pipe.send(question)
        except (AttributeError, OSError, ValueError):  # Gymnasium puts None for a dead one's pipe
            silent.append(row)
    deadline = time.monotonic() + patience
    for row, pipe in enumerate(vector.parent_pipes):
        if row not in silent and not _answers(pipe, deadline):
            silent.append(row)
    if not silent:
        _ASKED.discard(vector)
    return sorted(silent)


_ASKED: WeakSet[Any] = WeakSet()
"""Vectors whose processes may owe the answer to a question."""


def _answers(pipe: Any, deadline: float) -> bool:
    """Read from a pipe until the answer of `_silent` comes; false where none does."""
    try:
        while pipe.poll(max(deadline - time.monotonic(), 0.0)):
            answer, success = pipe.recv()
            if not success:
                return False
            if isinstance(answer, tuple) and len(answer) == 2 and type(answer[1]) is bool:
                return True
    except (EOFError, OSError, ValueError, TypeError, pickle.UnpicklingError):
        return False  # dead, or cut off in the middle of a message
    return False


def _part_with_the_silent(vector: Any) -> None:
    """End the processes that do not answer, and leave the vector as if they had failed."""
    for row in _silent(vector, _PATIENCE_AT_CLOSE):
        pipe = vector.parent_pipes[row]
        if pipe is not None:
            vector.processes[row].terminate()
            with suppress(OSError):
                pipe.close()
            vector.parent_pipes[row] = None


def _deaf_to_interrupts(
    make: Callable[[], gym.Env[Any, Any]],
) -> Callable[[], gym.Env[Any, Any]]:
    parent = os.getpid()

    def maker() -> gym.Env[Any, Any]:
        if os.getpid() != parent and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return make()

    return maker

"""A vector of environments in processes, in which a process that dies is replaced."""

from __future__ import annotations

import inspect
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode
from gymnasium.vector.async_vector_env import _async_worker
from gymnasium.vector.utils import (
    CloudpickleWrapper,
    clear_mpi_env_vars,
    create_shared_memory,
    read_from_shared_memory,
)

from xlstm_rl.envs.faults.error_context import EnvStepError
from xlstm_rl.envs.faults.processes import AsyncVectorEnv
from xlstm_rl.envs.faults.restarting import BROKEN, MOST_IN_A_ROW, seed_after
from xlstm_rl.envs.spaces.leaves import build, space_leaves, take


class RestartingAsyncVectorEnv(AsyncVectorEnv):
    """Go on with a new process for an environment whose process died.

    For those who step the vector its episode was truncated at the last observation that came out of
    the process, with a reward of zero and `BROKEN` in its info. Processes that die while the vector
    is made, and those that hang, are left as they are.

    Args:
        env_fns: make one environment each.
        autoreset_mode: when finished episodes restart.

    Raises:
        EnvStepError: in `reset` and `step`; a process died three times without a step in between.
            All processes are ended then.
    """

    def _start(self) -> None:
        super()._start()
        # All that the base class does with a process goes through its pipe: whoever answers there
        # may be another process, or none.
        links: Any = [
            _WorkerPipe(self, index, pipe) for index, pipe in enumerate(self.parent_pipes)
        ]
        self.parent_pipes = links
        self._leaves = space_leaves(self.single_observation_space)
        # What the first processes share is not kept by the base class: later ones share this.
        self._memory: Any = None
        self._rows: Any = None

    def start_process(self, index: int) -> Any:
        """Start a new process for an environment and return the connection to it."""
        context: Any = multiprocessing.get_context(self.context)
        if self._memory is None:
            space, n = self.single_observation_space, self.num_envs
            self._memory = create_shared_memory(space, n=n, ctx=context)
            self._rows = read_from_shared_memory(space, self._memory, n=n)
        ours, theirs = context.Pipe()
        make = CloudpickleWrapper(_on_one_thread(self.env_fns[index]))
        memory = self._memory
        arguments = (index, make, theirs, ours, memory, self.error_queue, self.autoreset_mode)
        # newer versions of Gymnasium pass a semaphore, which we never have
        more = len(inspect.signature(_async_worker).parameters) - len(arguments)
        process = context.Process(
            target=_async_worker,
            name=f"Worker<{type(self).__name__}>-{index}",
            args=arguments + (None,) * more,
            daemon=self.daemon,
        )
        with clear_mpi_env_vars():
            process.start()
        theirs.close()  # so that its end is seen here
        self.processes[index] = process
        return ours

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the environments, and what is known here of their episodes."""
        links: list[Any] = list(self.parent_pipes)
        return {**super().state_dict(), "links": [link.state() for link in links]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, after a reset."""
        super().load_state_dict(state)
        links: list[Any] = list(self.parent_pipes)
        for link, own in zip(links, state["links"], strict=True):
            link.load_state(*own)

    def read_row(self, index: int) -> Any:
        """Return a copy of the last observation of an environment."""
        parts: Any = self.observations
        rows = [take(parts, leaf.path)[index].copy() for leaf in self._leaves]
        return build(self.single_observation_space, iter(rows))

    def fetch_row(self, index: int) -> None:
        """Put what a new process observed where the base class looks for it."""
        parts: Any = self.observations
        for leaf in self._leaves:
            take(parts, leaf.path)[index] = take(self._rows, leaf.path)[index]


def _on_one_thread(
    make: Callable[[], gym.Env[Any, Any]],
) -> Callable[[], gym.Env[Any, Any]]:
    def maker() -> gym.Env[Any, Any]:
        # A fork of a process in which torch has computed lacks the threads it computed with, and
        # an environment that computes with torch would wait for them.
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        return make()

    return maker


class _WorkerPipe:
    """Stands for the pipe to the process of one environment, and outlives the process."""

    def __init__(self, vector: RestartingAsyncVectorEnv, index: int, connection: Any) -> None:
        self._vector, self._index, self._connection = vector, index, connection
        self._mode = vector.autoreset_mode
        self._command = ""
        self._data: Any = None
        self._is_dead = False
        self._ended = False  # in next_step mode: the next step only resets
        self._steps = self._failures = self._restarts = 0
        self._seed: int | None = None

    @property
    def closed(self) -> bool:
        return bool(self._connection.closed) and not self._is_dead

    def poll(self, timeout: float | None = 0.0) -> bool:
        return self._is_dead or bool(self._connection.poll(timeout))

    def close(self) -> None:
        self._connection.close()
        self._is_dead = False

    def send(self, message: tuple[str, Any]) -> None:
        self._command, self._data = message
        if self._command == "reset" and self._data["seed"] is not None:
            self._seed = self._data["seed"]
        if not self._is_dead:
            with suppress(ConnectionError):  # told when the answer is waited for
                self._connection.send(message)

    def recv(self) -> tuple[Any, bool]:
        """Return what the process answers to the last message, or what stands for it."""
        if not self._is_dead:
            try:
                answer, success = self._connection.recv()
            except (EOFError, OSError):  # the end of the file between messages, or within one
                if self._command not in _COMMANDS:
                    raise
                self._record_death()
            else:
                if success and self._command in ("reset", "step"):
                    self._follow(answer)
                return answer, success
        return self._stand_in(), True

    def state(self) -> tuple[bool, int, int | None]:
        return self._ended, self._steps, self._seed

    def load_state(self, ended: bool, steps: int, seed: int | None) -> None:
        self._ended, self._steps, self._seed = ended, steps, seed

    def _follow(self, answer: Any) -> None:
        """Keep what must be known of the episode should its process die."""
        if self._restarts:
            self._vector.fetch_row(self._index)
        if self._command == "reset":
            self._ended, self._steps = False, 0
            return
        _, _, terminated, truncated, info = answer
        if not (self._ended or BROKEN in info or BROKEN in info.get("final_info", ())):
            self._failures = 0  # a whole step
        ended = bool(terminated or truncated)
        self._steps = 0 if ended or self._ended else self._steps + 1
        self._ended = ended and self._mode == AutoresetMode.NEXT_STEP

    def _stand_in(self) -> Any:
        """Answer for a process that is dead."""
        if self._command == "reset":
            return self._begin(self._data["options"])
        if self._command == "reset-noop":
            return None, {}  # its row stands; that its episode broke is told by the next step
        if self._command == "close":
            return None
        if self._command == "_check_spaces":  # asked to find out who answers: here, this does
            return True, True
        if self._ended:
            observation, info = self._begin()
            return observation, 0.0, False, False, info
        broken = {BROKEN: True}
        if self._mode != AutoresetMode.SAME_STEP:
            self._ended = self._mode == AutoresetMode.NEXT_STEP
            return None, 0.0, False, True, broken
        last = self._vector.read_row(self._index)
        observation, info = self._begin()
        return observation, 0.0, False, True, {**info, "final_obs": last, "final_info": broken}

    def _begin(self, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in a new process and return what its reset answers."""
        self._ended, self._steps = False, 0
        while True:
            self._connection = self._vector.start_process(self._index)
            self._is_dead = False
            seed = seed_after(self._seed, self._restarts)
            try:
                self._connection.send(("reset", {"seed": seed, "options": options}))
                answer, success = self._connection.recv()
            except (EOFError, OSError):
                self._record_death()
                continue
            if not success:
                _, kind, error, _ = self._vector.error_queue.get()
                self._vector.abandon()
                raise kind(error)
            self._vector.fetch_row(self._index)
            observation, info = answer
            return observation, info

    def _record_death(self) -> None:
        """Count a process that died, and tell it."""
        self._is_dead = True
        self._connection.close()
        if self._command == "close":
            return
        process = self._vector.processes[self._index]
        process.join(_PATIENCE)
        cause = _cause(process.exitcode)
        process.kill()
        where = f"in step {self._steps} of its episode"
        if self._ended or self._command != "step":
            where = "in reset"
        died = f"environment {self._index}: its process died {where} ({cause})"
        self._failures += 1
        try:
            if self._failures >= MOST_IN_A_ROW:
                raise EnvStepError(
                    f"{died} ({self._failures} times in a row: env.on_error='restart' gives up; "
                    "env.vectorization='sync' shows where)"
                )
            self._restarts += 1
            message = f"{died}: restarted, restart {self._restarts} of its process"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
        except (EnvStepError, RuntimeWarning):  # a warning where warnings are errors
            self._vector.abandon()
            raise


_COMMANDS = ("reset", "reset-noop", "step", "close")
"""What an answer can be found to when the process is dead."""

_PATIENCE = 5.0
"""Seconds that a process whose pipe is closed may take to end."""


def _cause(exit_code: int | None) -> str:
    if exit_code is None:
        return "it closed its pipe"
    if exit_code < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit status {exit_code}"

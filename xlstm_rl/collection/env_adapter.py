"""One view of Gymnasium's three autoreset modes, and of environments on arrays or on tensors.

What differs between the modes is where the last observation of an episode stands and when the
next episode begins; everything behind this file and `tensor_adapter` sees one kind of transition.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from xlstm_rl.envs import autoreset_mode
from xlstm_rl.envs.faults.error_context import EnvStepError, wrong_observation
from xlstm_rl.envs.faults.restarting import BROKEN
from xlstm_rl.envs.spaces.leaves import Leaf, is_nested, space_leaves, take
from xlstm_rl.errors import EnvError
from xlstm_rl.policy.arrays import as_tensor, to_numpy

Array = NDArray[Any]
BoolArray = NDArray[np.bool_]
Values = Any
"""What an environment answers: NumPy arrays, or tensors if it is stepped by a
`TensorVectorEnvAdapter`."""

Info = dict[str, Any]
RawObservation = Values | dict[str, Values]
"""Observations of a space without parts, or those of a Dict or Tuple space by the leaf's name."""


@dataclass
class Transition:
    """What followed an action in each of B environments, and what the next step begins with."""

    reward: Values
    """`[B]`, zero at an autoreset step."""

    terminated: Values
    """`[B]`, the episode ended by the task's own rules: no bootstrap."""

    truncated: Values
    """`[B]`, the episode was cut: bootstrap from the final observation. Never with
    `terminated`."""

    observation: RawObservation
    """`[B, ...]`, what the next action is chosen from."""

    reset: Values
    """`[B]`, true where `observation` is the first of an episode."""

    autoreset: Values
    """`[B]`, true where the next action is ignored because the environment only resets."""

    final_rows: Tensor | slice
    """Environments whose final observation is not `observation` and was truncated; on tensors all,
    since nobody asks which."""

    final_observation: RawObservation | None
    """`[N, ...]` of those environments, final observations; None where there are none. It matters
    only where `truncated` is true."""

    broken: BoolArray | None
    """`[B]`, true where the episode that ended was broken by an error; None: nowhere."""

    infos: list[Info]
    """What the environments said beside `observation`: of the step, then of the resets, if any."""


class VectorEnvAdapter:
    """Steps a vector environment that answers arrays, whichever way it resets its episodes.

    It is also the border between them and the policy's tensors.

    Args:
        env: the vector environment.
        device: where the policy is.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], device: torch.device | str = "cpu") -> None:
        self.env = env
        self.device = torch.device(device)
        self.mode = autoreset_mode(env)
        self._ended: Values = np.zeros(env.num_envs, dtype=bool)
        space = env.single_observation_space
        self._leaves, self._is_nested = space_leaves(space), is_nested(space)
        self.first_info: Info = {}
        self.steps = 0

    def reset(self, seed: int | list[int] | None = None) -> RawObservation:
        """Begin an episode in every environment and return its first observations `[B, ...]`.

        Raises:
            EnvError: an environment raised, died, or observed what is not in its space.
        """
        observation, self.first_info = self._call(self.env.reset, seed=seed)
        self._ended[:] = False
        return self._read(observation)

    def step(self, action: Any) -> Transition:
        """Apply actions `[B, ...]`, nested like the action space.

        Raises:
            EnvError: an environment raised, died, or observed what is not in its space.
        """
        answer, reward, terminated, truncated, info = self._call(self.env.step, action)
        observation = self._read(answer)
        truncated = truncated & ~terminated
        ended = terminated | truncated
        transition = Transition(
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            observation=observation,
            reset=ended,
            autoreset=np.zeros_like(ended),
            final_rows=slice(0),
            final_observation=None,
            broken=_broken(info) if ended.any() else None,
            infos=[info],
        )
        if self.mode == AutoresetMode.NEXT_STEP:
            # The step after an episode's last one only resets: what it answers is an episode's
            # first observation, and the action it was given went nowhere.
            transition.reset, transition.autoreset = self._ended, ended
            self._ended = ended
        elif ended.any():
            rows = np.flatnonzero(truncated)
            if self.mode == AutoresetMode.SAME_STEP:
                final = self._stack([info["final_obs"][row] for row in rows])
            else:
                final = _rows(observation, rows)
                answer, first_info = self._call(self.env.reset, options={"reset_mask": ended})
                transition.infos = [_rows_of_info(info, ~ended), first_info]
                transition.observation = self._read(answer)
            if rows.size:
                transition.final_rows, transition.final_observation = self.tensor(rows), final
        self.steps += self.env.num_envs
        return transition

    def tensor(self, values: Any) -> Tensor:
        """Return what the environment answered as a tensor on the policy's device."""
        return as_tensor(values).to(self.device)

    def actions(self, action: Any) -> Any:
        """Return a policy's actions, nested like the space, as the environment takes them."""
        return to_numpy(action)

    def resets(self, flags: Any) -> Tensor | None:
        """Return flags `[B]` for the memory; None: none is set.

        Most steps begin no episode anywhere; the memory's path without masks is cheaper.
        """
        return self.tensor(flags) if flags.any() else None

    def flags(self, value: bool) -> Any:
        """Return flags `[B]` that are all alike."""
        return np.full(self.env.num_envs, value)

    def allocate(self, lead: tuple[int, ...], kind: type[bool] | type[float]) -> Any:
        """Return room for a rollout's flags or rewards, where the environment answers them."""
        return np.empty(lead, dtype=kind)

    def on_host(self, values: Any) -> Any:
        """Return a rollout's flags or rewards as an array."""
        return values

    def _read(self, observation: Any) -> RawObservation:
        if not self._is_nested:
            return self._checked(self._leaves[0], observation)
        try:
            return {
                leaf.name: self._checked(leaf, take(observation, leaf.path))
                for leaf in self._leaves
            }
        except ValueError as error:
            raise EnvError(f"step {self.steps}: the observation: {error}") from error

    def _stack(self, observations: list[Any]) -> RawObservation | None:
        """Return observations of single environments as a batch; None if there are none."""
        if not observations:
            return None
        if not self._is_nested:
            return np.stack(observations)
        return {
            leaf.name: np.stack([take(one, leaf.path) for one in observations])
            for leaf in self._leaves
        }

    def _checked(self, leaf: Leaf, values: Any) -> Values:
        values = np.asarray(values)
        wrong = wrong_observation(leaf, values, self.env.num_envs)
        if wrong is not None:
            row, what = wrong
            which = "" if row is None else f"environment {row}: "
            raise EnvError(f"step {self.steps}: {which}{what}")
        return values

    def _call(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the environment, and tell what it did wrong, and when."""
        try:
            return call(*args, **kwargs)
        except EnvStepError as error:
            raise EnvError(f"step {self.steps}: {error}") from error
        except (EOFError, ConnectionError) as error:
            gone = self._give_up_processes()
            which = f" of environments {gone}" if gone else ""
            raise EnvError(
                f"step {self.steps}: a process{which} died ({type(error).__name__}): it was "
                "killed, or crashed without a Python error; env.vectorization=sync shows where"
            ) from error
        except Exception as error:
            raise EnvError(
                f"step {self.steps}: {self.env} raised {type(error).__name__}: {error}"
            ) from error

    def _give_up_processes(self) -> list[int]:
        """Return which environments' processes are dead, and end the others.

        The vector could not be closed: it would wait for the answers of the dead.
        """
        vector: Any = self.env.unwrapped
        processes = getattr(vector, "processes", [])
        for one in processes:
            one.join(0.1)  # a process that was just killed may still count as alive
        gone = [n for n, one in enumerate(processes) if not one.is_alive()]
        for one in processes:
            one.terminate()
            one.join()
        if processes:
            vector.closed = True
        return gone


def _broken(info: Info) -> BoolArray | None:
    # where a vector resets in the same step, the info of the last one stands in final_info
    found = info.get("final_info", info).get(f"_{BROKEN}")
    return None if found is None else np.asarray(found, dtype=np.bool_)


def _rows_of_info(info: Info, rows: BoolArray) -> Info:
    """Return an info in which what is marked is marked in some rows alone."""
    marked = {name: flags & rows for name, flags in info.items() if name.startswith("_")}
    missing = {f"_{name}": rows for name in info if not name.startswith("_")}
    return {**info, **missing, **marked}


def _rows(observation: RawObservation, rows: NDArray[np.int64]) -> RawObservation:
    if isinstance(observation, dict):
        return {name: part[rows] for name, part in observation.items()}
    return observation[rows]

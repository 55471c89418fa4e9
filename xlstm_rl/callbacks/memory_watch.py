"""Watches what a memory can learn and whether it remembers, and says once what is wrong."""

import math
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xlstm_rl.callbacks.base import Callback
from xlstm_rl.callbacks.memory_health import MemoryHealth, measure
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.memory import StateTensors
from xlstm_rl.policy.actor_critic import CRITIC_MEMORY
from xlstm_rl.policy.memory_inputs import memory_inputs

_ROWS, _STEPS = 8, 17  # sequences and steps that a measurement looks at
_FIRST, _EVERY = (1, 2, 8), 50  # updates at which it is taken, each a quarter of an update
_EVERY_SHORT = 100  # where an update is a single pass over its rollout
_DEAD = 1e-4  # a healthy memory has .01 and more, one that forgets at once 1e-6
_FROZEN = 1e-6
_IN_A_ROW = 2  # measurements that must agree
_EPISODES = 32
_MUCH_LONGER = 1.5
_EARLY = 0.25  # share of training in which nothing is said of learning


class MemoryWarning(UserWarning):
    """A memory does not do what it is there for."""


class MemoryWatch(Callback):
    """Logs the reach of the gradients and, now and then, how each memory does.

    `memory/gradient_reach` is the length of a training sequence. Every 50th update, every 100th
    where it is a single pass over its rollout, and a few times at the start, the names of
    `MemoryHealth` follow for each memory. A warning says, once a training,

    - that episodes last much longer than gradients reach, where nothing has been learnt yet;
    - that a memory is dead: two measurements in a row find no trace of the past in its output;
    - that it is saturated: its state no longer changes, or its output no longer heeds its input.

    Memories without a state, such as `mlp`, have nothing to be watched.
    """

    def __init__(self) -> None:
        self._found: dict[str, float] = {}
        self._gates: dict[str, Tensor] = {}
        self._lengths: deque[int] = deque(maxlen=_EPISODES)
        self._returns: deque[float] = deque(maxlen=_EPISODES)
        self._first_returns: list[float] = []
        self._episodes = 0
        self._began: int | None = None
        self._suspected: dict[str, int] = {}
        self._told: set[str] = set()

    def on_rollout_end(self, rollout: Rollout) -> None:
        """Measure, where it is time."""
        memories = self.agent.policy.network.memories()
        self._found = {}
        if not any(memory.state_keys for memory in memories.values()):
            return
        if self._began is None:
            self._began = self.agent.steps_done
        self._lengths.extend(rollout.episode_lengths)
        self._returns.extend(rollout.episode_returns)
        self._episodes += len(rollout.episode_returns)
        room = _EPISODES - len(self._first_returns)
        self._first_returns += rollout.episode_returns[:room]
        reach = rollout.data.batch_size[1] // len(rollout.segment_states)
        self._found["memory/gradient_reach"] = float(reach)
        self._compare(reach)
        update = self.agent.steps_done // (rollout.data.numel() * rollout.ranks) + 1
        config: Any = self.agent.config
        every = _EVERY_SHORT if config.agent.epochs == 1 else _EVERY
        if (update in _FIRST or update % every == 0) and reach > 1:
            for name, health in self._measured(rollout, min(reach, _STEPS)):
                self._judge(name, health)
                self._log(name, health)

    def on_update(self, step: int, metrics: dict[str, float]) -> None:
        """Put what was found into the metrics."""
        metrics |= self._found

    def _measured(self, rollout: Rollout, steps: int) -> Iterator[tuple[str, MemoryHealth]]:
        network = self.agent.policy.network
        tensors: StateTensors = tuple(one[:_ROWS] for one in rollout.segment_states[-1])
        last = rollout.data.batch_size[1] // len(rollout.segment_states)
        start = rollout.data.batch_size[1] - last
        where = slice(_ROWS), slice(start, start + steps)
        observation, reset = rollout.data["observation"][where], rollout.data["reset"][where]
        with torch.no_grad():
            found = list(memory_inputs(network, observation))
        for name, memory, x in found:
            size = len(memory.state_keys)
            own, tensors = tensors[:size], tensors[size:]
            health = measure(memory, x, own, reset) if own else None
            if health is not None:
                yield name, health

    def _log(self, name: str, health: MemoryHealth) -> None:
        for what in ("past", "state_norm", "near_0", "near_1"):
            value = getattr(health, what)
            if math.isfinite(value):
                self._found[f"{name}/{what}"] = value
        for head, length in health.lengths.items():
            self._found[f"{name}/length/{head}"] = length
        self._gates |= {f"{name}/forget_gates/{block}": one for block, one in health.gates.items()}

    def take_gates(self) -> dict[str, Tensor]:
        """Return the forget gates that were measured since the last call, by name and block."""
        gates, self._gates = self._gates, {}
        return gates

    def _judge(self, name: str, health: MemoryHealth) -> None:
        what = ""
        if health.past < _DEAD:
            cause = "what it remembers is lost beside its input: scale its features to about 1"
            if health.near_0 > 0.5:
                cause = f"{health.near_0:.0%} of its forget gates are near 0, it forgets at once"
            what = f"is dead: its output does not depend on the past ({cause})"
        elif health.moved < _FROZEN or health.present < _FROZEN:
            frozen = health.moved < _FROZEN
            cause = "its state no longer changes" if frozen else "its output ignores its input"
            what = (
                f"is saturated: {cause} (norm of the state {health.state_norm:.3g}); a smaller "
                "agent.learning_rate or agent.max_grad_norm, and normalization.observation, help"
            )
        self._suspected[name] = self._suspected.get(name, 0) + 1 if what else 0
        if self._suspected[name] == _IN_A_ROW:
            owner = "the critic's memory" if name == CRITIC_MEMORY else "the memory"
            self._say(name, f"{owner} {what}")

    def _compare(self, reach: int) -> None:
        """Say that episodes last much longer than gradients reach, if nothing is learnt."""
        config: Any = self.agent.config
        if (
            self._began  # a run that goes on: its first returns are not those of a beginner
            or self._episodes < 2 * _EPISODES
            or self.agent.steps_done < _EARLY * config.total_steps
            or np.mean(self._lengths) <= _MUCH_LONGER * reach
            or _is_higher(self._returns, self._first_returns)
        ):
            return
        option = "rollout_steps"
        if getattr(config.agent, "segment_steps", None):
            option = "segment_steps"
        self._say(
            "reach",
            f"episodes last {np.mean(self._lengths):.0f} steps, and gradients reach back {reach}: "
            f"what has to be remembered for longer is hardly learnt; raise agent.{option}",
        )

    def _say(self, what: str, line: str) -> None:
        if what not in self._told:
            self._told.add(what)
            # explicitly, because the place is nobody's code, and would be one line more
            warnings.warn_explicit(line, MemoryWarning, "xlstm_rl", 0)


def _is_higher(later: deque[float], earlier: list[float]) -> bool:
    """Return whether returns have risen by more than chance."""
    error = math.sqrt((np.var(later) + np.var(earlier)) / _EPISODES)
    return bool(np.mean(later) - np.mean(earlier) > 2.0 * error)

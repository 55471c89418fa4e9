"""Plays episodes and keeps all that the policy saw, did and was paid, with a picture of each step.

The episodes are those of `evaluate` with the same seed.
"""

import copy
import warnings
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from xlstm_rl.config.errors import one_line
from xlstm_rl.envs import make_env
from xlstm_rl.envs.spaces.leaves import map_leaves, stack_values
from xlstm_rl.evaluation import evaluate
from xlstm_rl.evaluation.environments import AnyEnv, Environment, EnvSource, find_source
from xlstm_rl.options.arguments import check_whole
from xlstm_rl.policy.policy import Policy
from xlstm_rl.policy.queries import Sequences

Array = NDArray[Any]

_DRAWN = "rgb_array"


@dataclass
class Recording:
    """One episode of T steps."""

    number: int
    """Of the episode, from 0."""

    observations: list[Any] = field(default_factory=list)
    """What the environment answered, T + 1: the last one nobody acted on."""

    infos: list[dict[str, Any]] = field(default_factory=list)
    """Beside each observation."""

    frames: list[Array] = field(default_factory=list)
    """A picture of each observation, `[height, width, 3]` uint8; none where nothing is drawn."""

    actions: list[Any] = field(default_factory=list)
    """In the environment's units, T."""

    rewards: list[float] = field(default_factory=list)
    """What each action was paid, T."""

    terminated: bool = False
    """Whether it ended by the task's own rules; otherwise it was cut."""

    @property
    def length(self) -> int:
        """Its steps T."""
        return len(self.actions)

    def read_by(self, policy: Policy) -> Sequences:
        """Return the episode as a policy's network reads it, `[1, T, ...]`."""
        steps = self.length
        obs = stack_values(policy.observation_space, self.observations[:steps])
        actions = stack_values(policy.action_space, self.actions)
        reward = mask = None
        if policy.auxiliary.reads_reward:
            reward = np.array([[0.0, *self.rewards[:-1]]], np.float32)
        if policy.auxiliary_reader.source == "info":
            masks = np.empty(steps, object)
            for step, info in enumerate(self.infos[:steps]):
                masks[step] = info.get(policy.policy_config.action_mask_key)
            mask = policy.auxiliary_reader.mask.read(masks, steps)[None]
        obs, actions = (map_leaves(lambda leaf: leaf[None], one) for one in (obs, actions))
        return policy.read_sequences(obs, actions, reward=reward, action_mask=mask)


def record(
    policy: Policy,
    env: Environment = None,
    episodes: int = 1,
    seed: int = 0,
    deterministic: bool = True,
    max_steps: int = 500,
    frames: bool = True,
) -> tuple[list[Recording], str | None]:
    """Play episodes with a policy and keep everything.

    Args:
        policy: that acts.
        env: as for `evaluate`.
        episodes: how many.
        seed: of the episodes, as for `evaluate`.
        deterministic: take the most probable action instead of a sample.
        max_steps: cut an episode after so many steps.
        frames: keep a picture of each step, if the environment can be drawn.

    Returns:
        The episodes, and why there are no pictures of them, if there should be and are not.

    Raises:
        EnvError: the environment raised, or answered what cannot be used.
        ValueError: it cannot be made, or its spaces are not the policy's.
    """
    max_steps = check_whole("max_steps", max_steps, 1)
    source = find_source(policy, env, None)
    inner, problem = _make(source, frames)
    recorder = _Recorder(gymnasium.wrappers.TimeLimit(inner, max_steps), frames and not problem)
    with nullcontext() if source.is_ready else closing(recorder):
        evaluate(policy, recorder, episodes, seed, deterministic)
    return recorder.episodes, problem or recorder.problem


def _make(source: EnvSource, drawn: bool) -> tuple[AnyEnv, str | None]:
    """Return an environment, and why it cannot be drawn though it should be."""
    if not drawn:
        return make_env(source.config, source.env), None
    try:
        with warnings.catch_warnings():  # Gymnasium's, of a mode that the environment lacks
            warnings.simplefilter("ignore")
            env = make_env(source.config, source.env, _DRAWN)
    except Exception as error:
        is_missing = isinstance(error, ImportError | DependencyNotInstalled)
        problem = one_line(error) if is_missing else NeverDrawn(one_line(error))
        return make_env(source.config, source.env), problem
    if env.render_mode != _DRAWN:
        return env, NeverDrawn(f"the environment {env} has no render_mode {_DRAWN!r}")
    return env, None


class NeverDrawn(str):
    """Why an environment has no pictures anywhere, whatever is installed."""


class _Recorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps what goes in and comes out of an environment."""

    def __init__(self, env: AnyEnv, drawn: bool) -> None:
        super().__init__(env)
        self.episodes: list[Recording] = []
        self.problem: str | None = None
        self._drawn = drawn

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.episodes.append(Recording(len(self.episodes)))
        self._keep(observation, info)
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take an action."""
        now = self.episodes[-1]
        now.actions.append(copy.deepcopy(action))
        observation, reward, terminated, truncated, info = self.env.step(action)
        now.rewards.append(float(reward))
        now.terminated = bool(terminated)
        self._keep(observation, info)
        return observation, reward, terminated, truncated, info

    def _keep(self, observation: Any, info: dict[str, Any]) -> None:
        now = self.episodes[-1]
        now.observations.append(copy.deepcopy(observation))  # its memory may be used again
        now.infos.append(copy.deepcopy(info))
        if self._drawn:
            self._draw()

    def _draw(self) -> None:
        """Keep a picture; a failure is told of and ends the drawing, not the inspection."""
        try:
            with warnings.catch_warnings():  # of a missing display, say; the failure says it
                warnings.simplefilter("ignore")
                frame = np.asarray(self.env.render())
            if frame.ndim != 3 or frame.shape[2] != 3:
                raise ValueError(f"drew an array {list(frame.shape)}, expected [height, width, 3]")
        except Exception as error:
            self._drawn, self.problem = False, one_line(error)
            for one in self.episodes:
                one.frames.clear()
            return
        self.episodes[-1].frames.append(frame.astype(np.uint8))

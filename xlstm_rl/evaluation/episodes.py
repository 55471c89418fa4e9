"""Plays whole episodes side by side, each as it would be played alone."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tensordict import TensorDict

from xlstm_rl.collection.masks import read_masks, tell_of_unread_masks
from xlstm_rl.config import ConfigError
from xlstm_rl.envs.faults.error_context import EnvStepError, ErrorContextEnv
from xlstm_rl.envs.spaces.leaves import row_of, stack_values, take
from xlstm_rl.errors import EnvError
from xlstm_rl.evaluation.checks import check_observations
from xlstm_rl.evaluation.environments import AnyEnv, Environment, find_source, opened
from xlstm_rl.evaluation.native import EditState, play_natively, plays_natively
from xlstm_rl.evaluation.result import EvaluationResult
from xlstm_rl.evaluation.success import read_success
from xlstm_rl.options.arguments import check_whole
from xlstm_rl.policy.policy import Policy
from xlstm_rl.seeding import global_streams, spawn_seed

_MAX_PARALLEL = 20


class HasPolicy(Protocol):
    """An agent."""

    policy: Policy


@dataclass(frozen=True)
class EvaluationStep:
    """One step of one episode, for a callback."""

    episode: int
    """Number of the episode, from 0."""

    step: int
    """Number of the step in its episode, from 0."""

    observation: Any
    """What the policy saw, as the environment answered it."""

    action: Any
    """What it did, in the environment's units."""

    reward: float
    """What the environment paid for it."""

    terminated: bool
    """Whether the episode ended with it by the task's own rules."""

    truncated: bool
    """Whether the episode was cut after it."""

    info: dict[str, Any]
    """What the environment said beside."""

    state: TensorDict
    """The memory's state after the step, batch size `[1]`."""


OnStep = Callable[[EvaluationStep], object]


def evaluate(
    policy: Policy | HasPolicy,
    env: Environment = None,
    episodes: int = 20,
    seed: int = 0,
    deterministic: bool = True,
    video_dir: str | Path | None = None,
    max_episode_steps: int | None = None,
    *,
    on_step: OnStep | None = None,
    edit_state: EditState | None = None,
) -> EvaluationResult:
    """Run whole episodes and return what they scored.

    Episode i has a fresh memory, an environment reset with a seed of its own and, with
    `deterministic=False`, a generator of its own for the samples. Both come from `seed` and i
    (`seeding.spawn_seed`) and are none of training's, whatever the run's seed. So episode i is the
    same however many run side by side. Seeds and noise are so exactly, the network's outputs to
    rounding, since matrix products of other sizes round differently. The policy's statistics stand
    still.

    An id whose environment has a vector form of its own (`env.vectorization` auto or native, as in
    training) is played in that, many episodes in one call. They follow from `seed` and `episodes`
    together, since one generator serves them all; `EnvConfig(id, vectorization="sync")` has the
    single ones. Videos, `on_step` and policies that read action masks take single environments.

    The global random streams of Python, NumPy and torch follow from `seed` while the episodes run,
    and go on afterwards where they stood: evaluations change nothing in a training around them.

    A policy that was trained on a callable is evaluated in the environments of that callable with
    training's `env.kwargs`, `env.wrappers` and `env.max_episode_steps`. Another callable is another
    environment: nothing of training's applies to it. A loaded policy does not know its callable,
    and takes any for it. One ready environment is used as it is: its episodes are played one after
    the other, and it stays open.

    Args:
        policy: the policy, or an agent that has one.
        env: an id, a callable that makes one environment, one that is ready, a configuration, or
            None for the one that the policy was trained on.
        episodes: how many.
        seed: of the episodes; with `deterministic=False` also of the samples.
        deterministic: take the most probable action instead of a sample.
        video_dir: where to write a video of every episode (needs the extra `video`).
        max_episode_steps: truncate episodes after so many steps, instead of training's or the
            registered limit; None: that limit. They are counted below `env.wrappers`, as
            `gymnasium.make` does, and of a ready environment above what it is wrapped in.
        on_step: called after every step of every episode with an `EvaluationStep`: observation,
            action, reward, info and the memory's state.
        edit_state: called before every step with the state, batch size `[B]`, and the numbers of
            the steps in their episodes, `[B]`; what it returns is what the policy acts from.

    Raises:
        EnvError: an environment raised, or answered what cannot be used; named are the episode
            and its step.
        ValueError: the environment is unknown or cannot be made, its spaces are not the policy's,
            the callable returned the same one twice, or a package that videos need is missing.
    """
    episodes = check_whole("episodes", episodes, 1, ConfigError)
    seed = check_whole("seed", seed, 0, ConfigError)
    if max_episode_steps is not None:
        max_episode_steps = check_whole("max_episode_steps", max_episode_steps, 1, ConfigError)
    if not isinstance(policy, Policy):
        policy = _policy_of(policy)
    source = find_source(policy, env, max_episode_steps)
    alone = source.is_ready or video_dir is not None
    count = 1 if alone else min(episodes, _MAX_PARALLEL)
    with global_streams(spawn_seed(seed, "evaluation_global"), policy.device):
        if not alone and on_step is None and plays_natively(source, policy):
            result = play_natively(policy, source.config, episodes, seed, deterministic, edit_state)
            if result is not None:
                return result
        with opened(source, policy, count, video_dir) as envs:
            return _play(policy, envs, episodes, seed, deterministic, on_step, edit_state)


def _policy_of(agent: object) -> Policy:
    policy = getattr(agent, "policy", None)
    if not isinstance(policy, Policy):
        raise ConfigError(
            f"evaluate got a {type(agent).__name__} as the policy, expected a policy "
            "(`load_policy(run)`, `agent.policy`) or an agent"
        )
    return policy


class _Seat:
    """One environment, and the episode that is played in it."""

    def __init__(self, env: AnyEnv, seed: int, generator: torch.Generator | None) -> None:
        self.env = ErrorContextEnv(env, "its environment")
        self.seed = seed
        self.generator = generator
        self.episode = self.steps = 0
        self.reward = self.total = 0.0
        self.ended = (False, False)
        self.observation: Any = None
        self.info: dict[str, Any] = {}

    def begin(self, episode: int) -> None:
        """Begin an episode."""
        self.episode, self.steps = episode, 0
        self.reward = self.total = 0.0
        if self.generator is not None:
            self.generator.manual_seed(spawn_seed(self.seed, "evaluation_actions", episode))
        with self._named():
            self.observation, self.info = self.env.reset(
                seed=spawn_seed(self.seed, "evaluation", episode)
            )

    def step(self, action: Any) -> bool:
        """Take an action and return whether the episode is over."""
        with self._named():
            self.observation, reward, terminated, truncated, self.info = self.env.step(action)
        self.reward, self.ended = float(reward), (bool(terminated), bool(truncated))
        if not math.isfinite(self.reward):
            raise EnvError(f"{self.place}: its reward is {reward}")
        self.total += self.reward
        self.steps += 1
        return any(self.ended)

    def told(self, seen: Any, action: Any, state: TensorDict) -> EvaluationStep:
        """Return the step that was just taken, for a callback."""
        return EvaluationStep(
            self.episode, self.steps - 1, seen, action, self.reward, *self.ended, self.info, state
        )

    @property
    def place(self) -> str:
        """The episode and its step, for errors."""
        return f"environment of episode {self.episode} at step {self.steps}"

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except EnvStepError as error:
            if isinstance(error.__cause__, ConfigError):  # a package is missing, say
                raise error.__cause__ from error
            raise EnvError(f"{self.place}: {error}") from error


def _play(
    policy: Policy,
    envs: list[AnyEnv],
    episodes: int,
    seed: int,
    deterministic: bool,
    on_step: OnStep | None,
    edit_state: EditState | None,
) -> EvaluationResult:
    """Play the episodes in lockstep; an environment takes the next one when it is done."""
    returns, lengths = [0.0] * episodes, [0] * episodes
    successes: list[float | None] = [None] * episodes
    generators = [None if deterministic else torch.Generator(policy.device) for _ in envs]
    seats = [_Seat(env, seed, one) for env, one in zip(envs, generators, strict=True)]
    waiting = iter(range(episodes))
    for seat, episode in zip(seats, waiting, strict=False):
        seat.begin(episode)
    if not policy.auxiliary.reads_mask:
        tell_of_unread_masks(policy, [seat.info for seat in seats])

    def place(row: int) -> str:
        return seats[row].place

    state = policy.initial_state(len(seats), critic=False)  # no action depends on it
    while seats:
        obs = stack_values(policy.observation_space, [seat.observation for seat in seats])
        check_observations(policy, obs, len(seats), place)
        if edit_state is not None:
            state = edit_state(state, np.array([seat.steps for seat in seats]))
        actions, state = policy.act(
            obs,
            state,
            np.array([seat.steps == 0 for seat in seats]),
            deterministic,
            [seat.generator for seat in seats if seat.generator is not None] or None,
            **_auxiliary_inputs(policy, seats, obs),
        )
        playing: list[int] = []
        for row, seat in enumerate(seats):
            action, seen = row_of(actions, row), seat.observation
            is_over = seat.step(action)
            if on_step is not None:
                on_step(seat.told(seen, action, state[row : row + 1]))
            if is_over:
                returns[seat.episode], lengths[seat.episode] = seat.total, seat.steps
                successes[seat.episode] = read_success(seat.info)
                following = next(waiting, None)
                if following is None:
                    continue
                seat.begin(following)
            playing.append(row)
        if len(playing) < len(seats):
            seats = [seats[row] for row in playing]
            state = state[torch.tensor(playing, dtype=torch.long)]
    return EvaluationResult(returns, lengths, successes, deterministic)


def _auxiliary_inputs(policy: Policy, seats: list[_Seat], obs: Any) -> dict[str, Any]:
    """Return what `policy.act` needs beside the observation.

    Raises:
        EnvError: a mask is missing or allows nothing; named are the episode and its step.
    """
    auxiliary: dict[str, Any] = {}
    if policy.auxiliary.reads_reward:
        auxiliary["reward"] = np.array([seat.reward for seat in seats], dtype=np.float32)
    if policy.auxiliary.reads_mask:
        key, infos = policy.policy_config.action_mask_key, [seat.info for seat in seats]
        masks = np.empty(len(seats), dtype=object)
        for row, info in enumerate(infos):
            masks[row] = info.get(key)
        flags = read_masks(
            policy,
            {leaf.name: take(obs, leaf.path) for leaf in policy.reader.leaves},
            [{key: masks, f"_{key}": np.array([key in info for info in infos])}],
            np.zeros(len(seats), dtype=np.bool_),
            lambda row: seats[row].place,
        )
        if policy.auxiliary_reader.source == "info":
            auxiliary["action_mask"] = torch.from_numpy(flags)
    return auxiliary

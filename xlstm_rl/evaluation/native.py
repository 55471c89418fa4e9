"""Plays episodes in an environment's own vector form, many in one call."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict

from xlstm_rl.collection.env_adapter import VectorEnvAdapter
from xlstm_rl.envs import make_vector_env
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.spaces.leaves import build, is_nested
from xlstm_rl.envs.vector_env import has_native_form
from xlstm_rl.errors import EnvError
from xlstm_rl.evaluation.checks import check_observations
from xlstm_rl.evaluation.environments import EnvSource, check_spaces
from xlstm_rl.evaluation.result import EvaluationResult
from xlstm_rl.policy.policy import Policy
from xlstm_rl.seeding import spawn_seed

_MAX_ROWS = 64

EditState = Callable[[TensorDict, NDArray[np.int64]], TensorDict]
"""Changes the state before a step: see `evaluate`."""


def plays_natively(source: EnvSource, policy: Policy) -> bool:
    """Return whether the environments have a vector form of their own that can be used here.

    Masks are read from single environments.
    """
    return source.env is None and not policy.auxiliary.reads_mask and has_native_form(source.config)


def play_natively(
    policy: Policy,
    config: EnvConfig,
    episodes: int,
    seed: int,
    deterministic: bool,
    edit_state: EditState | None = None,
) -> EvaluationResult | None:
    """Play episodes side by side; environment b of B plays the episodes b, b + B, b + 2 B, ...

    Each plays its share, however long its episodes are. The first that end anywhere would be the
    short ones too often.

    Returns:
        None: this form answers tensors and nothing else.

    Raises:
        EnvError: the environment answered what cannot be used.
        ValueError: it cannot be made, or its spaces are not the policy's.
    """
    with _opened(policy, config, min(episodes, _MAX_ROWS)) as env:
        if env is None:
            return None
        return _Rows(policy, env, episodes, seed, deterministic, edit_state).play()


def fits_natively(policy: Policy, config: EnvConfig) -> bool:
    """Make the vector form once and return whether `play_natively` would play in it.

    Raises:
        ValueError: it cannot be made, or its spaces are not the policy's.
    """
    with _opened(policy, config, 1) as env:
        return env is not None


@contextmanager
def _opened(policy: Policy, config: EnvConfig, count: int) -> Iterator[Any | None]:
    """The vector form of `count` environments; None: it answers tensors and nothing else."""
    kwargs = dict(config.kwargs)
    if "tensors" in kwargs:
        kwargs["tensors"] = False  # who is over is asked at each step, on the host
    config = replace(
        config, num_envs=count, vectorization="native", autoreset="auto", kwargs=kwargs
    )
    with closing(make_vector_env(config)) as env:
        if getattr(env, "tensors", False):
            yield None
            return
        check_spaces(policy, env.single_observation_space, env.single_action_space)
        yield env


class _Rows:
    """The episodes that are being played, one in each environment."""

    def __init__(
        self,
        policy: Policy,
        env: Any,
        episodes: int,
        seed: int,
        deterministic: bool,
        edit_state: EditState | None = None,
    ) -> None:
        self.policy, self.seed, self.edit_state = policy, seed, edit_state
        self.adapter = VectorEnvAdapter(env, policy.device)
        self.deterministic = deterministic
        self.count: int = env.num_envs
        self.episode = np.arange(self.count)
        self.steps = np.zeros(self.count, dtype=np.int64)
        self.total = np.zeros(self.count)
        self.returns, self.lengths = [0.0] * episodes, [0] * episodes
        self.successes: list[float | None] = [None] * episodes
        self.generators = None if deterministic else [self._generator(b) for b in range(self.count)]

    def _generator(self, episode: int) -> torch.Generator:
        seed = spawn_seed(self.seed, "evaluation_actions", episode)
        return torch.Generator(self.policy.device).manual_seed(seed)

    def place(self, row: int) -> str:
        """Return the episode and its step, for errors."""
        return f"environment of episode {self.episode[row]} at step {self.steps[row]}"

    def play(self) -> EvaluationResult:
        """Play every episode to its end."""
        policy, adapter, episodes = self.policy, self.adapter, len(self.returns)
        # below that, a vector may count on from it, one seed for each environment
        observation = adapter.reset(spawn_seed(self.seed, "evaluation") % (2**31 - self.count))
        state = policy.initial_state(self.count, critic=False)
        reset, autoreset = np.ones(self.count, bool), np.zeros(self.count, bool)
        auxiliary: dict[str, Any] = {}
        if policy.auxiliary.reads_reward:
            auxiliary["reward"] = np.zeros(self.count, dtype=np.float32)
        while (self.episode < episodes).any():
            obs = self._nested(observation)
            check_observations(policy, obs, self.count, self.place)
            if self.edit_state is not None:
                state = self.edit_state(state, self.steps.copy())
            action, state = policy.act(
                obs, state, reset, self.deterministic, self.generators, **auxiliary
            )
            transition = adapter.step(action)
            if not np.isfinite(transition.reward).all():
                row = int(np.argwhere(~np.isfinite(transition.reward))[0][0])
                raise EnvError(f"{self.place(row)}: its reward is {transition.reward[row]}")
            self.total += transition.reward
            self.steps += ~autoreset
            self._end(transition.terminated | transition.truncated, transition.success)
            observation, reset = transition.observation, transition.reset
            autoreset = transition.autoreset
            if auxiliary:
                auxiliary["reward"] = transition.reward.astype(np.float32)
        return EvaluationResult(self.returns, self.lengths, self.successes, self.deterministic)

    def _nested(self, observation: Any) -> Any:
        space = self.policy.observation_space
        return build(space, iter(observation.values())) if is_nested(space) else observation

    def _end(self, ended: Any, success: Any) -> None:
        """Write down the episodes that ended, and begin to count the next ones."""
        for row in np.flatnonzero(ended).tolist():
            episode = int(self.episode[row])
            if episode < len(self.returns):
                self.returns[episode] = float(self.total[row])
                self.lengths[episode] = int(self.steps[row])
                if success is not None and np.isfinite(success[row]):
                    self.successes[episode] = float(success[row])
            self.episode[row] += self.count
            self.total[row] = self.steps[row] = 0
            if self.generators is not None:
                self.generators[row] = self._generator(int(self.episode[row]))

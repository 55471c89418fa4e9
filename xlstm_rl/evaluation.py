"""Evaluation of a policy on whole episodes."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from xlstm_rl.collection.masks import read_masks
from xlstm_rl.config import ConfigError
from xlstm_rl.envs import make_env
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.envs.faults.error_context import EnvStepError, ErrorContextEnv, wrong_observation
from xlstm_rl.envs.spaces.leaves import row_of, stack_values, take
from xlstm_rl.envs.spaces.support import same_spaces
from xlstm_rl.errors import EnvError
from xlstm_rl.policy.policy import Policy
from xlstm_rl.seeding import spawn_seed

_MAX_PARALLEL = 20


@dataclass(frozen=True)
class EvaluationResult:
    """Returns and lengths of the evaluated episodes, in the order of their seeds."""

    returns: list[float] = field(default_factory=list)
    """Undiscounted sums of raw rewards."""

    lengths: list[int] = field(default_factory=list)
    """Steps."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns over the episodes."""
        return float(np.std(self.returns))


def evaluate(
    policy: Policy,
    env: str | Callable[[], gymnasium.Env[Any, Any]] | EnvConfig | None = None,
    episodes: int = 20,
    seed: int = 0,
    deterministic: bool = True,
    video_dir: str | Path | None = None,
) -> EvaluationResult:
    """Run whole episodes and return what they scored.

    Episode i is played in an environment reset with a seed of its own and with a fresh memory, so
    the result does not depend on how many episodes run side by side. The seed comes from `seed` and
    i (`seeding.spawn_seed`) and is none of training's, whatever the run's seed. The policy's
    statistics stand still, and its memory state is reset at every episode's start.

    Args:
        policy: the policy.
        env: an id, a callable that makes one environment, its configuration, or None for the
            one that the policy was trained on.
        episodes: how many.
        seed: of the episodes; with `deterministic=False` also of the samples.
        deterministic: take the most probable action instead of a sample.
        video_dir: where to write a video of every episode (needs the extra `video`).

    Raises:
        EnvError: an environment raised, or answered what cannot be used; named are the episode
            and its step.
        ConfigError: the environment is unknown, its spaces are not the policy's, or a package
            that videos need is missing.
    """
    if episodes < 1:
        raise ConfigError(f"episodes={episodes}: expected 1 or more")
    config, custom = _resolve(policy, env)
    count = 1 if video_dir is not None else min(episodes, _MAX_PARALLEL)
    envs = [
        ErrorContextEnv(_make(config, custom, video_dir), "its environment") for _ in range(count)
    ]
    try:
        _check_spaces(policy, envs[0])
        return _play(policy, envs, episodes, seed, deterministic)
    finally:
        for one in envs:
            one.close()


def _resolve(
    policy: Policy, env: str | Callable[[], gymnasium.Env[Any, Any]] | EnvConfig | None
) -> tuple[EnvConfig, Callable[[], gymnasium.Env[Any, Any]] | None]:
    if isinstance(env, EnvConfig):
        return env, None
    if isinstance(env, str):
        trained = policy.env_config
        # The arguments of the training environment mean nothing to another id.
        return (trained if trained is not None and trained.id == env else EnvConfig(id=env)), None
    if env is not None:
        return EnvConfig(), env
    if policy.env_config is None:
        raise ConfigError(
            "the policy was trained on an environment that was not made from an id: pass `env`"
        )
    return policy.env_config, None


def _make(
    config: EnvConfig,
    custom: Callable[[], gymnasium.Env[Any, Any]] | None,
    video_dir: str | Path | None,
) -> gymnasium.Env[Any, Any]:
    if video_dir is None:
        return make_env(config, custom)
    env = make_env(config, custom, render_mode="rgb_array")
    try:
        env.reset()
        env.render()  # what drawing lacks is said before the first episode, not in it
        return gymnasium.wrappers.RecordVideo(env, str(video_dir), episode_trigger=lambda _: True)
    except gymnasium.error.DependencyNotInstalled as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"a video cannot be made here ({reason}): pip install 'xlstm_rl[video]'"
        ) from error


def _check_spaces(policy: Policy, env: gymnasium.Env[Any, Any]) -> None:
    for kind in ("observation_space", "action_space"):
        difference = same_spaces(getattr(policy, kind), getattr(env, kind))
        if difference is not None:
            raise ConfigError(
                f"the policy does not fit this environment's {kind} (policy's against "
                f"environment's): {difference}"
            )


def _play(
    policy: Policy,
    envs: list[ErrorContextEnv],
    episodes: int,
    seed: int,
    deterministic: bool,
) -> EvaluationResult:
    """Play the episodes in lockstep; an environment takes the next one when it is done."""
    generator = torch.Generator(policy.device)
    generator.manual_seed(spawn_seed(seed, "evaluation_actions"))
    returns, lengths = [0.0] * episodes, [0] * episodes
    playing = list(range(len(envs)))

    def where(row: int) -> str:
        return f"environment of episode {playing[row]} at step {lengths[playing[row]]}"

    begun = []
    for episode, env in enumerate(envs):
        with _naming(where, episode):
            begun.append(env.reset(seed=spawn_seed(seed, "evaluation", episode)))
    observations, infos = [one[0] for one in begun], [one[1] for one in begun]
    rewards = [0.0] * len(envs)
    waiting = iter(range(len(envs), episodes))
    state = policy.initial_state(len(envs), critic=False)  # no action depends on it
    reset = np.ones(len(envs), dtype=bool)
    while playing:
        obs = stack_values(policy.observation_space, observations)
        _check_observations(policy, obs, where)
        auxiliary = _auxiliary_inputs(policy, rewards, infos, obs, where)
        actions, state = policy.act(obs, state, reset, deterministic, generator, **auxiliary)
        reset = np.zeros(len(envs), dtype=bool)
        left: list[int] = []
        for row, env in enumerate(envs):
            action = row_of(actions, row)
            with _naming(where, row):
                observation, reward, terminated, truncated, infos[row] = env.step(action)
            rewards[row] = float(reward)
            if not math.isfinite(rewards[row]):
                raise EnvError(f"{where(row)}: its reward is {reward}")
            returns[playing[row]] += rewards[row]
            lengths[playing[row]] += 1
            observations[row] = observation
            if not (terminated or truncated):
                continue
            following = next(waiting, None)
            if following is None:
                left.append(row)
                continue
            playing[row] = following
            with _naming(where, row):
                observations[row], infos[row] = env.reset(
                    seed=spawn_seed(seed, "evaluation", following)
                )
            reset[row] = True
        if left:
            keep = [row for row in range(len(envs)) if row not in left]
            envs = [envs[row] for row in keep]
            playing = [playing[row] for row in keep]
            observations = [observations[row] for row in keep]
            rewards, infos = [rewards[row] for row in keep], [infos[row] for row in keep]
            state, reset = state[torch.tensor(keep, dtype=torch.long)], reset[keep]
    return EvaluationResult(returns, lengths)


@contextmanager
def _naming(where: Callable[[int], str], row: int) -> Iterator[None]:
    try:
        yield
    except EnvStepError as error:
        raise EnvError(f"{where(row)}: {error}") from error


def _check_observations(policy: Policy, obs: Any, where: Callable[[int], str]) -> None:
    """Refuse what is not in the space, and numbers that are not finite."""
    for leaf in policy.reader.leaves:
        values = np.asarray(take(obs, leaf.path))
        wrong = wrong_observation(leaf, values, len(values))
        if wrong is not None:
            raise EnvError(f"{where(wrong[0] or 0)}: {wrong[1]}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            what = f" {leaf.name!r}" if leaf.path else ""
            raise EnvError(f"{where(row)}: its observation{what} is not finite: {values[row]}")


def _auxiliary_inputs(
    policy: Policy,
    rewards: list[float],
    infos: list[dict[str, Any]],
    obs: Any,
    where: Callable[[int], str],
) -> dict[str, Any]:
    """Return what `policy.act` needs beside the observation.

    Raises:
        EnvError: a mask is missing or allows nothing; named are the episode and its step.
    """
    auxiliary: dict[str, Any] = {}
    if policy.auxiliary.reads_reward:
        auxiliary["reward"] = np.array(rewards, dtype=np.float32)
    if policy.auxiliary.reads_mask:
        key = policy.policy_config.action_mask_key
        masks = np.empty(len(infos), dtype=object)
        for row, info in enumerate(infos):
            masks[row] = info.get(key)
        info = {key: masks, f"_{key}": np.array([key in info for info in infos])}
        flags = read_masks(
            policy,
            {leaf.name: take(obs, leaf.path) for leaf in policy.reader.leaves},
            [info],
            np.zeros(len(infos), dtype=np.bool_),
            where,
        )
        if policy.auxiliary_reader.source == "info":
            auxiliary["action_mask"] = torch.from_numpy(flags)
    return auxiliary

"""Evaluation while an agent trains, and the best policy so far."""

import math

from xlstm_rl.callbacks.base import Callback
from xlstm_rl.callbacks.rhythm import Rhythm
from xlstm_rl.callbacks.stopping import check_return
from xlstm_rl.config import ConfigError
from xlstm_rl.evaluation import EvaluationResult, evaluate
from xlstm_rl.evaluation.environments import Environment, find_source
from xlstm_rl.options.arguments import check_whole
from xlstm_rl.runs.folder import best_evaluation
from xlstm_rl.seeding import spawn_seed


class PeriodicEvaluation(Callback):
    """Evaluates every so many environment steps, and keeps the best policy in `best/`.

    The same episodes each time, in environments of their own: training is the same to the bit with
    and without. Logged are `evaluation/return`, `evaluation/std`, `evaluation/length` and, where
    the environment says it, `evaluation/success`. The best is that of the highest mean return, the
    earliest of equals; `load_policy(run, "best")` loads it. Without a run folder none is kept.

    Args:
        every_steps: environment steps of training between two evaluations.
        episodes: of each evaluation.
        env: as for `evaluate`; None: the environment of the training.
        seed: of the episodes; None: one of its own from the run's seed, so that `xlstm-rl eval`
            plays others than those that chose the best.
        deterministic: take the most probable actions instead of samples.
        stop_at: stop training once the mean return is this or more; None: never.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        every_steps: int,
        episodes: int = 20,
        *,
        env: Environment = None,
        seed: int | None = None,
        deterministic: bool = True,
        stop_at: float | None = None,
    ) -> None:
        self._rhythm = Rhythm(every_steps)
        self.episodes = check_whole("episodes", episodes, 1, ConfigError)
        self.env = env
        self.seed = None if seed is None else check_whole("seed", seed, 0, ConfigError)
        self.deterministic = deterministic
        self.stop_at = None if stop_at is None else check_return("stop_at", stop_at)
        self.result: EvaluationResult | None = None
        """The latest one."""
        self.best = -math.inf
        """The highest mean return so far."""

    def on_training_start(self) -> None:
        """Find the environments, and how good the best in the run folder is.

        Raises:
            ConfigError: the environment of the training cannot be made again.
        """
        find_source(self.agent.policy, self.env, None)
        self._rhythm.start(self.agent.steps_done)
        if self.agent.run_dir is not None:
            known = best_evaluation(self.agent.run_dir)
            self.best = max(self.best, known.get("mean", -math.inf))

    def on_update(self, step: int, metrics: dict[str, float]) -> bool | None:
        """Evaluate where it is due."""
        if not self._rhythm.is_due(step):
            return None
        seed = self.seed
        if seed is None:
            seed = spawn_seed(self.agent.config.seed, "periodic_evaluation")
        policy, deterministic = self.agent.policy, self.deterministic
        result = evaluate(policy, self.env, self.episodes, seed, deterministic)
        self.result = result
        metrics["evaluation/return"] = result.mean
        metrics["evaluation/std"] = result.std
        metrics["evaluation/length"] = sum(result.lengths) / len(result.lengths)
        if result.success_rate is not None:
            metrics["evaluation/success"] = result.success_rate
        if result.mean > self.best:
            self.best = result.mean
            self.agent.save_best(
                {
                    "step": step,
                    "mean": result.mean,
                    "std": result.std,
                    "episodes": self.episodes,
                    "seed": seed,
                    "deterministic": self.deterministic,
                }
            )
        return self.stop_at is None or result.mean < self.stop_at

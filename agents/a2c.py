"""Recurrent A2C: the algorithm from top to bottom."""

from collections.abc import Callable

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.optim import Adam, Optimizer

from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.agents.config import A2CConfig
from xlstm_rl.agents.losses import (
    explained_variance,
    moments_of_all,
    normalized,
    valid_mean,
    with_log_barrier,
)
from xlstm_rl.agents.off_policy import off_policy_targets
from xlstm_rl.agents.optimization import RMSprop, set_learning_rate
from xlstm_rl.agents.optimizers import torch_optimizer
from xlstm_rl.agents.step_baseline import without_common_error
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.distributed import ALONE, Ranks
from xlstm_rl.kernels.native.terms import Terms
from xlstm_rl.policy.direct import loss_inputs, release_gradients
from xlstm_rl.returns import generalized_advantage


class RecurrentA2C(RecurrentAgent):
    """Advantage actor-critic on whole rollout sequences.

    For example:

        from xlstm_rl import RecurrentA2C, evaluate, load_policy

        agent = RecurrentA2C("CartPole-v1", memory={"pattern": "ms"}, agent={"advantages": "gae"})
        agent.learn(total_steps=100_000, progress=True)
        agent.save("runs/demo")
        print(evaluate(load_policy("runs/demo"), episodes=20))

    The arguments are those of `RecurrentPPO`; the section `agent` has A2C's options, which
    `xlstm-rl train --agent.algo a2c --help` lists.

    Mnih et al. 2016 (arXiv:1602.01783), with all environments in step instead of asynchronous
    workers. Each rollout gives one gradient step on all its sequences, which start from the
    memory state stored while acting; with V-trace (Espeholt et al. 2018, arXiv:1802.01561) it may
    give several, and may come from an older policy. Autoreset steps carry no loss.
    """

    algo = "a2c"
    algorithm: A2CConfig

    def make_optimizer(self) -> Optimizer:
        """Return Adam, the paper's RMSprop, or what the configuration names."""
        config = self.algorithm
        if config.optimizer == "adam":
            return Adam(self.parameters, config.learning_rate, eps=config.optimizer_eps, fused=True)
        if config.optimizer != "rmsprop":
            kwargs, rate = config.optimizer_kwargs, config.learning_rate
            return torch_optimizer(config.optimizer, kwargs, self.parameters, rate)
        return RMSprop(
            self.parameters, config.learning_rate, config.rmsprop_alpha, config.optimizer_eps
        )

    def update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Improve the policy on one rollout.

        Args:
            rollout: what the current policy just collected; with V-trace, or an earlier one.
            progress: the fraction of training that is done, for the schedule.

        Raises:
            NonFiniteLossError: a loss or gradient is not finite; the weights stay as they were
                before the step that produced it.
        """
        config, data = self.algorithm, rollout.data
        release_gradients(self.policy.network)  # a callback may have kept those before
        now = self.schedules.at(progress)
        set_learning_rate(self.optimizer, now["learning_rate"])
        valid = None if rollout.all_valid() else data["valid"]
        with self._profile.part("advantages"):
            fixed = None if config.advantages == "vtrace" else on_policy_targets(data, config)
            if fixed is not None and config.step_baseline:
                fixed = without_common_error(fixed[0], valid, self.ranks), fixed[1]
        least_scale: Tensor | None = None
        logs: list[dict[str, Tensor]] = []
        for number in range(config.epochs):
            self._ahead(number)
            with self._profile.part("forward"):
                (log_prob, entropy, barrier), value, backward = self._evaluate(rollout)
                log_ratio = log_prob.detach() - data["log_prob"]
                targets = fixed or vtrace_targets(data, log_ratio, value.detach(), config)
                if config.normalize_advantage and not number:
                    least_scale = self.advantage_scale.take(targets[0], valid, self.ranks)
                loss, log = a2c_loss(
                    *(log_prob, entropy, value, *targets, valid, config),
                    *(now["entropy_coef"], self.ranks, least_scale),
                )
                if config.log_barrier_coef:
                    coef = now["log_barrier_coef"]
                    loss = with_log_barrier(loss, log, barrier, valid, coef)
                # The estimator "k3": unbiased, never negative (Schulman 2020, "Approximating KL").
                log["approx_kl"] = valid_mean(log_ratio.exp() - 1.0 - log_ratio, valid)
            self._descend(loss, log, valid, *([] if backward is None else [backward]))
            logs.append(log)
        means = {f"loss/{key}": torch.stack([log[key] for log in logs]).mean() for key in logs[0]}
        return {
            **{key: mean.item() for key, mean in means.items()},
            "loss/explained_variance": explained_variance(
                *(value.detach(), targets[1], valid, self.ranks)
            ),
            **{f"schedule/{name}": one for name, one in now.items()},
        }

    def _evaluate(self, rollout: Rollout) -> tuple[Terms, Tensor, Callable[[Tensor], None] | None]:
        """Return what the current weights say of the steps `[B, T]`.

        Log-probabilities, entropies and, if asked, mean log-probabilities of all choices; values;
        and what differentiates a loss of these; None: torch does.
        """
        data, network = rollout.data, self.policy.network
        reset = data["reset"] if bool(data["reset"].any()) else None
        seen = data["observation"], rollout.segment_states[0], reset
        params, value, backward = loss_inputs(network, *seen, self._direct_pass(*seen))
        wants_barrier = self.algorithm.log_barrier_coef > 0
        terms = network.distribution.loss_terms(params, data["action"], wants_barrier)
        return terms, value, backward


def on_policy_targets(data: TensorDict, config: A2CConfig) -> tuple[Tensor, Tensor]:
    """Return advantages and value targets `[B, T]` of a rollout of the current policy.

    n-step returns reach to the end of the rollout or of the episode, whichever comes first, and
    bootstrap there: generalised advantage estimation at lambda = 1.
    """
    return generalized_advantage(
        data["reward"],
        data["value"],
        data["next_value"],
        data["terminated"],
        data["truncated"],
        config.gamma,
        1.0 if config.advantages == "n_step" else config.gae_lambda,
    )


def vtrace_targets(
    data: TensorDict, log_ratio: Tensor, value: Tensor, config: A2CConfig
) -> tuple[Tensor, Tensor]:
    """Return advantages and value targets `[B, T]` for values under the current weights."""
    clips = config.rho_bar, config.c_bar
    return off_policy_targets(data, log_ratio, value, config.gamma, config.gae_lambda, clips)


def a2c_loss(
    log_prob: Tensor,
    entropy: Tensor,
    value: Tensor,
    advantage: Tensor,
    target: Tensor,
    valid: Tensor | None,
    config: A2CConfig,
    entropy_coef: float | None = None,
    ranks: Ranks = ALONE,
    least_scale: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return A2C's loss and its parts, averaged over the valid steps of `[B, T]`.

    `-log pi(a|s) A`, plus half the squared value error times `value_coef`, less the entropy times
    `entropy_coef` (None: the configuration's). The advantages are constants, and with V-trace hold
    the importance weights. They are normalised over the rollouts of all `ranks`, and divided by
    `least_scale` at least.
    """
    entropy_coef = config.entropy_bonus if entropy_coef is None else entropy_coef
    if config.normalize_advantage:
        (moments,) = moments_of_all([advantage], [valid], ranks)
        advantage = normalized(advantage, valid, moments, least_scale)
    policy_loss = -valid_mean(log_prob * advantage, valid)
    value_loss = 0.5 * valid_mean((value - target).square(), valid)
    mean_entropy = valid_mean(entropy, valid)
    loss = policy_loss + config.value_coef * value_loss - entropy_coef * mean_entropy
    log = {"policy": policy_loss, "value": value_loss, "entropy": mean_entropy}
    return loss, {name: part.detach() for name, part in log.items()}

"""Recurrent PPO: the algorithm from top to bottom."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from xlstm_rl.agents.base import RecurrentAgent
from xlstm_rl.agents.config import PPOConfig
from xlstm_rl.agents.direct import DirectLoss, direct_loss, placed_loss
from xlstm_rl.agents.loss_data import LossData
from xlstm_rl.agents.losses import (
    Log,
    explained_variance,
    mean_of,
    moments_of_all,
    normalized,
    valid_mean,
    with_log_barrier,
)
from xlstm_rl.agents.minibatch_program import Descent, Loss, MinibatchProgram, UpdatePrograms
from xlstm_rl.agents.optimization import set_learning_rate
from xlstm_rl.agents.optimizers import torch_optimizer
from xlstm_rl.agents.sequences import Sequences
from xlstm_rl.agents.step_baseline import without_common_error
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.distributed import Moments
from xlstm_rl.kernels.native.held import NotCoveredError
from xlstm_rl.kernels.native.ppo_loss import PlacedLoss, clipped_loss
from xlstm_rl.kernels.native.terms import Terms
from xlstm_rl.policy.direct import DirectPass, loss_inputs, release_gradients
from xlstm_rl.policy.encoders.observations import map_observation
from xlstm_rl.policy.structure import is_own
from xlstm_rl.returns import generalized_advantage

_OF_MINIBATCH = ("_minibatch", "_moments", "_loss", "_placed_loss", "_direct_pass", "_descend")
"""What an algorithm of somebody's own may do otherwise."""


class RecurrentPPO(RecurrentAgent):
    """Proximal policy optimisation on whole rollout sequences.

    For example:

        from xlstm_rl import RecurrentPPO, evaluate, load_policy

        agent = RecurrentPPO("CartPole-v1", memory={"pattern": "ms"}, agent={"epochs": 4})
        agent.learn(total_steps=100_000, progress=True)
        agent.save("runs/demo")
        print(evaluate(load_policy("runs/demo"), episodes=20))

    The arguments are those of `AgentSetup`: an environment, `seed`, `total_steps`, `device`,
    `threads`, `run_dir`, and the sections `env`, `normalization`, `memory`, `policy`, `agent`,
    `logger`, `checkpoint` and `evaluation`, each a dict of options or their config object.
    `xlstm-rl train --help` says what each option means.

    Schulman et al. 2017 (arXiv:1707.06347). Each minibatch is a set of sequences that start from
    the memory state stored while acting and run through every episode border inside them;
    autoreset steps carry no loss. Ratios are those to the policy that acted, which is an older one
    where actors collect: what the updates since have changed counts in the clip range.
    """

    algo = "ppo"
    algorithm: PPOConfig

    def make_optimizer(self) -> Optimizer:
        """Return Adam, or what the configuration names."""
        config = self.algorithm
        if config.optimizer != "adam":
            kwargs, rate = config.optimizer_kwargs, config.learning_rate
            return torch_optimizer(config.optimizer, kwargs, self.parameters, rate)
        return Adam(self.parameters, config.learning_rate, eps=config.adam_eps, fused=True)

    def update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Improve the policy on one rollout.

        Args:
            rollout: what the current policy just collected.
            progress: the fraction of training that is done, for the schedules.

        Raises:
            NonFiniteLossError: a loss or gradient is not finite; the weights stay as they were
                before the minibatch that produced it.
        """
        config = self.algorithm
        release_gradients(self.policy.network)  # a callback may have kept those before
        now = self.schedules.at(progress)
        set_learning_rate(self.optimizer, now["learning_rate"])
        with self._profile.part("advantages"):
            sequences = self._sequences(rollout)
        count = sequences.reset.shape[0]
        programs = UpdatePrograms(partial(self._program, sequences, now), self.optimizer)
        logs: list[Log] = []
        for number in range(config.epochs):
            self._ahead(number)
            order = torch.randperm(count, generator=self.shuffle_generator)
            minibatches = order.view(config.minibatches_of(count), -1)
            rows = minibatches.to(self.device)
            moments = self._moments(sequences, rows)
            epoch: list[Log] = [
                programs.run(numbers, self._profile)
                or self._minibatch(sequences.rows(rows[n]), now, moments[n])
                for n, numbers in enumerate(minibatches.tolist())
            ]
            logs += epoch
            if config.kl_limit is not None and mean_of(epoch, "approx_kl") > config.kl_limit:
                break
        return {
            **{f"loss/{key}": mean_of(logs, key) for key in logs[0]},
            "loss/explained_variance": explained_variance(
                sequences.value, sequences.target, sequences.valid, self.ranks
            ),
            "loss/minibatches": float(len(logs)),
            **{f"schedule/{name}": value for name, value in now.items()},
        }

    def _sequences(self, rollout: Rollout) -> Sequences:
        config, data = self.algorithm, rollout.data
        segments = config.segments()

        def cut(x: Tensor) -> Tensor:
            # [B, T] -> [segments * B, T / segments], segment by segment as the states are.
            return torch.cat(x.chunk(segments, 1)) if segments > 1 else x

        advantage, target = generalized_advantage(
            data["reward"],
            data["value"],
            data["next_value"],
            data["terminated"],
            data["truncated"],
            config.gamma,
            config.gae_lambda,
        )
        valid = None if rollout.all_valid() else data["valid"]
        if config.step_baseline:
            advantage = without_common_error(advantage, valid, self.ranks)
        least_scale = None
        if config.normalize_advantage:
            least_scale = self.advantage_scale.take(advantage, valid, self.ranks)
        return Sequences(
            map_observation(cut, data["observation"]),
            cut(data["action"]),
            cut(data["log_prob"]),
            cut(data["value"]),
            cut(advantage),
            cut(target),
            cut(data["reset"]),
            None if valid is None else cut(valid),
            tuple(torch.cat(tensor) for tensor in zip(*rollout.segment_states, strict=True)),
            least_scale,
        )

    def _moments(self, sequences: Sequences, rows: Tensor) -> list[Moments | None]:
        """Return what the advantages of each minibatch are normalised with, in all processes."""
        if not self.algorithm.normalize_advantage or self.ranks.size == 1:
            return [None] * len(rows)
        valid = [None if sequences.valid is None else sequences.valid[index] for index in rows]
        return moments_of_all([sequences.advantage[index] for index in rows], valid, self.ranks)

    def _minibatch(
        self, batch: Sequences, now: Mapping[str, float], moments: Moments | None
    ) -> dict[str, Tensor]:
        """Take one gradient step on sequences `[N, T]`."""
        with self._profile.part("forward"):
            reset = batch.reset if bool(batch.reset.any()) else None
            made = self._direct_pass(batch.observation, batch.state, reset)
            loss, log, backward = self._loss(now, moments, batch, made)
        self._descend(loss, log, batch.valid, *([] if backward is None else [backward]))
        return log

    def _program(
        self, sequences: Sequences, now: Mapping[str, float], count: int
    ) -> MinibatchProgram:
        """Return what does all of `_minibatch` for so many sequences.

        Raises:
            NotCoveredError: the network or the step is not in C, or something is somebody's own.
        """
        own = is_own(self, RecurrentPPO, *_OF_MINIBATCH) and type(sequences) is Sequences
        if self.ranks.size > 1 or not own:
            raise NotCoveredError
        loss = Loss(partial(self._placed_loss, now), partial(self._loss, now, None))
        return MinibatchProgram(
            *(self.policy.network, sequences, count, loss),
            Descent(self.optimizer, self.parameters, self.algorithm.max_grad_norm),
        )

    def _placed_loss(
        self, now: Mapping[str, float], batch: Sequences, made: DirectPass
    ) -> PlacedLoss | None:
        """Return the call that makes the loss of a minibatch; None: `_loss` has to."""
        return placed_loss(self.policy.network, made, LossData.of(batch, now, self.algorithm))

    def _loss(
        self,
        now: Mapping[str, float],
        moments: Moments | None,
        batch: Sequences,
        made: DirectPass | None,
    ) -> DirectLoss:
        """Return the loss of a minibatch: in a graph of torch's, where C does not make it.

        `made` is what `_direct_pass` made; None: the network runs here, in that graph.
        """
        network, config = self.policy.network, self.algorithm
        if made is not None and moments is None and self.ranks.size == 1:
            direct = direct_loss(network, made, LossData.of(batch, now, config))
            if direct is not None:
                return direct
        seen = batch.observation, batch.state, batch.reset if bool(batch.reset.any()) else None
        params, value, backward = loss_inputs(network, *seen, made)
        terms = network.distribution.loss_terms(params, batch.action, config.log_barrier_coef > 0)
        return DirectLoss(*whole_loss(batch, terms, value, now, config, moments), backward)


def whole_loss(
    batch: Sequences,
    terms: Terms,
    value: Tensor,
    now: Mapping[str, float],
    config: PPOConfig,
    moments: Moments | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return PPO's loss with all that is added to it, and its parts: in C where it can be.

    Args:
        batch: what was collected.
        terms: what the distribution of now says of its actions.
        value: of now.
        now: what the scheduled options are.
        config: the others.
        moments: of the advantages of all processes, if there are several.
    """
    found = None if moments is not None else _native_loss(batch, terms, value, now, config)
    if found is None:
        log_prob, entropy, barrier = terms
        given = (batch, log_prob, entropy, value, now["clip"], config, now["entropy_coef"])
        loss, log = ppo_loss(*given, moments)
        found = with_log_barrier(loss, log, barrier, batch.valid, now["log_barrier_coef"]), log
    return found


def _native_loss(
    batch: Sequences, terms: Terms, value: Tensor, now: Mapping[str, float], config: PPOConfig
) -> tuple[Tensor, dict[str, Tensor]] | None:
    """Do all of it in C, for one process; None: torch has to."""
    log_prob, entropy, barrier = terms
    data = LossData.of(batch, now, config)
    return clipped_loss((log_prob, entropy, value, barrier), data.old, data.valid, data.options)


def ppo_loss(
    batch: Sequences,
    log_prob: Tensor,
    entropy: Tensor,
    value: Tensor,
    clip: float,
    config: PPOConfig,
    entropy_coef: float | None = None,
    moments: Moments | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return PPO's loss and its parts, averaged over the valid steps of `[N, T]`.

    With `r = exp(log_prob - old)`: `-min(r A, clamp(r, 1 - clip, 1 + clip) A)` (equation 7),
    plus half the squared value error times `value_coef`, less the entropy times `entropy_coef`
    (None: the configuration's). Advantages are normalised, with the `moments` of all processes if
    there are several.
    """
    entropy_coef = config.entropy_bonus if entropy_coef is None else entropy_coef
    advantage = batch.advantage
    if config.normalize_advantage:
        advantage = normalized(advantage, batch.valid, moments, batch.least_scale)
    log_ratio = log_prob - batch.log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
    policy_loss = -valid_mean(torch.minimum(ratio * advantage, clipped * advantage), batch.valid)
    error = (value - batch.target).square()
    if config.value_clip is not None:
        near = batch.value + (value - batch.value).clamp(-config.value_clip, config.value_clip)
        error = torch.maximum(error, (near - batch.target).square())
    value_loss = 0.5 * valid_mean(error, batch.valid)
    mean_entropy = valid_mean(entropy, batch.valid)
    loss = policy_loss + config.value_coef * value_loss - entropy_coef * mean_entropy
    with torch.no_grad():
        log = {
            "policy": policy_loss.detach(),
            "value": value_loss.detach(),
            "entropy": mean_entropy.detach(),
            # The estimator "k3": unbiased, never negative (Schulman 2020, "Approximating KL").
            "approx_kl": valid_mean(ratio - 1.0 - log_ratio, batch.valid),
            "clip_fraction": valid_mean((clipped != ratio).float(), batch.valid),
        }
    return loss, log

"""What was tried to teach a memory more than a segment shows: kinds of one's own.

From this folder's parent, where `TASK` is `--env.id xlstm_rl/MemoryChain-v0 --env.kwargs.length 128
--total-steps 150000`:

    xlstm-rl compare TASK --agent.algo learning.variants:StudyPPO --agent.start refreshed
        --agent.rollout-steps 129 --agent.segment-steps 43
    xlstm-rl compare TASK --memories xlstm learning.variants:ChronoXLSTM:horizon=128

The results stand in docs/defaults.md. None of it is a part of the library.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from xlstm_rl import RecurrentPPO
from xlstm_rl.agents.algorithm_config import PPOConfig
from xlstm_rl.agents.losses import valid_mean
from xlstm_rl.agents.ppo import Sequences, ppo_loss
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.memory import StateTensors
from xlstm_rl.memory.mlstm_block import MLSTMBlock
from xlstm_rl.memory.stack import XLSTMStack
from xlstm_rl.memory.xlstm_config import XLSTMConfig
from xlstm_rl.options.fields import Count, CountOrZero, PositiveOrZero


@dataclass(frozen=True)
class StudyPPOConfig(PPOConfig):
    """PPO, with other states at the start of segments, or one more loss."""

    algo: str = "learning.variants:StudyPPO"  # type: ignore[assignment]

    start: Literal["stored", "refreshed", "burnt_in"] = "stored"
    """The states that segments start from: those of acting; those of the weights at the start of
    each epoch (refreshed); or, for each minibatch, what the weights of now make of the segment
    before, from its stored state (burnt_in, Kapturowski et al. 2019)."""

    recall_coef: PositiveOrZero = 0.0
    """Weight of a loss that asks the memory's output for an earlier observation."""

    recall_lag: CountOrZero = 16
    """How many steps earlier."""


class StudyPPO(RecurrentPPO):
    """Recurrent PPO with the options above; observations are vectors."""

    algo = "learning.variants:StudyPPO"
    config_class = StudyPPOConfig
    algorithm: StudyPPOConfig

    def make_optimizer(self) -> Any:
        """Add the head of the loss that asks for observations."""
        size = self.env.single_observation_space.shape[0]
        self.recall = nn.Linear(self.config.memory.width, size).to(self.device)
        if self.algorithm.recall_coef:
            self.parameters += [*self.recall.parameters()]
        return super().make_optimizer()

    def _sequences(self, rollout: Rollout) -> Sequences:
        self._rollout, self._held = rollout, super()._sequences(rollout)
        if self.algorithm.start == "burnt_in":
            self._held = _BurntIn.of(self._held, self.algorithm.segments(), self.policy.network)
        return self._held

    def _ahead(self, epoch: int) -> None:
        super()._ahead(epoch)
        if epoch and self.algorithm.start == "refreshed":
            self._held.state = self._refreshed()

    @torch.no_grad()
    def _refreshed(self) -> StateTensors:
        """Run the weights of now over the rollout, from where it began."""
        data, states = self._rollout.data, [self._rollout.segment_states[0]]
        pairs = [
            data[name].chunk(self.algorithm.segments(), 1) for name in ("observation", "reset")
        ]
        for observation, reset in list(zip(*pairs, strict=True))[:-1]:
            states.append(self.policy.network(observation, states[-1], reset)[2])
        return tuple(torch.cat(tensors) for tensors in zip(*states, strict=True))

    def _minibatch(
        self, batch: Sequences, now: Mapping[str, float], moments: Any
    ) -> dict[str, Tensor]:
        if not self.algorithm.recall_coef:
            return super()._minibatch(batch, now, moments)
        config, network = self.algorithm, self.policy.network
        found = network._native_sequences(network, batch.observation, batch.state, batch.reset)
        if found is None:
            raise RuntimeError("this study runs on the C backend")
        outputs, value, features = found
        terms = network.distribution.log_prob_and_entropy(outputs, batch.action)
        loss, log = ppo_loss(batch, *terms, value, now["clip"], config, now["entropy_coef"])
        barrier = network.distribution.mean_log_prob(outputs)
        if barrier is not None:
            loss = loss - now["log_barrier_coef"] * valid_mean(barrier, batch.valid)
        lag = config.recall_lag
        asked = self.recall(features)[:, lag:]
        error = (asked - batch.observation[:, : asked.shape[1]]).square().mean(-1)
        # an episode that began in between has hidden what was before
        begun = batch.reset.cumsum(1)
        same = begun[:, lag:] == begun[:, : asked.shape[1]]
        log["recall"] = valid_mean(error, same).detach()
        self._descend(loss + config.recall_coef * valid_mean(error, same), log, batch.valid)
        return log


@dataclass
class _BurntIn(Sequences):
    """Sequences whose states are made anew for each minibatch."""

    before: Any = None
    """Observations, resets and states of the segment before each, and whether there is one."""

    network: Any = None

    @staticmethod
    def of(held: Sequences, segments: int, network: Any) -> "_BurntIn":
        rows = held.reset.shape[0]
        shift = rows // segments  # the segments stand one under the other
        index = (torch.arange(rows) - shift).clamp(min=0)
        state = tuple(tensor[index] for tensor in held.state)
        before = (held.observation[index], state, held.reset[index], torch.arange(rows) >= shift)
        return _BurntIn(**vars(held), before=before, network=network)

    def rows(self, index: Tensor) -> Sequences:
        observation, state, reset, has_one = self.before
        own = super().rows(index)
        given = tuple(tensor[index] for tensor in state)
        with torch.no_grad():
            made = self.network(observation[index], given, reset[index])[2]
        taken = has_one[index]
        picked = (
            torch.where(taken.view(-1, *[1] * (new.dim() - 1)), new, old)
            for new, old in zip(made, own.state, strict=True)
        )
        return replace(own, state=tuple(picked))


@dataclass(frozen=True)
class ChronoConfig(XLSTMConfig):
    """An xLSTM whose mLSTM forgets, before it has learned anything, by a horizon."""

    kind: str = "learning.variants:ChronoXLSTM"  # type: ignore[assignment]

    horizon: Count = 128
    """Steps to remember: forget gates start at biases up to its logarithm (Tallec and Ollivier
    2018, arXiv:1804.11188)."""


class ChronoXLSTM(XLSTMStack):
    """An xLSTM with those biases."""

    config_class = ChronoConfig

    def __init__(self, config: ChronoConfig) -> None:
        super().__init__(config)
        last = math.log(config.horizon)
        for block in self.blocks:
            if isinstance(block, MLSTMBlock):
                heads = block.num_heads
                biases = torch.linspace(min(3.0, last), last, heads)
                with torch.no_grad():
                    block.gate_bias[heads:] = biases

"""Policies whose memory is set by hand, so that it is known what they remember."""

from typing import Any

import torch

from xlstm_rl.envs import make_env
from xlstm_rl.envs.config import EnvConfig
from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

OPEN, SHUT = 20.0, -20.0
"""Biases of gates that are 1 and 0, to 2e-9."""


def made_for(env_id: str, memory: dict[str, Any], policy: Any = None, **kwargs: Any) -> Policy:
    """A policy for an environment of ours, which reads observations as they are."""
    config = EnvConfig(id=f"xlstm_rl/{env_id}-v0", kwargs=kwargs)
    env = make_env(config)
    env.close()
    return Policy(
        env.observation_space,
        env.action_space,
        MemoryConfig(**memory),
        PolicyConfig(**{"head_widths": (), "critic": "shared", **(policy or {})}),
        NormalizationConfig(observation=False),
        config,
    )


def _blank(env_id: str, width: int, **kwargs: Any) -> tuple[Policy, Any, torch.Tensor]:
    """A policy with an LSTM whose weights are zero, its LSTM and its logits' weights.

    Its encoder hands the numbers of the observation on, or the one-hot code of a choice.
    """
    policy = made_for(env_id, {"kind": "lstm", "width": width}, {"encoder_layers": 0}, **kwargs)
    network: Any = policy.network
    lstm = network.trunk.memory.network
    for weight in [*lstm.parameters(), *network.action_head.parameters()]:
        weight.zero_()
    first = network.trunk.encoder
    if hasattr(first, "embedding"):
        first.embedding.weight.copy_(2.0 * torch.eye(first.embedding.num_embeddings, width))
    else:
        first.weight.copy_(torch.eye(width, first.in_features))
        first.bias.zero_()
    i, _, _, o = lstm.bias_ih_l0.chunk(4)
    i.fill_(OPEN)
    o.fill_(OPEN)
    return policy, lstm, network.action_head.output.weight


@torch.no_grad()
def remembers_the_cue(length: int) -> Policy:
    """Its unit 0 adds up the cue of a MemoryChain, and nothing else, and names it."""
    policy, lstm, logits = _blank("MemoryChain", 4, length=length)
    lstm.bias_ih_l0[4:8] = OPEN
    lstm.weight_ih_l0[8, 2] = 2.0  # observation: time, query, cue
    logits[:, 0] = torch.tensor([-5.0, 5.0])
    return policy


@torch.no_grad()
def remembers_the_sign(length: int) -> Policy:
    """Its unit 0 keeps the sign of a T-Maze, its unit 1 sees the junction, where it turns."""
    policy, lstm, logits = _blank("TMaze", 4, length=length)
    lstm.bias_ih_l0[4] = OPEN
    lstm.bias_ih_l0[5] = SHUT
    lstm.weight_ih_l0[8, 0] = 2.0  # observation: sign, start, junction
    lstm.weight_ih_l0[9, 2] = 3.0
    logits[:, 0] = torch.tensor([0.0, 5.0, 0.0, -5.0])  # right, up, left, down
    logits[:, 1] = torch.tensor([-20.0, 0.0, 0.0, 0.0])
    policy.network.action_head.output.bias.copy_(torch.tensor([10.0, 0, -30, 0]))
    return policy


@torch.no_grad()
def repeats(k: int) -> Policy:
    """A shift register of cards: unit 4 s + suit holds the card s steps back."""
    width = 4 * (k + 1)
    policy, lstm, logits = _blank("RepeatPrevious", width, k=k)
    lstm.bias_ih_l0[width : 2 * width] = SHUT
    for unit in range(width):
        if unit < 4:
            lstm.weight_ih_l0[2 * width + unit, unit] = 1.0
        else:
            lstm.weight_hh_l0[2 * width + unit, unit - 4] = 2.0
    logits[:, -4:] = 10.0 * torch.eye(4)
    return policy

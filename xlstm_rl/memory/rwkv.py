"""RWKV-6: linear attention whose decay, and whose look at the step before, the input sets."""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, silu

from xlstm_rl.kernels.layers import head_norm
from xlstm_rl.kernels.linear.chunkwise import gated_linear
from xlstm_rl.kernels.linear.reference import gated_linear_step
from xlstm_rl.memory.base import StateTensors
from xlstm_rl.memory.config import RWKVConfig
from xlstm_rl.memory.gates import FORGETS_ALL, Gates
from xlstm_rl.memory.layers import LayerNorm
from xlstm_rl.memory.residual import PlainBlock, ResidualStack

_MIXED = 5  # r, k, v, g, w


def before(x: Tensor, last: Tensor, reset: Tensor | None) -> Tensor:
    """Return what came a step before each of x [B, T, D], zeros at the first of an episode."""
    shifted = torch.cat([last[:, None], x[:, :-1]], 1)
    return shifted if reset is None else shifted.masked_fill(reset[..., None], 0.0)


class RWKVBlock(PlainBlock):
    """A residual block [..., D] -> [..., D] (Peng et al. 2024, arXiv:2404.05892, section 4).

    Time mix: u is the normed input, u' that of the step before. `r, k, v, g, w` are linear in
    `u + (u' - u) (mu + lora(u + (u' - u) mu_x))`, each with its own mu and lora; the decay is
    `exp(-exp(w))`. With `S_t = diag(decay) S_{t-1} + k v^T` the heads read `r (S_{t-1} + diag(b)
    k v^T)`; normed by head and times `silu(g)` it is projected and added. Channel mix:
    `sigmoid(W_r ..) W_v relu(W_k ..)^2`, of the input mixed with the one before.
    """

    def __init__(self, config: RWKVConfig) -> None:
        width, heads, size = config.width, config.num_heads, config.head_size
        inner, rank = heads * size, config.lora_rank
        super().__init__({"time": (width,), "channel": (width,), "S": (heads, size, size)})
        self.heads, self.size, self.chunk_size = heads, size, config.chunk_size
        self.time_norm, self.channel_norm = LayerNorm(width), LayerNorm(width)
        self.mix_x = nn.Parameter(torch.full((width,), 0.5))
        self.mix = nn.Parameter(torch.full((_MIXED, width), 0.5))
        self.lora_in = nn.Linear(width, _MIXED * rank, bias=False)
        self.lora_out = nn.Parameter(torch.empty(_MIXED, rank, width))
        self.read = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.gate = nn.Linear(width, inner, bias=False)
        self.decay_in = nn.Linear(width, rank, bias=False)
        self.decay_out = nn.Linear(rank, inner)
        self.bonus = nn.Parameter(torch.empty(heads, size))
        self.head_norm = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, width, bias=False)
        self.channel_mix = nn.Parameter(torch.full((2, width), 0.5))
        hidden = config.feedforward_factor * width
        self.channel_key = nn.Linear(width, hidden, bias=False)
        self.channel_value = nn.Linear(hidden, width, bias=False)
        self.channel_read = nn.Linear(width, width, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights: decays spread over the channels, from slow to fast, as published."""
        nn.init.uniform_(self.lora_out, -0.01, 0.01)
        with torch.no_grad():
            place = torch.linspace(0.0, 1.0, self.heads * self.size)
            self.decay_out.bias.copy_(-6.0 + 5.0 * place.pow(0.85))
            self.bonus.copy_(0.5 * (1.0 - place).unflatten(0, (self.heads, self.size)))

    def _run(
        self, x: Tensor, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        u = self.time_norm(x)
        r, k, v, g, w = self._time_inputs(u, before(u, tensors[0], reset))
        o, state = gated_linear(r, k, v, w, reset, tensors[2], self.bonus, self.chunk_size)
        x = x + self._time_output(o, g)
        c = self.channel_norm(x)
        x = x + self._channel(c, before(c, tensors[1], reset))
        return x, (u[:, -1], c[:, -1], state)

    def _run_step(self, x: Tensor, tensors: StateTensors) -> tuple[Tensor, StateTensors]:
        u = self.time_norm(x)
        r, k, v, g, w = self._time_inputs(u, tensors[0])
        o, state = gated_linear_step(r, k, v, w, self.bonus, tensors[2])
        x = x + self._time_output(o, g)
        c = self.channel_norm(x)
        return x + self._channel(c, tensors[1]), (u, c, state)

    def gates_over(self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None) -> Gates:
        """Return an input gate of 1 and the decay, [B, T, H, K]."""
        first = self._fresh(x) if tensors is None else tensors
        u = self.time_norm(x)
        *_, decay = self._time_inputs(u, before(u, first[0], reset))
        return Gates(torch.zeros_like(decay), decay)

    def _time_inputs(self, u: Tensor, previous: Tensor) -> tuple[Tensor, ...]:
        """Return r, k, v [..., H, K], the gate [..., H K] and the log decay [..., H, K]."""
        back = previous - u
        low = torch.tanh(self.lora_in(u + back * self.mix_x)).unflatten(-1, (_MIXED, -1))
        mix = self.mix + torch.einsum("...mr,mrd->...md", low, self.lora_out)
        r, k, v, g, w = (u[..., None, :] + back[..., None, :] * mix).unbind(-2)
        w = self.decay_out(torch.tanh(self.decay_in(w)))
        decay = -torch.exp(w.clamp_max(FORGETS_ALL))
        shape = (self.heads, self.size)
        heads = (self.read(r), self.key(k), self.value(v))
        r, k, v = (one.unflatten(-1, shape) for one in heads)
        return r, k, v, self.gate(g), decay.unflatten(-1, shape)

    def _time_output(self, o: Tensor, g: Tensor) -> Tensor:
        y: Tensor = self.out(head_norm(o, self.head_norm) * silu(g))
        return y

    def _channel(self, c: Tensor, previous: Tensor) -> Tensor:
        back = previous - c
        key = relu(self.channel_key(c + back * self.channel_mix[0])).square()
        read = torch.sigmoid(self.channel_read(c + back * self.channel_mix[1]))
        value: Tensor = self.channel_value(key)
        return read * value


class RWKVStack(ResidualStack):
    """A stack of RWKV-6 blocks; state: the normed inputs of the step before, and S [B, H, K, K]."""

    def __init__(self, config: RWKVConfig) -> None:
        blocks = [RWKVBlock(config) for _ in range(config.num_layers)]
        super().__init__(config.width, blocks, config.final_norm)
        self.config = config

"""A causal transformer over a sliding window, whose state is the keys and values in it."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from xlstm_rl.kernels.autograd import transforming, wants_gradient
from xlstm_rl.memory.base import StateTensors
from xlstm_rl.memory.config import TransformerConfig
from xlstm_rl.memory.layers import LayerNorm
from xlstm_rl.memory.residual import PlainBlock, ResidualStack


class GRUGate(nn.Module):
    """Joins a stream x and what a layer read from it, y (Parisotto et al. 2020, GTrXL).

    `r = sigmoid(W_r y + U_r x)`, `z = sigmoid(W_z y + U_z x - b)`, `c = tanh(W_c y + U_c (r x))`,
    and the new stream is `(1 - z) x + z c`. b begins at 2: at first little is read.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.from_read = nn.Linear(width, 3 * width, bias=False)
        self.from_stream = nn.Linear(width, 2 * width, bias=False)
        self.from_reset = nn.Linear(width, width, bias=False)
        self.bias = nn.Parameter(torch.full((width,), 2.0))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Map x and y, both [..., D], to [..., D]."""
        read_r, read_z, read_c = self.from_read(y).chunk(3, -1)
        stream_r, stream_z = self.from_stream(x).chunk(2, -1)
        r = torch.sigmoid(read_r + stream_r)
        z = torch.sigmoid(read_z + stream_z - self.bias)
        return (1.0 - z) * x + z * torch.tanh(read_c + self.from_reset(r * x))


class Join(nn.Module):
    """Adds what a layer read to the stream, as GTrXL's gate is called."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x + y."""
        return x + y


def rotated(x: Tensor, positions: Tensor) -> Tensor:
    """Turn pairs of numbers by angles that grow with the position (Su et al. 2021, RoFormer).

    A product of two rotated vectors depends on the difference of their positions alone.

    Args:
        x: `[..., N, H, K]`, K even; number i and i + K/2 are a pair.
        positions: `[N]`.
    """
    half = x.shape[-1] // 2
    steps = torch.arange(half, device=x.device, dtype=x.dtype)
    angles = positions[:, None].to(x.dtype) * torch.exp(-math.log(10_000.0) / half * steps)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]  # [N, 1, K/2]
    one, two = x[..., :half], x[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)


def _emptied(tensors: StateTensors, empty: Tensor) -> StateTensors:
    """Put zeros into the slots `empty` [B, N] of keys and values [B, N, H, K] and of filled."""
    k, v, filled = tensors
    rows = empty[..., None, None]
    return k.masked_fill(rows, 0.0), v.masked_fill(rows, 0.0), filled.masked_fill(empty, 0.0)


class TransformerBlock(PlainBlock):
    """A pre-norm layer [..., D] -> [..., D]: attention, then a feed-forward, each joined to x.

    The state holds the keys, not yet rotated, and the values of the last `window - 1` steps, and
    `filled`, 1 for those that belong to the episode. Positions count from the present step, so that
    none grows with time.
    """

    def __init__(self, config: TransformerConfig) -> None:
        width, past = config.width, config.window - 1
        self.size = config.head_size
        inner = config.num_heads * self.size
        shape = (past, config.num_heads, self.size)
        super().__init__({"k": shape, "v": shape, "filled": (past,)})
        self.heads, self.window = config.num_heads, config.window
        self.attention_norm, self.norm = LayerNorm(width), LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.up = nn.Linear(width, config.feedforward_factor * width)
        self.down = nn.Linear(config.feedforward_factor * width, width)
        gated = config.gating == "gru"
        self.join_attention = GRUGate(width) if gated else Join()
        self.join = GRUGate(width) if gated else Join()

    def _run(
        self, x: Tensor, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        length, past = x.shape[1], self.window - 1
        q, k, v = self._qkv(x)
        keys, values = torch.cat([tensors[0], k], 1), torch.cat([tensors[1], v], 1)
        filled = torch.cat([tensors[2], torch.ones_like(x[..., 0])], 1)
        begins = torch.zeros_like(x[..., 0], dtype=torch.long) if reset is None else reset.long()
        episode = pad(begins.cumsum(1), (past, 0))  # [B, past + T]
        outputs = []
        for start in range(0, length, self.window):
            end = min(start + self.window, length)
            span = slice(start, end + past)
            rows = torch.arange(past, end - start + past, device=x.device)
            columns = torch.arange(end - start + past, device=x.device)
            distance = rows[:, None] - columns  # [rows, columns]
            seen = (distance >= 0) & (distance <= past) & (filled[:, None, span] > 0)
            seen = seen & (episode[:, past + start : past + end, None] == episode[:, None, span])
            outputs.append(
                self._attend(
                    rotated(q[:, start:end], rows),
                    rotated(keys[:, span], columns),
                    values[:, span],
                    seen,
                )
            )
        lives = (episode[:, length:] == episode[:, -1:]) & (filled[:, length:] > 0)
        after = _emptied((keys[:, length:], values[:, length:], filled[:, length:]), ~lives)
        return self._rest(x, torch.cat(outputs, 1)), after

    def _run_step(self, x: Tensor, tensors: StateTensors) -> tuple[Tensor, StateTensors]:
        q, k, v = self._qkv(x[:, None])
        keys, values = torch.cat([tensors[0], k], 1), torch.cat([tensors[1], v], 1)
        filled = torch.cat([tensors[2], torch.ones_like(x[:, :1])], 1)
        columns, seen = torch.arange(self.window, device=x.device), filled > 0
        read = self._attend(rotated(q, columns[-1:]), rotated(keys, columns), values, seen[:, None])
        y = self._rest(x[:, None], read)[:, 0]
        after: StateTensors = (keys[:, 1:], values[:, 1:], filled[:, 1:])
        if transforming() or wants_gradient(*tensors):
            # What is empty holds zeros and stays as it is, but no gradient goes through it, as in
            # a sequence. Without a gradient it would cost a sixth of a step for nothing.
            after = _emptied(after, ~seen[:, 1:])
        return y, after

    def _qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return q, k and v [B, T, H, K] of x [B, T, D]."""
        projected: Tensor = self.qkv(self.attention_norm(x))
        heads: Tensor = projected.unflatten(-1, (3, self.heads, self.size))
        return heads.unbind(-3)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        """Return what q [B, R, H, K] reads from k and v [B, C, H, K] where it sees, [B, R, D]."""
        scores = torch.einsum("brhk,bchk->bhrc", q, k) / math.sqrt(self.size)
        weights = scores.masked_fill(~seen[:, None], -math.inf).softmax(-1)
        return torch.einsum("bhrc,bchk->brhk", weights, v).flatten(-2)

    def _rest(self, x: Tensor, read: Tensor) -> Tensor:
        x = self.join_attention(x, self.out(read))
        y: Tensor = self.join(x, self.down(gelu(self.up(self.norm(x)))))
        return y


class TransformerStack(ResidualStack):
    """A transformer of `num_blocks` layers, each of which sees `window` steps."""

    def __init__(self, config: TransformerConfig) -> None:
        blocks = [TransformerBlock(config) for _ in range(config.num_layers)]
        super().__init__(config.width, blocks, config.final_norm)
        self.config = config
        self.span = config.num_layers * (config.window - 1)

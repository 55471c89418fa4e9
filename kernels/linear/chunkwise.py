"""A matrix memory that decays, chunk by chunk: inside a chunk products, between chunks the state.

With one decay ``w_t = exp(log_decay_t)`` a head this is the state space duality of Mamba-2 (Dao &
Gu 2024). With one a channel, and a bonus, it is the WKV of RWKV-6 (Peng et al. 2024). It is
the mLSTM's chunkwise form (`xlstm_rl.kernels.mlstm.chunkwise`) without stabiliser and
normaliser: resets are masks of segments there and here.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def gated_linear(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    reset: Tensor | None,
    state: Tensor,
    bonus: Tensor | None = None,
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Return ``o_t = q_t S_t`` with ``S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_t^T``.

    Args:
        q: ``[B, T, H, K]``.
        k: ``[B, T, H, K]``.
        v: ``[B, T, H, V]``.
        log_decay: at most 0; ``[B, T, H, K]``, or ``[B, T, H, 1]`` for all channels of a head.
        reset: bool ``[B, T]``: the state before the step is zero; None: nowhere.
        state: S before the first step, ``[B, H, K, V]``.
        bonus: u ``[H, K]``: then ``o_t = q_t (S_{t-1} + diag(u) k_t v_t^T)``.
        chunk_size: steps of a chunk; it changes time and memory, not results.

    Returns:
        o ``[B, T, H, V]`` and the state after the last step.
    """
    length = q.shape[1]
    size = min(chunk_size, length)
    fill = -length % size
    q, k, v, log_decay = (
        _chunks(pad(x, (0, 0, 0, 0, 0, fill)), size) for x in (q, k, v, log_decay)
    )
    number, segment = q.shape[2], None
    if reset is not None:
        segment = pad(reset.long(), (0, fill)).unflatten(1, (number, size)).cumsum(-1)[:, None]
    between = _sums_between(log_decay, segment, is_exclusive=bonus is not None)
    if log_decay.shape[-1] == 1:
        weights = (q @ k.transpose(-1, -2)) * between[..., 0].exp()
    else:
        weights = torch.einsum("bhnik,bhnjk,bhnijk->bhnij", q, k, between.exp())
    o = weights @ v
    if bonus is not None:
        o = o + (q * bonus[:, None, None] * k).sum(-1, keepdim=True) * v

    until = log_decay.cumsum(-2)  # from the chunk's beginning, the step's own decay included
    # without it: as a sum of its own, since a difference cancels behind a decay that forgets all
    seen = until if bonus is None else pad(until[..., :-1, :], (0, 0, 1, 0))
    from_state = q * seen.exp()
    # the row behind the last step without its own key: what each column adds to the final state
    last = _sums_between(log_decay, segment, is_exclusive=False)[..., -1, :, :]
    added = (k * last.exp()).transpose(-1, -2) @ v  # [B, H, n, K, V]
    kept = until[..., -1, :].exp()
    states = []
    for n in range(number):
        if segment is not None:
            state = state.masked_fill((segment[:, 0, n, 0] > 0)[:, None, None, None], 0.0)
        states.append(state)
        state = kept[:, :, n, :, None] * state
        if segment is not None:
            state = state.masked_fill((segment[:, 0, n, -1] > 0)[:, None, None, None], 0.0)
        state = state + added[:, :, n]
    carried = from_state @ torch.stack(states, 2)
    if segment is not None:
        carried = carried.masked_fill((segment > 0)[..., None], 0.0)
    o = (o + carried).permute(0, 2, 3, 1, 4).flatten(1, 2)
    return o[:, :length], state


def _chunks(x: Tensor, size: int) -> Tensor:
    """Return ``[B, T, H, K]`` as ``[B, H, n, C, K]``."""
    chunks: Tensor = x.unflatten(1, (-1, size))
    return chunks.permute(0, 3, 1, 2, 4)


def _sums_between(g: Tensor, segment: Tensor | None, is_exclusive: bool) -> Tensor:
    """Return the sums of g over the steps behind column j up to row i, ``[B, H, n, C, C, K]``.

    They are summed as they are, not taken as differences of running sums, which cancel. -inf where
    the row does not see the column: one to come, or of another episode.

    Args:
        g: ``[B, H, n, C, K]``.
        segment: number of the episode inside the chunk, ``[B, 1, n, C]``.
        is_exclusive: leave out the row's own step, and its own column.
    """
    size = g.shape[-2]
    later = torch.ones(size, size, dtype=torch.bool, device=g.device).tril(-1)
    own = g[..., :, None, :].masked_fill(~later[..., None], 0.0)  # [.., i, j, K]: j < i
    sums = own.cumsum(-3)
    seen = later
    if is_exclusive:
        sums = torch.cat([torch.zeros_like(sums[..., :1, :, :]), sums[..., :-1, :, :]], -3)
    else:
        seen = torch.ones_like(later).tril()
    if segment is not None:
        seen = seen & (segment[..., :, None] == segment[..., None, :])
    return sums.masked_fill(~seen[..., None], -math.inf)

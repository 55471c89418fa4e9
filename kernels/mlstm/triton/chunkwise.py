"""The chunkwise mLSTM: three launches forward, six backward; see kernels/TRITON.md."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from xlstm_rl.kernels.launch import device_class, dot_precision, launch
from xlstm_rl.kernels.mlstm.triton.gate_grads import mlstm_gate_grads_kernel
from xlstm_rl.kernels.mlstm.triton.gates import Gates, scan_gates
from xlstm_rl.kernels.mlstm.triton.inputs import mlstm_dk_kernel, mlstm_dq_kernel
from xlstm_rl.kernels.mlstm.triton.output import mlstm_dv_kernel, mlstm_output_fwd_kernel
from xlstm_rl.kernels.mlstm.triton.states import mlstm_states_bwd_kernel, mlstm_states_fwd_kernel
from xlstm_rl.kernels.mlstm.triton.tiles import Tiles, choose_tiles, pad

_MOST_ROWS = 64  # no tile has more


class Saved(NamedTuple):
    """What the backward reads besides the inputs and the final state."""

    C: Tensor
    """``[N - 1, B * H, K, V]`` float32: before the chunks 1 .. N - 1."""
    n: Tensor
    """``[N - 1, B * H, K]`` float32."""
    qn: Tensor
    """``[B * H, T]`` float32: ``q . n``, scaled."""


class Layout(NamedTuple):
    """How a sequence is cut into chunks, and those into tiles of rows."""

    tiles: Tiles
    rows: int
    """Steps of a tile, a power of two; fewer are valid where chunks are asked to be shorter."""
    L: int
    """Steps of a chunk."""
    N: int
    """Chunks."""
    per_chunk: int
    """Tiles of a chunk."""

    @property
    def num_tiles(self) -> int:
        """Tiles of a sequence."""
        return self.N * self.per_chunk


def choose_layout(q: Tensor, v: Tensor, chunk_size: int) -> Layout:
    """Cut ``q [B, T, H, K]``, ``v [B, T, H, V]`` into tiles of at most ``chunk_size`` steps."""
    T = q.shape[1]
    tiles = choose_tiles(device_class(q.device), q.dtype, q.shape[3], v.shape[3])
    rows = min(tiles.rows, pad(min(T, chunk_size)))
    L = min(rows, chunk_size)
    if chunk_size >= rows:  # a state is kept only every few tiles
        L *= min(tiles.per_chunk, -(-T // rows))
    return Layout(tiles, rows, L, -(-T // L), -(-L // rows))


def chunkwise_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    C_0: Tensor | None,
    n_0: Tensor | None,
    m_0: Tensor | None,
    chunk_size: int,
    forget_gate: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Saved]:
    """``h [B, T, H, V]``, the final C, n, m and what the backward needs."""
    (B, T, H, K), V = q.shape, v.shape[-1]
    q, k, v, C_0, n_0 = _dense(q), _dense(k), _dense(v), _whole(C_0), _whole(n_0)
    layout = choose_layout(q, v, chunk_size)
    gates = scan_gates(i, f, reset, C_0, n_0, m_0, forget_gate)

    def new(*shape: int) -> Tensor:
        return q.new_empty(shape, dtype=torch.float32)

    h = v.new_empty((B, T, H, V))
    C_T, n_T = new(B, H, K, V), new(B, H, K)
    saved = Saved(new(layout.N - 1, B * H, K, V), new(layout.N - 1, B * H, K), new(B * H, T))
    sizes = {"T": T, "H": H, "K": K, "V": V, "L": layout.L}
    states = {"C_0_ptr": C_0, "n_0_ptr": n_0, "C_ptr": saved.C, "n_ptr": saved.n}
    block_k, block_v = (min(pad(D), layout.tiles.block_state) for D in (K, V))
    launch(
        q.device,
        mlstm_states_fwd_kernel,
        (B * H, -(-K // block_k), -(-V // block_v)),
        k_ptr=k,
        v_ptr=v,
        **_weights(gates),
        **states,
        C_T_ptr=C_T,
        n_T_ptr=n_T,
        **sizes,
        **_strides("k", k),
        **_strides("v", v),
        **_options(q, layout, block_k, block_v),
    )
    block_k, block_v = min(pad(K), layout.tiles.block), min(pad(V), layout.tiles.columns)
    launch(
        q.device,
        mlstm_output_fwd_kernel,
        (B * H * layout.num_tiles, -(-V // block_v)),
        q_ptr=q,
        k_ptr=k,
        v_ptr=v,
        **_weights(gates),
        floor_ptr=gates.floor,
        **states,
        h_ptr=h,
        qn_ptr=saved.qn,
        **sizes,
        **_tile_sizes(q, layout),
        **_strides("q", q),
        **_strides("k", k),
        **_strides("v", v),
        **_options(q, layout, block_k, block_v),
        K_BLOCKS=-(-K // block_k),
    )
    return h, C_T, n_T, gates.m, saved


def chunkwise_backward(
    dh: Tensor | None,
    dC: Tensor | None,
    dn: Tensor | None,
    dm: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    C_0: Tensor | None,
    n_0: Tensor | None,
    m_0: Tensor | None,
    C_T: Tensor,
    n_T: Tensor,
    saved: Saved,
    chunk_size: int,
    forget_gate: str,
) -> list[Tensor]:
    """The gradients of q, k, v, i, f and, if there was a state, of C, n, m (in float32)."""
    (B, T, H, K), V = q.shape, v.shape[-1]
    q, k, v, C_0, n_0 = _dense(q), _dense(k), _dense(v), _whole(C_0), _whole(n_0)
    layout = choose_layout(q, v, chunk_size)
    gates = scan_gates(i, f, reset, C_0, n_0, m_0, forget_gate)
    dh = v.new_zeros((B, T, H, V)) if dh is None else _dense(dh)
    to_state = dC is not None or dn is not None
    if to_state:
        dC = torch.zeros_like(C_T) if dC is None else dC.contiguous()
        dn = torch.zeros_like(n_T) if dn is None else dn.contiguous()

    def new(*shape: int) -> Tensor:
        return q.new_empty(shape, dtype=torch.float32)

    dq, dk, dv = (q.new_empty((B, T, H, D)) for D in (K, K, V))
    di, df = i.new_empty((B, T, H)), f.new_empty((B, T, H))
    ds, qdq, kdk = new(B * H, T), new(B * H, T), new(B * H, T)
    dCs, dns = torch.empty_like(saved.C), torch.empty_like(saved.n)
    has_state = C_0 is not None
    dC_0, dn_0, dm_0 = (
        (new(B, H, K, V), new(B, H, K), new(B, H)) if has_state else (None, None, None)
    )
    sizes = {"T": T, "H": H, "K": K, "V": V, "L": layout.L}
    states = {"C_0_ptr": C_0, "n_0_ptr": n_0, "C_ptr": saved.C, "n_ptr": saved.n}
    den = {"floor_ptr": gates.floor, "qn_ptr": saved.qn}
    tile_sizes, scale = _tile_sizes(q, layout), K**-0.5
    strides = {name: _strides(name, x) for name, x in (("q", q), ("k", k), ("v", v), ("d", dh))}
    block_k, block_v = (min(pad(D), layout.tiles.block) for D in (K, V))
    columns = min(pad(V), layout.tiles.columns)
    options = _options(q, layout, pad(K), block_v)
    v_blocks = -(-V // block_v)
    launch(
        q.device,
        mlstm_dq_kernel,
        (B * H * layout.num_tiles,),
        q_ptr=q,
        k_ptr=k,
        v_ptr=v,
        dh_ptr=dh,
        **_weights(gates),
        **den,
        **states,
        dq_ptr=dq,
        ds_ptr=ds,
        qdq_ptr=qdq,
        **sizes,
        **tile_sizes,
        **strides["q"],
        **strides["k"],
        **strides["v"],
        **strides["d"],
        **options,
        V_BLOCKS=v_blocks,
    )
    state_k, state_v = (min(pad(D), layout.tiles.block_state) for D in (K, V))
    grid = (B * H, -(-K // state_k), -(-V // state_v))
    inner = new(grid[1] * grid[2], B * H, layout.N + 1)
    launch(
        q.device,
        mlstm_states_bwd_kernel,
        grid,
        q_ptr=q,
        dh_ptr=dh,
        u_ptr=gates.u,
        episode_ptr=gates.episode,
        **den,
        ds_ptr=ds,
        **states,
        C_T_ptr=C_T,
        n_T_ptr=n_T,
        dC_T_ptr=dC,
        dn_T_ptr=dn,
        dC_ptr=dCs,
        dn_ptr=dns,
        dC_0_ptr=dC_0,
        dn_0_ptr=dn_0,
        inner_ptr=inner,
        **sizes,
        N=layout.N,
        scale=scale,
        **strides["q"],
        **strides["d"],
        **_options(q, layout, state_k, state_v),
    )
    launch(
        q.device,
        mlstm_dv_kernel,
        (B * H * layout.num_tiles, -(-V // columns)),
        q_ptr=q,
        k_ptr=k,
        dh_ptr=dh,
        **_weights(gates),
        **den,
        dC_T_ptr=dC,
        dC_ptr=dCs,
        dv_ptr=dv,
        **sizes,
        **tile_sizes,
        **strides["q"],
        **strides["k"],
        **strides["d"],
        **_options(q, layout, block_k, columns),
        K_BLOCKS=-(-K // block_k),
    )
    launch(
        q.device,
        mlstm_dk_kernel,
        (B * H * layout.num_tiles,),
        q_ptr=q,
        k_ptr=k,
        v_ptr=v,
        dh_ptr=dh,
        **_weights(gates),
        **den,
        ds_ptr=ds,
        dC_T_ptr=dC,
        dn_T_ptr=dn,
        dC_ptr=dCs,
        dn_ptr=dns,
        dk_ptr=dk,
        kdk_ptr=kdk,
        **sizes,
        **tile_sizes,
        **strides["q"],
        **strides["k"],
        **strides["v"],
        **strides["d"],
        **options,
        V_BLOCKS=v_blocks,
    )
    launch(
        q.device,
        mlstm_gate_grads_kernel,
        (B * H * layout.num_tiles,),
        f_ptr=f,
        episode_ptr=gates.episode,
        source_ptr=gates.source,
        qdq_ptr=qdq,
        kdk_ptr=kdk,
        inner_ptr=inner,
        dm_ptr=None if dm is None else dm.contiguous(),
        di_ptr=di,
        df_ptr=df,
        dm_0_ptr=dm_0,
        T=T,
        H=H,
        L=layout.L,
        N=layout.N,
        total=B * H,
        tiles=layout.num_tiles,
        tiles_per_chunk=layout.per_chunk,
        **_strides("f", f),
        PARTS=inner.shape[0],
        TO_STATE=to_state or dm is not None,
        SIGMOID=forget_gate == "sigmoid",
        TILE=layout.rows,
        num_warps=4,
    )
    return [dq, dk, dv, di, df, *(g for g in (dC_0, dn_0, dm_0) if g is not None)]


def _weights(gates: Gates) -> dict[str, Tensor]:
    return {"c_ptr": gates.c, "u_ptr": gates.u, "episode_ptr": gates.episode}


def _strides(name: str, x: Tensor) -> dict[str, int]:
    return {f"stride_{name}{axis}": x.stride(n) for n, axis in enumerate("bth")}


def _tile_sizes(q: Tensor, layout: Layout) -> dict[str, Any]:
    return {
        "total": q.shape[0] * q.shape[2],
        "tiles": layout.num_tiles,
        "tiles_per_chunk": layout.per_chunk,
        "scale": q.shape[3] ** -0.5,
    }


def _options(q: Tensor, layout: Layout, block_k: int, block_v: int) -> dict[str, Any]:
    return {
        "PRECISION": dot_precision(q.dtype, device_class(q.device)),
        "TILE": layout.rows,
        "BLOCK_K": block_k,
        "BLOCK_V": block_v,
        "num_warps": layout.tiles.warps,
        "num_stages": layout.tiles.stages,
    }


def _dense(x: Tensor) -> Tensor:
    """With its last axis in one piece, as the kernels read it; other strides are theirs.

    Unless a tile of steps spans more than 32 bits can say, as where time is the outermost axis.
    """
    near = x.stride(1) < 2**31 // _MOST_ROWS
    return x if x.stride(-1) == 1 and near else x.contiguous()


def _whole(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()

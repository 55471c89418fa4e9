"""Inputs of the mLSTM block and the float64 truth, for its tests."""

from dataclasses import dataclass

import torch

from xlstm_rl.kernels.mlstm.block import MLSTMBlockOptions, MLSTMBlockWeights, mlstm_block
from xlstm_rl.kernels.native.mlstm_block import run_mlstm_block


@dataclass
class Case:
    """Sizes and options of a block; W = 0: no convolution."""

    B: int
    T: int
    D: int
    I: int  # noqa: E741
    H: int
    W: int = 4
    S: int = 4
    bias: bool = False
    forget_gate: str = "sigmoid"
    state: bool = True
    resets: float = 0.1
    gates: float = 0.5
    seed: int = 0

    @property
    def options(self):
        return MLSTMBlockOptions(self.H, self.forget_gate)

    def make(self):
        """x, reset, the state or None, and the weights, in float64."""
        gen = torch.Generator().manual_seed(self.seed)

        def randn(*shape, std=1.0, mean=0.0):
            return torch.randn(shape, generator=gen, dtype=torch.float64) * std + mean

        B, T, D, I, H, W, S = self.B, self.T, self.D, self.I, self.H, self.W, self.S  # noqa: E741
        K = I // H
        gate_bias = torch.cat([randn(H, std=0.5), randn(H, std=self.gates, mean=2)])
        weights = MLSTMBlockWeights(
            norm=randn(D, std=0.1, mean=1),
            up=randn(2 * I, D, std=D**-0.5),
            up_bias=randn(2 * I, std=0.1) if self.bias else None,
            conv=randn(I, W, std=0.5) if W else None,
            conv_bias=randn(I, std=0.1) if W else None,
            qkv=randn(3 * I // S, S, S, std=S**-0.5),
            qkv_bias=randn(3 * I, std=0.1) if self.bias else None,
            gate=randn(2 * H, 3 * I, std=self.gates * (3 * I) ** -0.5),
            gate_bias=gate_bias,
            head_norm=randn(I, std=0.1, mean=1),
            skip=randn(I, std=0.1, mean=1),
            down=randn(D, I, std=I**-0.5),
            down_bias=randn(D, std=0.1) if self.bias else None,
        )
        state = (randn(B, H, K, K, std=0.3), randn(B, H, K, std=0.3), randn(B, H))
        for s in state:
            s[: B // 3] = 0  # some rows are fresh
        if W:
            state = (randn(B, W - 1, I), *state)
        reset = torch.rand(B, T, generator=gen) < self.resets
        return randn(B, T, D), reset, state if self.state else None, weights

    def incoming(self):
        """Gradients for all outputs."""
        B, T, D, I, H = self.B, self.T, self.D, self.I, self.H  # noqa: E741
        shapes = [(B, T, D), (B, H, I // H, I // H), (B, H, I // H), (B, H)]
        if self.W:
            shapes.insert(1, (B, self.W - 1, I))
        gen = torch.Generator().manual_seed(self.seed + 1)
        return [torch.randn(s, generator=gen, dtype=torch.float64) for s in shapes]


def leaf(x, dtype):
    return None if x is None else x.detach().to(dtype).requires_grad_()


def differentiate(run, case, dtype, incoming=None, spoil=None, backend=None):
    """All outputs and the gradient of every input, by name."""
    x, reset, state, weights = case.make()
    if spoil is not None:
        spoil(x, state)
    x, weights = leaf(x, dtype), MLSTMBlockWeights(*(leaf(w, dtype) for w in weights))
    state = None if state is None else tuple(leaf(s, dtype) for s in state)
    options = case.options if backend is None else case.options._replace(backend=backend)
    found = run(x, reset, state, weights, options)
    if found is None:
        return None
    out, after = found
    outputs = [out, *after]
    parts = ("conv", "C", "n", "m")[-len(after) :]
    incoming = case.incoming() if incoming is None else incoming
    inputs = {"x": x, **dict(zip(parts, state or (), strict=False))}
    inputs |= {n: w for n, w in weights._asdict().items() if w is not None}
    grads = torch.autograd.grad(
        outputs,
        list(inputs.values()),
        [g.to(dtype) for g in incoming],
        allow_unused=True,
        materialize_grads=True,
    )
    named = dict(zip(("out", *parts), (o.detach() for o in outputs), strict=True))
    return named | {f"d{n}": g for n, g in zip(inputs, grads, strict=True)}


def error(got, want, size=None):
    """The largest difference relative to the largest entry, or to a size."""
    if want.numel() == 0:
        return 0.0
    assert got.isfinite().all()
    size = float(want.abs().max()) if size is None else size
    return float((got.double() - want).abs().max()) / max(size, 1e-12)


def errors(got, want):
    """By name; gradients of the state relative to its largest one.

    Those of n and m are differences of large numbers, because h hardly depends on their size.
    """
    assert got.keys() == want.keys()
    states = [want[n] for n in ("dC", "dn", "dm") if n in want and want[n].numel()]
    size = max((float(g.abs().max()) for g in states), default=0.0)
    return {
        name: error(got[name], w, size if name in ("dC", "dn", "dm") else None)
        for name, w in want.items()
    }


def hold(case, limit=1e-5, times=4):
    """Within the limit of float64, or so many times as near as float32 on torch comes there.

    What is divided by a q . n near 0, or is a sum of large numbers of both signs, differs from one
    order of summation to the next.
    """
    want = differentiate(mlstm_block, case, torch.float64, backend="reference")
    got = differentiate(run_mlstm_block, case, torch.float32)
    assert got is not None, "it stepped aside"
    far = {name: e for name, e in errors(got, want).items() if e > limit}
    if not far:
        return
    near = errors(differentiate(mlstm_block, case, torch.float32, backend="torch"), want)
    for name, e in far.items():
        assert e <= times * near[name], f"{name} is {e:.1e} from float64, torch {near[name]:.1e}"

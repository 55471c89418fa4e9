"""What all Triton kernels are held to: the float64 reference, in outputs and every gradient.

Interpreted, they are also held to touch no address outside their tensors.

The kernels run in Triton's interpreter where there is no GPU, and with `-m gpu` on a GPU.
"""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

from xlstm_rl.kernels.launch import interpreting

F64 = torch.float64
# norm of the difference over the norm: of outputs and states, and of gradients
TOLERANCES = {
    torch.float32: (1e-5, 1e-4),
    torch.bfloat16: (2e-2, 2e-2),
    torch.float16: (5e-3, 5e-3),
}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The CPU under the interpreter, or a GPU."""
    if request.param == "cuda" and (interpreting() or not torch.cuda.is_available()):
        pytest.skip("needs a GPU, and TRITON_INTERPRET unset")
    if request.param == "cpu" and not interpreting():
        pytest.skip("needs TRITON_INTERPRET=1, which is set where there is no GPU")
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _fresh_memory_is_nan(monkeypatch):
    """Fill what torch.empty hands out with NaN, so that nothing is read before it is written."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _no_address_outside_the_tensors():
    """Check every load and store of the interpreter."""
    if not interpreting():
        yield
        return
    with checked():
        yield


@pytest.fixture
def hold_to_reference(device):
    """Return a function that raises unless Triton agrees with the float64 reference.

    `call(xs, reset, backend=...)` returns a tuple of outputs; `xs` are float64 tensors that it
    differentiates with respect to; `dtypes` are theirs in the Triton run (one for all, or each);
    `touch` are the indices of the outputs that the loss touches (None: all).
    """

    def hold(call, xs, reset, dtypes=torch.float32, touch=None, tolerances=None):
        dtypes = [dtypes] * len(xs) if isinstance(dtypes, torch.dtype) else dtypes
        given = [x.detach().to(d) for x, d in zip(xs, dtypes, strict=True)]
        low = [
            _keep_strides(g, x).to(device).requires_grad_() for g, x in zip(given, xs, strict=True)
        ]
        exact = [g.to(F64).requires_grad_() for g in given]
        want = _run(call, exact, reset, touch, "reference")
        got = _run(call, low, None if reset is None else reset.to(device), touch, "triton")
        worst = max(dtypes, key=lambda d: TOLERANCES[d][0])
        bounds = tolerances or TOLERANCES[worst]
        for kind, tolerance, ours, theirs in zip(
            ("output", "gradient"), bounds, got, want, strict=True
        ):
            # where all that is left of a gradient is rounding, that of the others counts
            least = 1e-2 * max(float(b.detach().norm()) for b in theirs)
            for n, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                assert a.shape == b.shape
                assert a.isfinite().all(), f"{kind} {n} is not finite"
                size = max(float(b.detach().norm()), least)
                error = float((a.cpu().to(F64) - b).detach().norm()) / max(size, 1e-30)
                assert error <= tolerance, f"{kind} {n}: {error:.3g}, more than {tolerance:g}"

    return hold


@pytest.fixture
def make_reset():
    """A function that returns resets `[B, T]` of a kind: where each episode begins."""

    def make(kind, B, T, density=0.15):
        if kind == "none":
            return None
        reset = torch.zeros(B, T, dtype=torch.bool)
        if kind == "all":
            reset[:] = True
        elif kind == "first":
            reset[:, 0] = True
        elif kind == "last":
            reset[:, -1] = True
        elif kind == "consecutive":
            reset[0, T // 3 : T // 3 + 3] = True
        elif kind == "random":
            reset = torch.rand(B, T, generator=torch.Generator().manual_seed(T)) < density
        return reset

    return make


@pytest.fixture
def make_slstm():
    """A function that returns x, R, b and the state of an sLSTM in float64.

    One row is fresh, one has n = 0 here and there.
    """

    def make(B, T, H, D, with_state=True, seed=0):
        gen = torch.Generator().manual_seed(seed)
        shapes = [(B, T, 4, H, D), (4, H, D, D), (4, H, D)] + [(B, H, D)] * 4 * with_state
        xs = [torch.randn(s, generator=gen, dtype=F64) for s in shapes]
        xs[1] *= D**-0.5
        if with_state:
            xs[5] = xs[5].abs() + 0.5  # a normaliser
            for x in xs[3:]:
                x[0] = 0
            xs[5][-1, :, ::2] = 0
        return xs

    return make


def _keep_strides(x, like):
    """`x` laid out in memory as `like` is (a cast may have made it dense)."""
    out = torch.empty_strided(like.shape, like.stride(), dtype=x.dtype)
    return out.copy_(x)


def _run(call, xs, reset, touch, backend):
    outs = call(xs, reset, backend=backend)
    gen = torch.Generator().manual_seed(7)
    # numbers of every dtype, so that both runs have the same loss, and so small that no gradient
    # leaves float16
    weights = [torch.randn(o.shape, generator=gen).bfloat16().to(F64) / 8 for o in outs]
    touch = range(len(outs)) if touch is None else touch
    loss = sum((outs[n] * weights[n].to(outs[n])).sum(dtype=F64) for n in touch)
    grads = torch.autograd.grad(loss, xs, allow_unused=True, materialize_grads=True)
    return [o.detach() for o in outs], grads


class OutOfBoundsError(IndexError):
    """A kernel read or wrote outside its tensors."""


class _CheckedMemory:
    """Stands in for the interpreter's memory; what is no load and no store goes to the real one."""

    def __init__(self, real, inside):
        self._real, self._inside = real, inside

    def __getattr__(self, name):
        return getattr(self._real, name)

    def load(self, pointers, mask, other, dtype):
        self._inside("read", pointers, mask, np.dtype(dtype).itemsize)
        return self._real.load(pointers, mask, other, dtype)

    def store(self, pointers, value, mask):
        self._inside("wrote", pointers, mask, value.dtype.itemsize)
        return self._real.store(pointers, value, mask)


@contextmanager
def checked():
    """Raise `OutOfBoundsError` at the first address outside the tensors of a launch."""
    real, start = interpreter._interpreter, interpreter.GridExecutor.__call__
    spans = [np.empty((0, 2), np.uint64)]

    def begin(self, *args, **kwargs):
        tensors = [t for t in (*args, *kwargs.values()) if hasattr(t, "data_ptr") and t.numel()]
        spans[0] = np.array(sorted(map(_span, tensors)), np.uint64).reshape(-1, 2)
        return start(self, *args, **kwargs)

    def inside(what, pointers, mask, size):
        addresses = np.asarray(pointers).astype(np.uint64)
        addresses = addresses[np.broadcast_to(np.asarray(mask, bool), addresses.shape)]
        ok = np.zeros(addresses.shape, bool)
        for first, end in spans[0]:
            ok |= (addresses >= first) & (addresses + np.uint64(size) <= end)
        if not ok.all():
            raise OutOfBoundsError(
                f"{what} {(~ok).sum()} of {ok.size} elements outside every tensor"
            )

    interpreter._interpreter = _CheckedMemory(real, inside)
    interpreter.GridExecutor.__call__ = begin
    try:
        yield
    finally:
        interpreter._interpreter, interpreter.GridExecutor.__call__ = real, start


def _span(t):
    """First address of a tensor and the one behind its last element."""
    last = sum((n - 1) * stride for n, stride in zip(t.shape, t.stride(), strict=True))
    return t.data_ptr(), t.data_ptr() + (last + 1) * t.element_size()

"""What all Triton kernels are held to: the float64 reference, in outputs and every gradient.

The kernels run in Triton's interpreter where there is no GPU, and with `-m gpu` on a GPU.
"""

import pytest
import torch

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
            least = 1e-2 * max(float(b.norm()) for b in theirs)
            for n, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                assert a.shape == b.shape
                assert a.isfinite().all(), f"{kind} {n} is not finite"
                size = max(float(b.norm()), least)
                error = float((a.cpu().to(F64) - b).norm()) / max(size, 1e-30)
                assert error <= tolerance, f"{kind} {n}: {error:.3g}, more than {tolerance:g}"

    return hold


def _keep_strides(x, like):
    """`x` laid out in memory as `like` is (a cast may have made it dense)."""
    out = torch.empty_strided(like.shape, like.stride(), dtype=x.dtype)
    return out.copy_(x)


def _run(call, xs, reset, touch, backend):
    outs = call(xs, reset, backend=backend)
    gen = torch.Generator().manual_seed(7)
    weights = [torch.randn(o.shape, generator=gen, dtype=F64) for o in outs]
    touch = range(len(outs)) if touch is None else touch
    loss = sum((outs[n] * weights[n].to(outs[n])).sum(dtype=F64) for n in touch)
    grads = torch.autograd.grad(loss, xs, allow_unused=True, materialize_grads=True)
    return [o.detach() for o in outs], grads

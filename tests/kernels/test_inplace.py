"""What is overwritten in place autograd has to know of, on every backend."""

import pytest
import torch

from xlstm_rl import kernels

B, T, H, K = 2, 3, 1, 8


@pytest.fixture(params=["torch", "native", "triton"])
def backend(request, monkeypatch):
    if request.param == "triton":
        pytest.importorskip("triton")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    return request.param


class MLSTM:
    def __init__(self, backend):
        self.backend = backend
        x = torch.randn(B, T, H, K, requires_grad=True)
        gate = torch.zeros(B, T, H, requires_grad=True)
        self.inputs = (x, x, x, gate, gate)
        self.state = tuple(torch.randn(B, H, *size) for size in ((K, K), (K,), ()))

    def run(self):
        return kernels.mlstm(*self.inputs, None, self.state, backend=self.backend)

    def step(self, state):
        now = (x[:, 0] for x in self.inputs)
        kernels.mlstm_step(*now, None, state, backend=self.backend, inplace=True)


class SLSTM(MLSTM):
    def __init__(self, backend):
        self.backend = backend
        sizes = (B, T, 4, H, K), (4, H, K, K), (4, H, K)
        self.inputs = tuple(torch.randn(size, requires_grad=True) for size in sizes)
        self.state = tuple(torch.rand(B, H, K) + 1 for _ in "hcnm")

    def run(self):
        return kernels.slstm(*self.inputs, None, self.state, backend=self.backend)

    def step(self, state):
        x, R, b = self.inputs
        kernels.slstm_step(x[:, 0], R, b, None, state, backend=self.backend, inplace=True)


class Convolution(MLSTM):
    def __init__(self, backend):
        self.backend = backend
        sizes = (B, T, K), (K, 4)
        self.inputs = tuple(torch.randn(size, requires_grad=True) for size in sizes)
        self.state = (torch.randn(B, 3, K),)

    def run(self):
        end = kernels.causal_conv1d(*self.inputs, None, None, *self.state, backend=self.backend)
        return end[0], end[1:]

    def step(self, state):
        x, w = self.inputs
        kernels.causal_conv1d_step(
            x[:, 0], w, None, None, *state, backend=self.backend, inplace=True
        )


def gradients(cell, outs):
    total = sum(x.square().sum() for x in outs)
    return torch.autograd.grad(total, cell.inputs)


@pytest.mark.parametrize("cell", [MLSTM, SLSTM, Convolution])
@pytest.mark.parametrize("which", ["first", "final"])
@pytest.mark.each_value("triton")
def test_a_state_that_is_overwritten_never_makes_wrong_gradients(cell, which, backend):
    cell = cell(backend)
    h, final = cell.run()
    want = gradients(cell, (h, *final))
    h, final = cell.run()
    state = cell.state if which == "first" else tuple(s.detach() for s in final)
    versions = [s._version for s in state]
    with torch.no_grad():
        cell.step(state)
    assert all(s._version > version for s, version in zip(state, versions, strict=True))
    try:
        # of the final state's values the loss itself would need the old ones
        got = gradients(cell, (h, *final) if which == "first" else (h,))
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
    else:  # what is kept of the state lies elsewhere
        if which == "final":
            h, _ = cell.run()
            want = gradients(cell, (h,))
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("cell", [MLSTM, SLSTM, Convolution])
def test_a_state_whose_rows_share_memory_is_refused(cell, backend):
    cell = cell(backend)
    with torch.no_grad(), pytest.raises(RuntimeError, match="single memory location"):
        cell.step(tuple(s[:1].expand_as(s) for s in cell.state))

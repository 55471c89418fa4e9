"""What acted is what trained: steps, pieces and resets, on both executions."""

import pytest
import torch

from xlstm_rl import kernels

B, T = 3, 23
BACKENDS = pytest.mark.parametrize("backend", ["reference", "torch"])


class Cell:
    """One memory with its inputs: a sequence to run whole, in pieces, or step by step."""

    def __init__(self, name, dtype=torch.float64):
        gen = torch.Generator().manual_seed(3)

        def randn(*shape):
            return torch.randn(shape, generator=gen, dtype=torch.float64).to(dtype)

        self.reset = torch.rand(B, T, generator=gen) < 0.15
        if name == "mlstm":
            self.xs = [randn(B, T, 2, 4), randn(B, T, 2, 4), randn(B, T, 2, 5)]
            self.xs += [randn(B, T, 2), randn(B, T, 2)]
            self.weights = []
            self.fn, self.step_fn = kernels.mlstm, kernels.mlstm_step
        elif name == "slstm":
            self.xs, self.weights = [randn(B, T, 4, 2, 4)], [randn(4, 2, 4, 4), randn(4, 2, 4)]
            self.fn, self.step_fn = kernels.slstm, kernels.slstm_step
        else:
            self.xs, self.weights = [randn(B, T, 4)], [randn(4, 4), randn(4)]
            self.fn, self.step_fn = kernels.causal_conv1d, kernels.causal_conv1d_step

    def run(self, backend, rows=slice(None), steps=slice(None), reset=None, state=None):
        xs = [x[rows, steps] for x in self.xs]
        reset = self.reset[rows, steps] if reset is None else reset
        return self.fn(*xs, *self.weights, reset, state, backend=backend)


def leaves(state):
    return (state,) if isinstance(state, torch.Tensor) else state


def assert_close(a, b, tol=1e-10):
    for x, y in zip((a[0], *leaves(a[1])), (b[0], *leaves(b[1])), strict=True):
        torch.testing.assert_close(x, y, rtol=tol, atol=tol)


CELLS = pytest.mark.parametrize("name", ["mlstm", "slstm", "conv"])


@CELLS
@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("grad", [False, True])
def test_steps_equal_the_sequence(name, backend, dtype, grad):
    cell, state, hs = Cell(name, dtype), None, []
    with torch.set_grad_enabled(grad):
        for t in range(T):
            xs = [x[:, t] for x in cell.xs]
            before = None if state is None else [s.clone() for s in leaves(state)]
            h, new = cell.step_fn(*xs, *cell.weights, cell.reset[:, t], state, backend=backend)
            if before is not None:  # the state handed in is not written to
                assert all(map(torch.equal, before, leaves(state)))
            state = new
            hs.append(h)
        whole = cell.run(backend)
    tol = 1e-10 if dtype == torch.float64 else 1e-5
    scale = max(1.0, whole[0].abs().max().item())
    assert_close((torch.stack(hs, 1), state), whole, tol * scale)


@CELLS
@BACKENDS
def test_pieces_with_carried_state_equal_the_whole(name, backend):
    cell, state, hs = Cell(name), None, []
    for piece in (slice(0, 1), slice(1, 9), slice(9, T)):
        h, state = cell.run(backend, steps=piece, state=state)
        hs.append(h)
    assert_close((torch.cat(hs, 1), state), cell.run(backend))


@CELLS
@BACKENDS
def test_reset_inside_a_chunk_equals_two_sequences(name, backend):
    cell = Cell(name)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 10] = True
    whole = cell.run(backend, reset=reset)
    none = torch.zeros(B, T, dtype=torch.bool)
    first = cell.run(backend, steps=slice(0, 10), reset=none[:, :10])
    second = cell.run(backend, steps=slice(10, T), reset=none[:, 10:])
    assert_close(whole, (torch.cat([first[0], second[0]], 1), second[1]))


@CELLS
@BACKENDS
def test_one_rows_reset_never_touches_another_row(name, backend):
    cell = Cell(name)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[1, 5] = True
    quiet, (loud, _) = (
        cell.run(backend, reset=torch.zeros_like(reset)),
        cell.run(backend, reset=reset),
    )
    torch.testing.assert_close(loud[[0, 2]], quiet[0][[0, 2]], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(loud[1, 5:], quiet[0][1, 5:])


@CELLS
@BACKENDS
def test_nothing_of_the_old_state_survives_a_reset_not_even_nan(name, backend):
    cell = Cell(name)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 0] = True
    fresh = cell.run(backend, reset=reset)
    old = cell.run(backend)[1]
    bad = tuple(torch.full_like(s, torch.nan) for s in leaves(old))
    bad = bad[0] if isinstance(old, torch.Tensor) else bad
    assert_close(cell.run(backend, reset=reset, state=bad), fresh, 1e-12)
    xs = [x[:, 0] for x in cell.xs]
    with torch.no_grad():
        h, _ = cell.step_fn(*xs, *cell.weights, reset[:, 0], bad, backend=backend)
    torch.testing.assert_close(h, fresh[0][:, 0], rtol=1e-12, atol=1e-12)


@CELLS
@BACKENDS
def test_no_gradient_flows_across_a_reset(name, backend):
    cell = Cell(name)
    cell.xs = [x.requires_grad_() for x in cell.xs]
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 10] = True
    h, state = cell.run(backend, reset=reset)
    loss = h[:, 10:].square().sum() + sum(s.sum() for s in leaves(state))
    for g in torch.autograd.grad(loss, cell.xs):
        assert g[:, :10].abs().max() < 1e-12
        assert g[:, 10:].abs().max() > 1e-3

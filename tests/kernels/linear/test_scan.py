import pytest
import torch

from xlstm_rl.kernels.linear import reference
from xlstm_rl.kernels.linear.scan import linear_scan

B, D = 3, 5


@pytest.mark.parametrize("share", [None, 0.0, 0.2, 1.0])
@pytest.mark.parametrize("length", [1, 2, 7, 64, 65])
def test_the_scan_and_all_its_gradients_are_those_of_the_steps(length, share):
    torch.manual_seed(0)
    a = torch.rand(B, length, D, dtype=torch.float64, requires_grad=True)
    b = torch.randn(B, length, D, dtype=torch.float64, requires_grad=True)
    state = torch.randn(B, D, dtype=torch.float64, requires_grad=True)
    reset = None if share is None else torch.rand(B, length) < share
    results = []
    for scan in (linear_scan, reference.linear_scan):
        h, after = scan(a, b, reset, state)
        loss = (h * torch.arange(D)).sum() + after.square().sum()
        grads = torch.autograd.grad(loss, [a, b, state], materialize_grads=True, allow_unused=True)
        results.append((h, after, *grads))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_a_reset_at_the_first_step_hides_even_a_ruined_state():
    a, b = torch.rand(2, B, 4, D, dtype=torch.float64).unbind(0)
    reset = torch.zeros(B, 4, dtype=torch.bool)
    reset[:, 0] = True
    ruined = torch.full((B, D), float("nan"), dtype=torch.float64)
    h, _ = linear_scan(a, b, reset, ruined)
    torch.testing.assert_close(h, linear_scan(a, b, None, torch.zeros_like(ruined))[0])

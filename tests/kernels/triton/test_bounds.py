"""The check under which all interpreted kernels run does catch a kernel that goes astray."""

import pytest
import torch
import triton
import triton.language as tl

from xlstm_rl.kernels.launch import interpreting


@triton.jit
def _copy(x, y, n_x, n_y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < n_x, other=0.0), mask=at < n_y)


@pytest.fixture(autouse=True)
def _interpreted():
    if not interpreting():
        pytest.skip("needs TRITON_INTERPRET=1, which is set where there is no GPU")


def test_a_kernel_inside_its_tensors_passes():
    x, y = torch.randn(7), torch.zeros(7)
    _copy[(1,)](x, y, 7, 7, BLOCK=8)
    assert torch.equal(x, y)


@pytest.mark.parametrize(("n_x", "n_y", "what"), [(8, 7, "read 1 of 8"), (7, 8, "wrote 1 of 8")])
def test_a_kernel_outside_is_caught(n_x, n_y, what):
    room = torch.zeros(2, 100)  # what lies behind the tensor is ours, too: only the check can tell
    x, y = room[0, :7], room[1, :7]
    with pytest.raises(Exception, match=what):
        _copy[(1,)](x, y, n_x, n_y, BLOCK=8)

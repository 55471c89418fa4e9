"""Calls in a row, the rows that they work on, and sums between them."""

import pytest
import torch
from torch import Tensor

from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.kernels.native.held import NotCoveredError
from xlstm_rl.kernels.native.library import native_threads
from xlstm_rl.kernels.native.program import Program, Rows, sum_into

pytestmark = pytest.mark.skipif(not LOADED, reason="needs the native library")


def _tensors() -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [
        torch.randn(7, 3, 5, generator=draw),
        torch.randn(7, generator=draw),
        torch.randint(9, (7, 4), generator=draw),
        torch.rand(7, 13, generator=draw) < 0.5,
        torch.randn(7, 2000, generator=draw).double(),
        torch.zeros(7, 0),
    ]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.each_value
def test_rows_are_those_of_torch(threads: int) -> None:
    tensors = _tensors()
    rows = Rows(tensors, 4)
    program = Program([rows.call])
    for numbers in ([6, 0, 3, 3], [1, 2, 4, 5]):
        rows.choose(numbers)
        with native_threads(threads):
            assert program.run() == 0
        for source, taken in zip(tensors, rows.taken, strict=True):
            assert taken.dtype == source.dtype
            assert torch.equal(taken, source[numbers])


@pytest.mark.parametrize("number", [-1, 7, 2**40])
def test_a_number_of_no_row_takes_none(number: int) -> None:
    rows = Rows(_tensors(), 2)
    program = Program([rows.call])
    rows.choose([1, 2])
    assert program.run() == 0
    rows.choose([3, number])
    assert program.run() == 1
    assert torch.equal(rows.taken[0], _tensors()[0][[1, 2]])


def test_rows_that_c_cannot_read_are_refused() -> None:
    for tensors in ([torch.zeros(4, 3).T, torch.zeros(3)], [torch.zeros(4), torch.zeros(3)]):
        with pytest.raises(NotCoveredError):
            Rows(tensors, 2)
    with pytest.raises(ValueError, match="2 rows are taken, got 3 numbers"):
        Rows(_tensors(), 2).choose([0, 1, 2])


@pytest.mark.parametrize("size", [0, 1, 17, 4096, 9001])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.each_value
def test_a_sum_is_that_of_torch(size: int, threads: int) -> None:
    torch.manual_seed(size)
    a, b = torch.randn(size), torch.randn(size)
    wanted, kept = a + b, b.clone()
    with native_threads(threads):
        assert Program([sum_into(a, b)]).run() == 0
    assert torch.equal(a, wanted) and torch.equal(b, kept)


def test_behind_a_call_that_fails_no_other_is_made() -> None:
    rows = Rows(_tensors(), 1)
    a, b = torch.ones(3), torch.ones(3)
    program = Program([sum_into(a, b), rows.call, sum_into(a, b)])
    rows.choose([9])
    assert program.run() == 2
    assert a.tolist() == [2.0] * 3
    rows.choose([0])
    assert program.run() == 0
    assert a.tolist() == [4.0] * 3
    assert Program([]).run() == 0

"""The number of threads may change between any two calls: memory was laid out for the first one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from xlstm_rl import MemoryConfig, make_memory
from xlstm_rl.kernels import causal_conv1d, mlstm, slstm
from xlstm_rl.kernels.native import library
from xlstm_rl.kernels.native.arguments import struct
from xlstm_rl.kernels.native.choose import LOADED
from xlstm_rl.policy.dense import MLP

pytestmark = pytest.mark.skipif(not LOADED, reason="needs the native library")

B, T, D = 6, 40, 24


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _memory(**config: Any) -> Any:
    memory = make_memory(MemoryConfig(width=D, **config))
    x, reset = torch.randn(B, T, D, requires_grad=True), torch.rand(B, T) < 0.1
    return lambda: memory(x, None, reset)[0], (x, *memory.parameters())


def _mlstm() -> Any:
    x = [torch.randn(B, T, 2, 8, requires_grad=True) for _ in range(3)]
    gates = [torch.randn(B, T, 2, requires_grad=True) for _ in range(2)]
    return lambda: mlstm(*x, *gates)[0], (*x, *gates)


def _slstm() -> Any:
    x = torch.randn(B, T, 4, 2, 8, requires_grad=True)
    r, b = (torch.randn(4, 2, 8, *n, requires_grad=True) for n in ((8,), ()))
    return lambda: slstm(x, r, b)[0], (x, r, b)


def _conv() -> Any:
    x, w = torch.randn(B, T, D, requires_grad=True), torch.randn(D, 4, requires_grad=True)
    return lambda: causal_conv1d(x, w, None)[0], (x, w)


def _dense() -> Any:
    layers = MLP(nn.Linear(D, 70), nn.Tanh(), nn.Linear(70, 5))
    x = torch.randn(B * T, D, requires_grad=True)
    return lambda: layers(x), (x, *layers.parameters())


MADE = {
    "m block": lambda: _memory(pattern="m", num_heads=2),
    "s block": lambda: _memory(pattern="s", num_heads=2),
    "lstm": lambda: _memory(kind="lstm"),
    "gru": lambda: _memory(kind="gru"),
    "mlstm": _mlstm,
    "slstm": _slstm,
    "conv1d": _conv,
    "dense": _dense,
}


@pytest.mark.parametrize("threads", [(1, 3), (3, 1)])
@pytest.mark.parametrize("name", MADE)
def test_between_forward_and_backward(name: str, threads: tuple[int, int]) -> None:
    run, inputs = MADE[name]()
    found = []
    for forward, backward in ((1, 1), threads):
        torch.set_num_threads(forward)
        y = run()
        torch.set_num_threads(backward)
        used = [x for x in inputs if x.requires_grad]
        grads = torch.autograd.grad((y * y).sum(), used, allow_unused=True)
        found.append((y.detach(), *(g for g in grads if g is not None)))
    assert len(found[0]) > 1
    for one, other in zip(*found, strict=True):
        # to the bit but for torch's layer norm behind blocks, whose sums depend on threads
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(one.abs().max()))


@pytest.mark.parametrize(
    ("torchs", "laid_out", "expected"), [(4, 1, 1), (4, 3, 3), (2, 3, 2), (3, None, 3)]
)
def test_a_call_runs_on_no_more_threads_than_its_memory_has_room_for(
    monkeypatch: pytest.MonkeyPatch, torchs: int, laid_out: int | None, expected: int
) -> None:
    found: list[int] = []

    class Loaded:
        xl_set_threads = staticmethod(found.append)

    monkeypatch.setattr(library, "_loaded", lambda: (Loaded, "", None))
    arguments = struct("a", "count" if laid_out is None else "count workers", "x")()
    if laid_out is not None:
        arguments.workers = laid_out
    torch.set_num_threads(torchs)
    assert library.call(lambda _: 0, arguments) == 0
    assert found == [expected]

"""Where cuDNN may use TF32, and that LSTM and GRU do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from xlstm_rl import MemoryConfig, make_memory
from xlstm_rl.memory import cudnn


@pytest.fixture(autouse=True)
def tf32_is_on() -> Iterator[None]:
    """As torch has it by default, before and after."""
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32 = True


class Asked(torch.autograd.Function):
    """Writes down, forward and backward, whether cuDNN may use TF32."""

    found: list[bool]

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        Asked.found = [torch.backends.cudnn.allow_tf32]
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        Asked.found.append(torch.backends.cudnn.allow_tf32)
        return grad[0]


def test_it_is_off_inside_alone_and_on_again_behind_an_error() -> None:
    with pytest.raises(ValueError, match="inside"), cudnn.without_tf32():
        assert not torch.backends.cudnn.allow_tf32
        raise ValueError("inside")
    assert torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    with cudnn.without_tf32():
        assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "rnn"), reason="torch before 2.9")
def test_a_precision_of_its_own_for_rnns_holds() -> None:
    torch.backends.cudnn.rnn.fp32_precision = "ieee"
    with cudnn.without_tf32():
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    assert torch.backends.cudnn.rnn.fp32_precision == "ieee"
    torch.backends.cudnn.rnn.fp32_precision = "tf32"


def test_it_is_off_in_the_backward_of_the_named_node_each_time() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    y = Asked.apply(x).transpose(0, 1)
    cudnn.keep_backward_in_float32(y, "AskedBackward")
    for _ in range(2):
        y.sum().backward(retain_graph=True)
        assert torch.backends.cudnn.allow_tf32
    assert Asked.found == [True, False, False]


def test_without_such_a_node_nothing_happens() -> None:
    for y in (torch.randn(3), 2 * torch.randn(3, requires_grad=True)):
        cudnn.keep_backward_in_float32(y)


@pytest.mark.parametrize("told", ["highest", "high"])
def test_on_a_gpu_alone_and_unless_tf32_will_do(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    class OnGPU(Tensor):
        is_cuda = True

    entered: list[None] = []

    @contextmanager
    def counted() -> Iterator[None]:
        entered.append(None)
        yield

    monkeypatch.setattr(cudnn, "without_tf32", counted)
    monkeypatch.setattr(cudnn, "tf32_will_do", lambda: told == "high")
    x = torch.zeros(1, 2, 3)
    for given in (x, x.as_subclass(OnGPU)):
        cudnn.run_in_float32(lambda x, state: (x, state), given, ())
    assert len(entered) == (told == "highest")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_on_a_gpu_a_sequence_is_that_of_a_cpu(kind: str) -> None:
    memory = make_memory(MemoryConfig(kind=kind, width=128, num_blocks=2))
    x, reset = torch.randn(5, 60, 128), torch.rand(5, 60) < 0.1
    found = []
    for device in ("cpu", "cuda"):
        memory.to(device).zero_grad()
        y, after = memory(x.to(device), None, reset.to(device))
        (y**2).mean().backward()
        grads = [weight.grad.cpu() for weight in memory.parameters() if weight.grad is not None]
        found.append([y.cpu(), *(one.cpu() for one in after.values()), *grads])
    assert torch.backends.cudnn.allow_tf32
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, atol=1e-5, rtol=1e-4)

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from xlstm_rl.kernels.native import choose
from xlstm_rl.kernels.native.choose import takes_native

X = torch.ones(2, 3)


class Subclass(Tensor):
    """A tensor that torch treats in a way of its own."""


def seen(run: Callable[[Callable[[Tensor], Tensor]], object], backend: str = "auto") -> bool:
    """The choice in a function that ``run`` runs as it likes."""
    choices = []

    def function(x: Tensor) -> Tensor:
        choices.append(takes_native(backend, x))
        return x.sum()

    run(function)
    (choice,) = set(choices)
    return choice


@pytest.mark.parametrize("backend", ["auto", "native"])
def test_float32_on_the_cpu_is_native(backend: str) -> None:
    assert takes_native(backend, X)
    assert takes_native(backend, torch.nn.Parameter(X), whole_block=True)
    assert takes_native(backend, X.clone().requires_grad_())
    with torch.no_grad(), torch.inference_mode():
        assert takes_native(backend, X)


@pytest.mark.parametrize("backend", ["torch", "reference", "triton", "nativ"])
def test_another_backend_is_not(backend: str) -> None:
    assert not takes_native(backend, X)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (X.double(), "computes in float32, and the inputs are float64"),
        (X.bfloat16(), "computes in float32, and the inputs are bfloat16"),
        (X.to("meta"), "runs on the CPU, and the inputs are on meta"),
    ],
    ids=["double", "half", "device"],
)
def test_other_inputs_are_left_alone_and_refused_where_it_is_demanded(
    x: Tensor, reason: str
) -> None:
    assert not takes_native("auto", x)
    with pytest.raises(RuntimeError, match=f"backend='native' cannot run here: it {reason}"):
        takes_native("native", x)


def test_without_the_library_auto_is_not_and_native_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choose, "LOADED", False)
    monkeypatch.setattr(choose, "why_not_native", lambda: "it was not built")
    assert not takes_native("auto", X)
    with pytest.raises(RuntimeError, match="it was not built"):
        takes_native("native", X)


def test_autocast_changes_a_block_and_no_cell() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert takes_native("auto", X)
        assert not takes_native("auto", X, whole_block=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        assert takes_native("auto", X, whole_block=True)


@pytest.mark.parametrize("backend", ["auto", "native"])
@pytest.mark.parametrize(
    "run",
    [
        lambda f: torch.func.vmap(f)(X),
        lambda f: torch.func.grad(f)(X),
        lambda f: torch.func.jvp(f, (X,), (X,)),
        lambda f: torch.jit.trace(f, X, check_trace=False),
        lambda f: torch.fx.experimental.proxy_tensor.make_fx(f)(X),
        lambda f: f(X.as_subclass(Subclass)),
    ],
    ids=["vmap", "grad", "jvp", "trace", "make_fx", "subclass"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_follows_operations_is_left_to_them(
    run: Callable[[Callable[[Tensor], Tensor]], object], backend: str
) -> None:
    assert not seen(run, backend)


def test_modes_that_follow_operations_are_left_to_them() -> None:
    with FakeTensorMode():
        assert not takes_native("auto", torch.empty(2))
        assert not takes_native("auto", X)
    with FlopCounterMode(display=False):
        assert not takes_native("auto", X)
    with forward_ad.dual_level():
        assert not takes_native("auto", X)
    with torch.device("cpu"):
        assert takes_native("auto", X)


def test_compiled_code_is_native_and_an_exported_program_is_not() -> None:
    class Module(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if takes_native("auto", x, whole_block=True) else x - 1

    # torch 2.8 tells compiled code that it is being exported: it stays on torch then
    exporting = torch.compile(lambda x: x + int(torch.compiler.is_exporting()), backend="eager")
    expected = 2 - 2 * int(exporting(torch.zeros(1)))
    assert torch.compile(Module(), backend="eager", fullgraph=True)(X).eq(expected).all()
    assert torch.export.export(Module(), (X,)).module()(X).eq(0).all()

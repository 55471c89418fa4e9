"""Against the published package: the same weights give the same outputs, sequence and step."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from xlstm_rl.memory import from_reference

xlstm = pytest.importorskip("xlstm", reason="the PyPI package xlstm is the oracle of these tests")

T = 27
Perturb = Callable[[nn.Module], None]


def make_stack(
    slstm_at: tuple[int, ...] = (),
    num_blocks: int = 1,
    width: int = 64,
    mlstm: dict[str, object] | None = None,
    slstm: dict[str, object] | None = None,
    feed_forward: dict[str, object] | None = None,
    **stack: object,
) -> nn.Module:
    """Build an xLSTMBlockStack of the package."""
    feed_forward = {"proj_factor": 4 / 3} | (feed_forward or {})
    config = xlstm.xLSTMBlockStackConfig(
        mlstm_block=xlstm.mLSTMBlockConfig(mlstm=xlstm.mLSTMLayerConfig(**(mlstm or {}))),
        slstm_block=xlstm.sLSTMBlockConfig(
            slstm=xlstm.sLSTMLayerConfig(backend="vanilla", **(slstm or {})),
            feedforward=xlstm.FeedForwardConfig(**feed_forward),
        ),
        context_length=64,
        num_blocks=num_blocks,
        embedding_dim=width,
        slstm_at=list(slstm_at),
        **stack,
    )
    module: nn.Module = xlstm.xLSTMBlockStack(config)
    return module


STACKS = {
    "m": {},
    "s": {"slstm_at": (0,)},
    "ms": {"num_blocks": 2, "slstm_at": (1,)},
    "smmsm": {"num_blocks": 5, "slstm_at": (0, 3), "width": 32},
    "narrow": {"num_blocks": 2, "slstm_at": (0,), "width": 16},
    "wide, 1 head": {
        "num_blocks": 2,
        "slstm_at": (1,),
        "width": 128,
        "mlstm": {"num_heads": 1},
        "slstm": {"num_heads": 1},
    },
    "8 and 2 heads": {
        "num_blocks": 2,
        "slstm_at": (1,),
        "mlstm": {"num_heads": 8},
        "slstm": {"num_heads": 2},
    },
    "width no multiple of 64": {"num_blocks": 2, "slstm_at": (1,), "width": 40},
    "own inner widths": {
        "num_blocks": 2,
        "slstm_at": (1,),
        "width": 48,
        "mlstm": {"proj_factor": 1.5, "round_proj_up_to_multiple_of": 8},
        "feed_forward": {"proj_factor": 2.7, "round_proj_up_to_multiple_of": 4},
    },
    "own windows and blocks": {
        "num_blocks": 2,
        "slstm_at": (0,),
        "mlstm": {"conv1d_kernel_size": 2, "qkv_proj_blocksize": 16},
        "slstm": {"conv1d_kernel_size": 3},
    },
    "no convolution in sLSTM": {
        "num_blocks": 2,
        "slstm_at": (1,),
        "slstm": {"conv1d_kernel_size": 0},
    },
    "biases": {
        "num_blocks": 2,
        "slstm_at": (1,),
        "bias": True,
        "feed_forward": {"bias": True, "act_fn": "swish"},
    },
    "relu^2, no final norm": {
        "num_blocks": 2,
        "slstm_at": (1,),
        "add_post_blocks_norm": False,
        "feed_forward": {"act_fn": "relu^2"},
    },
    "head norm without weight": {"slstm_at": (0,), "slstm": {"group_norm_weight": False}},
    "standard sLSTM weights": {
        "slstm_at": (0,),
        "slstm": {"recurrent_weight_init": "standard", "bias_init": "small_init"},
    },
}


@pytest.fixture(params=STACKS.values(), ids=STACKS.keys())
def stack(request: pytest.FixtureRequest, perturb: Perturb) -> nn.Module:
    module = make_stack(**request.param)
    perturb(module)
    return module


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    # 1e-5 of the largest output: without the final norm the residual stream reaches 30
    torch.testing.assert_close(
        ours, theirs, atol=1e-5 * max(1.0, float(theirs.abs().max())), rtol=0
    )


def test_sequence_equals_the_package(stack: nn.Module) -> None:
    x = torch.randn(3, T, stack.config.embedding_dim)
    with torch.no_grad():
        assert_close(from_reference(stack)(x)[0], stack(x))


def test_steps_equal_the_sequence_of_the_package(stack: nn.Module) -> None:
    memory = from_reference(stack)
    x = torch.randn(3, T, memory.width)
    state = None
    with torch.no_grad():
        theirs = stack(x)
        for t in range(T):
            y, state = memory.step(x[:, t], state)
            assert_close(y, theirs[:, t])


def test_resets_equal_separate_sequences_of_the_package(stack: nn.Module) -> None:
    memory = from_reference(stack)
    x = torch.randn(2, T, memory.width)
    reset = torch.zeros(2, T, dtype=torch.bool)
    reset[0, [5, 6, 20]] = True
    reset[1, 0] = True
    with torch.no_grad():
        y, _ = memory(x, None, reset)
        for begin, end in ((0, 5), (5, 6), (6, 20), (20, T)):
            assert_close(y[:1, begin:end], stack(x[:1, begin:end]))
        assert_close(y[1:], stack(x[1:]))


@pytest.mark.parametrize("name", ["m", "s", "ms"])
def test_gradients_equal_the_package(name: str, perturb: Perturb) -> None:
    stack = make_stack(**STACKS[name]).double()  # type: ignore[arg-type]
    perturb(stack)
    memory = from_reference(stack)
    x = torch.randn(2, T, 64, dtype=torch.float64)
    direction = torch.randn_like(x)

    def gradient(module: nn.Module) -> Tensor:
        inputs = x.clone().requires_grad_()
        y = module(inputs)
        (grad,) = torch.autograd.grad(
            ((y if isinstance(y, Tensor) else y[0]) * direction).sum(), inputs
        )
        return grad

    # their mLSTM adds 1e-6 to its denominator, ours does not
    torch.testing.assert_close(gradient(memory), gradient(stack), atol=1e-4, rtol=1e-4)


def test_the_weights_are_copies_of_their_dtype(perturb: Perturb) -> None:
    stack = make_stack(num_blocks=2, slstm_at=(1,)).double()
    memory = from_reference(stack)
    assert all(p.dtype == torch.float64 for p in memory.parameters())
    x = torch.randn(2, T, 64, dtype=torch.float64)
    before = memory(x)[0]
    perturb(stack)
    torch.testing.assert_close(memory(x)[0], before, atol=0, rtol=0)


def test_every_weight_is_taken_over(stack: nn.Module) -> None:
    count = sum(p.numel() for p in stack.parameters())
    if not getattr(stack.config.slstm_block.slstm, "group_norm_weight", True):
        count += stack.config.embedding_dim  # ours has the weight, filled with ones
    assert sum(p.numel() for p in from_reference(stack).parameters()) == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 0.1}, r"dropout=0\.1"),
        ({"slstm_at": (0,), "slstm": {"function": "lstm"}}, r"slstm\.function='lstm'"),
        (
            {"slstm_at": (0,), "slstm": {"gradient_recurrent_cut": True}},
            r"slstm\.gradient_recurrent_cut=True",
        ),
        (
            {"slstm_at": (0,), "slstm": {"forward_clipval": 1.0}},
            r"slstm\.forward_clipval=1\.0",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_reference(make_stack(**options))  # type: ignore[arg-type]


def test_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="got a Linear, expected an xLSTMBlockStack"):
        from_reference(nn.Linear(2, 2))

"""The public door: what does not fit is refused, and the message says what to do."""

import pytest
import torch

from xlstm_rl import kernels

B, T, H, K, V = 2, 3, 2, 4, 5


def good():
    q, k, v = torch.zeros(B, T, H, K), torch.zeros(B, T, H, K), torch.zeros(B, T, H, V)
    i, f = torch.zeros(B, T, H), torch.zeros(B, T, H)
    state = (torch.zeros(B, H, K, V), torch.zeros(B, H, K), torch.zeros(B, H))
    return {"q": q, "k": k, "v": v, "i": i, "f": f, "state": state}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"k": torch.zeros(B, T, H, K + 1)},
            r"k has shape \[2, 3, 2, 5\], expected \[B, T, H, K\]",
        ),
        ({"q": torch.zeros(T, H, K)}, r"q has shape .* expected 4 axes \[B, T, H, K\]"),
        ({"i": torch.zeros(B, T, H, dtype=torch.int64)}, r"i has dtype torch.int64, expected"),
        ({"v": torch.zeros(B, T, H, V).double()}, r"v has dtype torch.float64, expected"),
        ({"f": torch.zeros(B, T, H, device="meta")}, r"f is on meta but q on cpu"),
        ({"reset": torch.zeros(B, T)}, r"reset has dtype torch.float32.*reset.bool\(\)"),
        ({"reset": torch.zeros(B, dtype=torch.bool)}, r"reset has shape \[2\]"),
        ({"state": tuple(s[:1] for s in good()["state"])}, r"state C has shape \[1, 2, 4, 5\]"),
        ({"state": torch.zeros(3)}, r"state is a Tensor.*\(C, n, m\)"),
        ({"state": (None, None, None)}, r"state is a tuple, expected None"),
        ({"backend": "tritn"}, r"did you mean 'triton'"),
        ({"forget_gate": "sigmod"}, r"did you mean 'sigmoid'"),
        ({"chunk_size": 0}, r"chunk_size=0"),
        ({key: good()[key][:, :0] for key in "qkvif"}, r"T = 0"),
    ],
)
def test_mlstm_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        kernels.mlstm(**{**good(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(B, T, 3, H, K)}, r"x has shape \[2, 3, 3, 2, 4\]"),
        ({"x": torch.zeros(B, T, 4, H, K).long()}, r"x has dtype torch.int64"),
        ({"R": torch.zeros(4, H, K, K + 1)}, r"R has shape"),
        ({"b": torch.zeros(4, H)}, r"b has shape"),
        ({"state": (torch.zeros(B, H, K),) * 3}, r"\(h, c, n, m\)"),
        ({"reset": torch.zeros(B, T).int()}, r"reset has dtype torch.int32"),
    ],
)
def test_slstm_refuses(change, message):
    args = {
        "x": torch.zeros(B, T, 4, H, K),
        "R": torch.zeros(4, H, K, K),
        "b": torch.zeros(4, H, K),
    }
    with pytest.raises(ValueError, match=message):
        kernels.slstm(**{**args, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(5, 4)}, r"weight has shape"),
        ({"weight": torch.zeros(6, 0)}, r"no taps"),
        ({"bias": torch.zeros(5)}, r"bias has shape"),
        ({"state": torch.zeros(B, 4, 6)}, r"state has shape \[2, 4, 6\], expected \[B, W-1, C\]"),
        ({"x": torch.zeros(B, 0, 6)}, r"T = 0"),
    ],
)
def test_causal_conv1d_refuses(change, message):
    args = {"x": torch.zeros(B, T, 6), "weight": torch.zeros(6, 4), "bias": None}
    with pytest.raises(ValueError, match=message):
        kernels.causal_conv1d(**{**args, **change})


def test_steps_refuse_a_time_axis():
    with pytest.raises(ValueError, match="expected 3 axes"):
        kernels.mlstm_step(**good())


def test_a_backend_that_cannot_run_says_what_to_use():
    with pytest.raises(RuntimeError, match="backend='torch'"):
        kernels.mlstm(**good(), backend="triton")

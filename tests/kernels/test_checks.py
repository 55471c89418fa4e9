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
        ({"state": (None, 1)}, r"state is a tuple of NoneType, int, expected None"),
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


def test_a_backend_that_cannot_run_says_what_to_use(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(RuntimeError, match=r"on cpu.*TRITON_INTERPRET=1.*backend='auto'"):
        kernels.mlstm(**good(), backend="triton")
    monkeypatch.setattr(kernels.launch, "HAS_TRITON", False)
    with pytest.raises(RuntimeError, match="pip install triton"):
        kernels.mlstm(**good(), backend="triton")


def test_triton_refuses_other_dtypes_and_larger_heads(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    inputs = {key: x.double() for key, x in good().items() if key != "state"}
    with pytest.raises(RuntimeError, match=r"float32, bfloat16 and float16, not float64"):
        kernels.mlstm(**inputs, backend="triton")
    x, R, b = torch.zeros(1, 1, 4, 1, 257), torch.zeros(4, 1, 257, 257), torch.zeros(4, 1, 257)
    with pytest.raises(ValueError, match="head size 257 is over 256"):
        kernels.slstm(x, R, b, backend="triton")


def test_inplace_overwrites_the_state_and_refuses_what_it_cannot():
    q, k, v, i, f = (x[:, 0] for key, x in good().items() if key != "state")
    state = tuple(torch.ones_like(x) for x in good()["state"])
    want = kernels.mlstm_step(q, k, v, i, f, None, state)[1]
    after = kernels.mlstm_step(q, k, v, i, f, None, state, inplace=True)[1]
    assert all(a is s for a, s in zip(after, state, strict=True))
    assert all(torch.equal(a, w) for a, w in zip(after, want, strict=True))
    with pytest.raises(ValueError, match="needs a state"):
        kernels.mlstm_step(q, k, v, i, f, inplace=True)
    with pytest.raises(RuntimeError, match="no_grad"):
        kernels.mlstm_step(q.requires_grad_(), k, v, i, f, None, state, inplace=True)

import pytest
import torch

from xlstm_rl.kernels import backends, causal_conv1d
from xlstm_rl.kernels.checks import BACKENDS


def test_every_name_is_explained() -> None:
    for known in (backends(), backends("meta"), backends(dtype=torch.float64)):
        assert set(known) == set(BACKENDS)
        assert all(known[name].runs for name in ("auto", "reference", "torch"))
        assert known[known["auto"].about].runs
        assert all("\n" not in backend.about for backend in known.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_said_to_run_does_and_the_rest_gives_the_same_reason(dtype: torch.dtype) -> None:
    x, weight = torch.ones(1, 2, 3, dtype=dtype), torch.ones(3, 4, dtype=dtype)
    for name, backend in backends(dtype=dtype).items():
        if backend.runs:
            causal_conv1d(x, weight, None, backend=name)
        else:
            with pytest.raises(RuntimeError) as error:
                causal_conv1d(x, weight, None, backend=name)
            assert backend.about in str(error.value)


def test_auto_is_native_where_native_runs() -> None:
    for dtype in (torch.float32, torch.float64):
        known = backends(dtype=dtype)
        assert known["auto"].about == ("native" if known["native"].runs else "torch")

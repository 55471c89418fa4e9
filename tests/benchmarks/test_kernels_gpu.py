"""The GPU benchmark itself: that every case runs, what it counts, and what it calls a miss."""

import json
import sys
from pathlib import Path

import pytest
import torch

from xlstm_rl.kernels.launch import interpreting

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
needs_interpreter = pytest.mark.skipif(not interpreting(), reason="needs TRITON_INTERPRET=1")


@pytest.fixture
def benchmark(monkeypatch):
    """Return a function that runs the script with arguments and returns its exit status."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import kernels_gpu

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["kernels_gpu.py", *map(str, arguments)])
        return kernels_gpu.main()

    yield run
    for name in [n for n in sys.modules if n in ("gpu", "kernels_gpu") or n.startswith("gpu.")]:
        del sys.modules[name]


def dry_run(benchmark, path, *arguments):
    assert benchmark("--dry-run", "--out", path, *arguments) == 0
    return json.loads(path.read_text())["rows"]


@needs_interpreter
@pytest.mark.parametrize(
    ("only", "ops"),
    [
        ("mlstm .*bfloat16", {"mlstm"}),
        ("slstm .*bfloat16", {"slstm"}),
        ("step .*float32", {"mlstm_step", "slstm_step", "conv_step", "policy_step"}),
    ],
)
def test_each_operation_runs_at_a_tiny_size(benchmark, tmp_path, only, ops):
    rows = dry_run(benchmark, tmp_path / "out.json", "--no-rivals", "--only", only)
    assert {row["op"] for row in rows} == ops
    assert not any(row["absent"] for row in rows)
    assert all(row["contenders"] for row in rows)


@needs_interpreter
@pytest.mark.slow
def test_every_case_runs_and_an_absent_rival_has_a_reason(benchmark, tmp_path):
    rows = dry_run(benchmark, tmp_path / "out.json")
    rivals = {"mlstm_kernels", "flashrnn", "torchrl lstm, resets"}
    assert len(rows) > 10
    for row in rows:
        assert set(row["absent"]) <= rivals
        assert all(": " in why for why in row["absent"].values())
        assert row["op"] != "slstm" or "cudnn lstm, resets" in row["contenders"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_exits_with_2(benchmark, capsys):
    assert benchmark() == 2
    assert "needs a GPU" in capsys.readouterr().err


def test_a_pattern_that_fits_no_case_is_bad_usage(benchmark, capsys):
    with pytest.raises(SystemExit) as error:
        benchmark("--only", "gru")
    assert error.value.code == 2
    assert "fits no case" in capsys.readouterr().err


def test_floors_count_the_tensors_of_a_pass(benchmark):
    from gpu import floors

    B, T, H, K, V = 2, 3, 5, 7, 11
    q, v, gate = B * T * H * K, B * T * H * V, B * T * H
    inputs = 2 * q + v + 2 * gate
    want = 2 * (inputs + v) + inputs  # two passes read them, one h, one dh, their gradients
    assert floors.mlstm(B, T, H, K, V, 4).bytes == 4 * want + 2 * B * T
    x, h, R, b = 4 * B * T * H * K, B * T * H * K, 4 * H * K * K, 4 * H * K
    want = (x + h) + (x + h + h + x) + 3 * (R + b)
    assert floors.slstm(B, T, H, K, 2).bytes == 2 * want + 2 * B * T
    state = torch.empty(B, 3, H).nbytes
    assert floors.conv_step(B, H, 4, 4).bytes == 2 * state + 4 * (2 * B * H + 5 * H) + B


def test_the_longest_of_bytes_operations_and_launch_is_the_floor(benchmark):
    from gpu.floors import Rates, Work

    rates = Rates(copy=10.0, bfloat16=100.0, tf32=50.0, float32=20.0, launch=1.0)
    assert rates.floor(Work(bytes=30, operations=200), "bfloat16") == 3.0
    assert rates.floor(Work(bytes=30, operations=200), "float32") == 10.0
    assert rates.floor(Work(bytes=1, operations=1), "float32") == 1.0


def row(op="mlstm", B=16, floor=2.0, cost=0.01, rival=1.2, error=1e-3):
    return {
        "case": "a case",
        "op": op,
        "dtype": "bfloat16",
        "shape": {"B": B},
        "errors": {"triton, resets": error},
        "contenders": {"triton, resets": {"ratio_to_floor": floor}},
        "ratios": {
            "cost of resets": cost,
            "mlstm_kernels / triton, resets": rival,
            "cudnn lstm / triton projected": 0.1,  # reported only
        },
    }


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ({}, []),
        ({"floor": 3.1}, ["times the floor"]),
        ({"cost": 0.06}, ["cost of resets"]),
        ({"rival": 0.9}, ["mlstm_kernels / triton, resets, at least"]),
        ({"error": float("nan")}, ["error of triton, resets"]),
        ({"op": "mlstm_step", "B": 4096, "floor": 1.6}, ["times the floor"]),
        ({"op": "mlstm_step", "B": 1, "floor": 9.0}, []),
    ],
)
def test_a_missed_aim_is_found(benchmark, figures, missed):
    from gpu.aims import judge

    assert [v.aim for v in judge(row(**figures)) if not v.met] == missed


def test_a_kernel_of_ours_that_does_not_run_misses_its_aim(benchmark):
    from gpu.aims import judge

    assert not judge({"case": "a case", "op": "slstm", "contenders": {}})[0].met


def test_packed_episodes_are_the_sequences_between_resets(benchmark):
    from gpu.rivals import packed_order

    reset = torch.tensor([[False, False, True, False, False], [True, True, False, False, False]])
    episodes = [[0, 1], [2, 3, 4], [5], [6, 7, 8, 9]]  # positions in [B * T]
    index, sizes = packed_order(reset)
    assert sizes.tolist() == [4, 3, 2, 1]
    packed = torch.nn.utils.rnn.pack_sequence(
        [torch.tensor(e) for e in sorted(episodes, key=len, reverse=True)]
    )
    assert index.tolist() == packed.data.tolist()
    assert sizes.tolist() == packed.batch_sizes.tolist()

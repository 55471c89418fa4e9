"""The check that compiles all Triton kernels must find what it is there to find."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", "3.6", reason="the check reads what Triton 3.6 reports")
ROOT = Path(__file__).parents[1]
GOOD = ("--kernels", "good", "--classes", "sm_80,gfx942")


def check(folder, *options):
    """Run the check on the toys; return its exit status, its table by kernel, and its errors."""
    env = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "TRITON_INTERPRET": "1"}
    out = folder / "report.json"
    command = [sys.executable, ".ci/check_kernels.py", "--cases", "kernel_check_toys"]
    command += ["--json", str(out), "--jobs", "1", *options]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert not done.stderr
    report = json.loads(out.read_text())
    return done.returncode, report["rows"], report["errors"]


def test_a_good_kernel_is_compiled_once_per_specialization_and_passes(tmp_path):
    status, rows, errors = check(tmp_path, *GOOD)
    assert (status, errors) == (0, [])
    assert {r["verdict"] for r in rows} == {"ok"}
    assert all(r["registers"] > 0 for r in rows)
    distinct = ["small n=1600", "small n=1601", "small n=1", "small n=2147483648"]
    assert [r["case"] for r in rows if r["class"] == "sm_80"] == [*distinct, "large"]
    assert [r["case"] for r in rows if r["class"] == "gfx942"] == distinct


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A record of the good kernel, and the table that it was made with."""
    folder = tmp_path_factory.mktemp("recorded")
    status, rows, errors = check(folder, *GOOD, "--record", str(folder / "record.json"))
    assert (status, errors) == (0, [])
    return folder / "record.json", rows


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_what_is_recorded_is_judged_without_compiling_but_for_a_share(recorded, tmp_path):
    record, rows = recorded
    status, again, errors = check(tmp_path, *GOOD, "--recorded", str(record))
    assert (status, errors) == (0, [])
    assert without_seconds(again) == without_seconds(rows)
    assert sum(row["seconds"] > 0 for row in again) == 1


@pytest.mark.slow
def test_what_is_not_in_the_record_is_compiled(recorded, tmp_path):
    record = json.loads(recorded[0].read_text())
    absent = set(list(record)[::2])
    part = tmp_path / "part.json"
    part.write_text(json.dumps({key: record[key] for key in record if key not in absent}))
    status, rows, _ = check(tmp_path, *GOOD, "--recorded", str(part))
    assert status == 0
    assert sum(row["seconds"] > 0 for row in rows) >= len(absent)


@pytest.mark.slow
def test_a_record_that_is_not_true_is_an_error(recorded, tmp_path):
    record = json.loads(recorded[0].read_text())
    false = tmp_path / "false.json"
    false.write_text(json.dumps({key: build | {"registers": 1} for key, build in record.items()}))
    status, _, errors = check(tmp_path, *GOOD, "--recorded", str(false))
    assert status == 1
    assert len(errors) == 1
    assert "registers=1," in errors[0]


@pytest.mark.slow
def test_spills_in_a_record_are_spills(recorded, tmp_path):
    record = json.loads(recorded[0].read_text())
    spilling = tmp_path / "spilling.json"
    spilling.write_text(json.dumps({key: b | {"spills": "8+8 B"} for key, b in record.items()}))
    status, rows, _ = check(tmp_path, *GOOD, "--recorded", str(spilling))
    assert status == 1
    assert "SPILLS" in {row["verdict"] for row in rows}


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    return check(folder, "--kernels", "spilling,wide,wrong,untiled", "--classes", "sm_80,gfx942")


def found(faults, kernel, device_class):
    (row,) = (r for r in faults[1] if r["kernel"] == kernel and r["class"] == device_class)
    return row


@pytest.mark.parametrize("device_class", ["sm_80", "gfx942"])
@pytest.mark.few(1)
def test_a_kernel_that_spills_is_caught(faults, device_class):
    assert faults[0] == 1
    row = found(faults, "held_kernel", device_class)
    assert row["verdict"] == "SPILLS"
    assert row["spills"]


def test_too_much_shared_memory_is_caught(faults):
    row = found(faults, "turned_kernel", "sm_80")
    assert row["verdict"] == f"SHARED MEMORY over {99 * 1024}"
    assert row["shared"] > 99 * 1024


def test_a_kernel_that_does_not_compile_is_caught(faults):
    row = found(faults, "wrong_kernel", "sm_80")
    assert row["verdict"] == "ERROR"
    assert any(e.startswith("wrong_kernel") and "CompilationError" in e for e in faults[2])


def test_a_case_that_raises_or_launches_nothing_is_an_error(faults):
    assert "wrong sm_80 raises: KeyError: 'medium'" in faults[2]
    assert "wrong sm_80 idle: RuntimeError: nothing was launched" in faults[2]


def test_a_tile_that_no_case_asked_for_is_an_error(faults):
    missed = [e for e in faults[2] if e.startswith("spilling: no case met the tiles of")]
    assert [m.split(" of ")[1] for m in missed] == [
        "('TABLE', 'sm_80', 'small')",
        "('TABLE', 'sm_80', 'large')",
        "('TABLE', 'gfx942', 16)",
    ]


def test_an_operation_without_a_table_of_tiles_is_an_error(faults):
    assert "untiled: kernel_check.cases has no dict whose name ends in TABLE" in faults[2]


_SPECIALIZATIONS = """
import sys
sys.path[:0] = [".", ".ci"]
from kernel_check import cases, compilation
from xlstm_rl.kernels import launch

def compiled(B):
    kinds = set()
    for T in (256, None):
        call = cases.Call(B=B, T=T, grad="all" if T else "none", inplace=T is None)
        for case in (
            cases._mlstm(cases.BF16, 64, 64, call),
            cases._slstm(cases.BF16, 64, call),
            cases._conv1d(cases.BF16, 64, call),
        ):
            with launch.recording("sm_90") as recording:
                case.run()
            for kernel, arguments in recording.launches:
                job = compilation.Job("", "", "sm_90", kernel, arguments)
                kinds.add(compilation.specialization(job))
    return kinds

print(len(compiled(16)), *(len(compiled(B) - compiled(16)) for B in (1, 17, 4096)))
"""


def test_a_batch_of_another_size_compiles_nothing_anew():
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    command = [sys.executable, "-c", _SPECIALIZATIONS]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    kernels, *new = map(int, done.stdout.split())
    assert kernels > 10
    assert new == [0, 0, 0]

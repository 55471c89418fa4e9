"""Which cases of Triton's interpreter a day runs."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from . import unchanged_kernels as unchanged

IDS = [f"tests/kernels/triton/test_mlstm.py::test_a[{n}]" for n in range(20)]
IDS += [f"tests/kernels/test_inplace.py::test_b[triton-{n}]" for n in range(20)]
IDS += [f"tests/memory/test_inplace.py::test_b[ms-triton-{n}]" for n in range(20)]
OTHERS = ["tests/kernels/test_inplace.py::test_b[torch-1]", "tests/test_triton.py::test_c"]
OTHERS += [f"tests/policy/test_d.py::test_of_sources_in_no_record[triton-{n}]" for n in range(20)]


class _Item:
    def __init__(self, nodeid: str) -> None:
        self.nodeid, self.marks = nodeid, list[Any]()

    def add_marker(self, mark: Any) -> None:
        self.marks.append(mark.name)


def _run_on(day: date) -> set[str]:
    items: list[Any] = [_Item(one) for one in (*IDS, *OTHERS)]
    unchanged.mark_what_is_unchanged(items, day)
    assert all(item.marks in ([], ["slow"]) for item in items)
    return {item.nodeid for item in items if not item.marks}


@pytest.fixture(autouse=True)
def _record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unchanged, "RECORD", tmp_path / "passed.json")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("XLSTM_RL_ALL_KERNELS", raising=False)
    unchanged.RECORD.write_text(json.dumps(unchanged.state()))


def test_each_case_has_its_turn_and_all_others_run_every_day() -> None:
    first = date(2026, 11, 28)
    days = [_run_on(first + timedelta(n)) for n in range(2 * unchanged.SHARE)]
    assert all(set(OTHERS) < day < {*IDS, *OTHERS} for day in days)
    for own in IDS:
        assert [own in day for day in days].count(True) == 2
    assert days[: unchanged.SHARE] == days[unchanged.SHARE :]


@pytest.mark.parametrize("name", ["sources", "triton", "torch"])
def test_all_run_when_something_is_another_than_recorded(name: str) -> None:
    unchanged.RECORD.write_text(json.dumps({**unchanged.state(), name: "of yesterday"}))
    assert _run_on(date(2026, 11, 28)) == {*IDS, *OTHERS}


@pytest.mark.parametrize("text", ["", "{}", "no json", None])
def test_all_run_without_a_record(text: str | None) -> None:
    unchanged.RECORD.unlink()
    if text is not None:
        unchanged.RECORD.write_text(text)
    assert _run_on(date(2026, 11, 28)) == {*IDS, *OTHERS}


def test_all_run_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLSTM_RL_ALL_KERNELS", "1")
    assert _run_on(date(2026, 11, 28)) == {*IDS, *OTHERS}


def test_a_kernel_that_changes_is_another_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = (
        "kernels/mlstm.py",
        "xlstm_rl/memory/stack.py",
        "tests/kernels/a.py",
        "tests/memory/b.py",
    )
    kept = "kernels/native/adam.py"
    for name in (*changed, kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(unchanged, "ROOT", tmp_path)
    states = [unchanged.state()["sources"]]
    for name in changed:
        (tmp_path / name).write_text("2")
        states.append(unchanged.state()["sources"])
    assert len({*states}) == len(states)
    (tmp_path / kept).write_text("2")
    assert unchanged.state()["sources"] == states[-1]

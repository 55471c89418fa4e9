from pathlib import Path

import pytest

from xlstm_rl.comparing import pool


def test_as_many_run_at_once_as_there_are_processors_for_their_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pool, "_CGROUP", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert pool.processors() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert pool.processors() >= 1

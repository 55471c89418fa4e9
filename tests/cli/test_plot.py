from collections.abc import Callable
from pathlib import Path

import pytest

from xlstm_rl.cli import main


def test_plot_writes_the_figure_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.csv").write_text("step,episode/return\n1,1\n2,2\n")
    out = tmp_path / "figure.svg"
    assert main(["plot", str(tmp_path), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    assert "environment steps" in out.read_text()


def test_a_run_without_metrics_is_one_line_and_no_figure(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "figure.png"
    assert "metrics.csv" in refused("plot", str(tmp_path), "--out", str(out))
    assert not out.exists()

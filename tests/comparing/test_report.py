"""What a report draws and says of runs that are done, and of those that are not."""

from pathlib import Path

from xlstm_rl.comparing.job import DONE, FAILED, Job, Result
from xlstm_rl.comparing.report import Report
from xlstm_rl.comparing.summary import Outcome


def an_outcome(out: Path, seed: int, status: str, steps: int) -> Outcome:
    job = Job("case", "gru", seed, out / f"seed{seed}", {}, {"episodes": 1})
    job.folder.mkdir()
    rows = "".join(f"{at},{seed},100\n" for at in range(100, steps + 1, 100))
    (job.folder / "metrics.csv").write_text(f"step,episode/return,time/sps\n{rows}")
    return Outcome(job, Result(status, returns=[1.0] if status == DONE else []))


def test_a_run_that_failed_is_in_no_curve_and_does_not_cut_it_off(tmp_path: Path) -> None:
    outcomes = [
        *(an_outcome(tmp_path, 0, DONE, 1000), an_outcome(tmp_path, 1, DONE, 900)),
        an_outcome(tmp_path, 2, FAILED, 300),
    ]
    figure = Report(outcomes, 1).figure()
    assert figure is not None
    (axes,) = (one for one in figure.axes if one.get_visible())
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["gru (2 runs)"]
    assert max(float(max(line.get_xdata())) for line in axes.get_lines()) >= 900  # type: ignore[arg-type]


def test_without_a_run_that_is_done_there_is_no_figure(tmp_path: Path) -> None:
    assert Report([an_outcome(tmp_path, 0, FAILED, 300)], 1).figure() is None

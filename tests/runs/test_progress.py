import io
import itertools
import re
import time

import pytest

from xlstm_rl.runs import announcing
from xlstm_rl.runs import progress as progress_module
from xlstm_rl.runs.progress import TrainingProgress, describe


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_lines_are_rare_and_the_last_update_is_always_told() -> None:
    stream = io.StringIO()
    with TrainingProgress(4000, stream, interval=1000.0) as progress:
        for step in (1000, 2000, 3000, 4000):
            progress.update(step, {"episode/return": step / 100, "time/sps": 1234.0})
    first, last = stream.getvalue().splitlines()
    assert "step 1,000" in first
    assert "return 10.0" in first
    assert "100%" in last
    assert "step 4,000" in last
    assert "1,234 steps/s" in last
    assert "0:00:00 left" in last
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_stream_that_nobody_reads_stops_training_and_raises_nothing() -> None:
    class Unread(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with TrainingProgress(4000, Unread(), interval=0.0) as progress:
        assert progress.update(1000, {}) is False
        assert progress.update(2000, {}) is False
    with TrainingProgress(4000, Unread(), interval=1000.0) as progress:
        progress.update(1000, {})
        progress.update(2000, {})  # told on leaving
    assert progress.is_unread


def test_no_line_is_told_twice() -> None:
    stream = io.StringIO()
    with TrainingProgress(2, stream, interval=0.0) as progress:
        progress.update(1, {})
        progress.update(2, {})
    assert len(stream.getvalue().splitlines()) == 2


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["plain", "terminal"])
def test_the_headline_is_shown_once_and_first(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    headline = "memory: [bold] on a backend" + " with a reason" * 20
    with TrainingProgress(2, stream, interval=0.0, headline=headline) as progress:
        progress.update(1, {})
        progress.update(2, {})
    shown = " ".join(stream.getvalue().split())  # a terminal breaks it between words
    assert shown.count(headline) == 1
    assert shown.index(headline) < shown.index("step ")


def test_a_run_without_an_update_says_nothing() -> None:
    stream = io.StringIO()
    with TrainingProgress(2, stream, headline="memory: xlstm"):
        pass
    assert stream.getvalue() == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with TrainingProgress(1000, stream) as progress:
        progress.update(960, {"episode/return": 57.25, "episode/length": 57.0})
    assert "return 57.2" in stream.getvalue()
    assert "100%" in stream.getvalue()  # the budget's last, incomplete rollout does not count


def test_before_the_first_finished_episode_there_is_no_number() -> None:
    metrics = {"episode/return": float("nan"), "episode/length": float("nan"), "time/sps": 10.0}
    assert describe(128, metrics) == "step 128  return -  length -  10 steps/s"


METRICS = {"episode/return": -157.25, "episode/length": 1057.0, "time/sps": 3100.0}


def screen(columns: int, total: int, steps: list[int], monkeypatch: pytest.MonkeyPatch) -> str:
    """The last line that a terminal of so many columns shows."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with TrainingProgress(total, stream) as progress:
        for step in steps:
            progress.update(step, METRICS)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", plain) if "%" in line]
    assert all(len(line.rstrip()) < columns for line in lines), lines
    return lines[-1].rstrip()


@pytest.mark.parametrize("columns", [42, 60, 80, 120, 200])
def test_percent_speed_and_time_left_stay_at_every_width(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = screen(columns, 10_000_000, [640_000, 1_280_000], monkeypatch)
    assert " 12%" in line and "3,100 steps/s" in line and line.endswith(" left")
    assert ("return -157.2" in line) == (columns >= 60)
    assert ("step 1,280,000" in line) == (columns >= 80)
    assert ("length 1057" in line) == (columns >= 120)


@pytest.mark.parametrize("total", [1, 1000, 1023, 1024, 2000])
def test_a_finished_run_ends_at_100_percent(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(step=10.0)
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(seconds))
    steps = [512 * n for n in range(1, max(1, total // 512) + 1)]
    assert "100%" in screen(80, total, steps, monkeypatch)
    for interval in (0.0, 1000.0):
        stream = io.StringIO()
        with TrainingProgress(total, stream, interval) as progress:
            for step in steps:
                progress.update(step, METRICS)
        lines = stream.getvalue().splitlines()
        assert ["100%" in line for line in lines] == [False] * (len(lines) - 1) + [True]
        assert "0:00:00 left" in lines[-1]


def test_a_run_that_was_stopped_early_does_not_look_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert " 25%" in screen(80, 4000, [500, 1000], monkeypatch)
    stream = io.StringIO()
    with TrainingProgress(4000, stream, 1000.0) as progress:
        progress.update(500, METRICS)
        progress.update(1000, METRICS)
    assert stream.getvalue().splitlines()[-1].startswith(" 25%")


def test_a_run_that_goes_on_counts_its_own_steps_for_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    progress = TrainingProgress(1000, stream, 0.0, steps_done=800)
    with progress:
        began = progress._began
        progress.update(900, METRICS)
    # 100 steps took so long, and 100 are left.
    took = progress._printed - began
    assert f"{int(took) // 60}:{int(took) % 60:02} left" in stream.getvalue()
    assert stream.getvalue().startswith(" 90%")


def test_a_long_silent_start_says_what_it_is_doing_and_a_short_one_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcing, "PATIENCE", 0.02)
    slow, quick = io.StringIO(), io.StringIO()
    with TrainingProgress(100, slow, first="collecting the first 64 steps") as progress:
        time.sleep(0.3)
        progress.update(100, METRICS)
    assert slow.getvalue().splitlines()[0] == "collecting the first 64 steps ..."
    with announcing.Announcing("making 16 environments", slow):
        time.sleep(0.3)
    assert slow.getvalue().endswith("making 16 environments ...\n")
    monkeypatch.setattr(announcing, "PATIENCE", 60.0)
    with announcing.Announcing("making 16 environments", quick):
        pass
    assert quick.getvalue() == ""


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["plain", "terminal"])
def test_advice_is_given_once_and_about_the_second_update(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    asked: list[float] = []

    def advice(sps: float) -> str:
        asked.append(sps)
        return "slow because [of this]"

    with TrainingProgress(100, stream, 0.0, advice=advice) as progress:
        for step in (10, 20, 30, 40):
            progress.update(step, {"time/sps": float(step)})
    assert asked == [20.0]
    assert stream.getvalue().count("slow because [of this]") == 1

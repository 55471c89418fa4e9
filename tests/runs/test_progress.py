import io

import pytest

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
    assert stream.getvalue().count(headline) == 1
    assert stream.getvalue().index(headline) < stream.getvalue().index("step ")


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

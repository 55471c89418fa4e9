"""Slow destinations get fewer rows where updates are short; tables get every one."""

import time
from collections.abc import Mapping
from typing import Any

import pytest

from xlstm_rl.runs.loggers.base import Logger


class Clock:
    now = 0.0


class Recorder:
    def __init__(self, clock: Clock, seconds: float, is_slow: bool) -> None:
        self.clock, self.seconds, self.is_slow = clock, seconds, is_slow
        self.steps: list[int] = []
        self.kept: list[int] = []

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.clock.now += self.seconds
        self.steps.append(step)

    def keep_checkpoint(self, step: int, folder: Any, aliases: Any) -> None:
        self.kept.append(step)

    def close(self) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


def test_logging_takes_its_share_and_leaves_out_neither_the_last_row_nor_a_rare_one(
    clock: Clock,
) -> None:
    slow, table = Recorder(clock, 0.01, True), Recorder(clock, 0.0, False)
    with Logger([table, slow]) as logger:
        for step in range(20_000):
            clock.now += 0.05  # a fifth of it would be logging
            logger.log(step, {"x": 1.0, **({"evaluation/return": 1.0} if step == 15_001 else {})})
            if step == 17_000:
                logger.checkpoint(step, ".")
    assert table.steps == list(range(20_000))
    assert slow.steps[:25] == list(range(25))  # a short run logs everything
    assert {15_001, 17_000, 19_999} <= set(slow.steps) == set(slow.steps)
    assert len(slow.steps) == len(set(slow.steps)) and slow.steps == sorted(slow.steps)
    assert 0.01 * len(slow.steps) < 1.2 + 0.011 * clock.now < 0.2 * clock.now
    assert slow.kept == table.kept == [17_000]


def test_long_updates_are_all_logged(clock: Clock) -> None:
    slow = Recorder(clock, 0.01, True)
    with Logger([slow]) as logger:
        for step in range(2000):
            clock.now += 1.5
            logger.log(step, {"x": 1.0})
    assert slow.steps == list(range(2000))

"""A comparison from beginning to end, and what it left."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from xlstm_rl.comparing.job import Job, Result
from xlstm_rl.comparing.pool import processors, run_jobs
from xlstm_rl.comparing.progress import Board
from xlstm_rl.comparing.report import Report
from xlstm_rl.comparing.summary import Outcome
from xlstm_rl.config import ConfigError
from xlstm_rl.runs.lock import run_locked


def compare(
    jobs: Sequence[Job],
    out: Path,
    at_once: int | None = None,
    thresholds: Mapping[str, float | None] | None = None,
) -> Report:
    """Run what is not done yet and report on all of it.

    Runs that are finished are not repeated, those that stood still go on from their last
    checkpoint, those without one begin afresh, and those that failed are tried again. One that
    fails does not stop the others.

    Args:
        jobs: every run, from `make_jobs`.
        out: the folder of the comparison.
        at_once: how many processes; None: as many as there are processors, less where a run takes
            several threads.
        thresholds: for each case the return whose steps are looked for.

    Raises:
        ConfigError: another process works in the folder, or it cannot be made.
        KeyboardInterrupt: asked to end; every run is saved, and the same call goes on.
    """
    thresholds = thresholds or {}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be made: {error.strerror}") from None
    found: dict[Path, Result] = {}

    def on_change(job: Job, result: Result | None) -> None:
        if result is not None:
            found[job.folder] = result
        board.change(job, result)

    with run_locked(out):
        waiting = [job for job in jobs if not job.is_done()]
        board = Board(len(jobs), len(jobs) - len(waiting))
        if at_once is None:
            at_once = max(1, processors() // _threads(jobs))
        with board:
            run_jobs(waiting, at_once, on_change, board.tick)
    outcomes = [
        Outcome(job, found.get(job.folder) or job.result(), thresholds.get(job.case))
        for job in _in_order(jobs)
    ]
    return Report(outcomes, max((int(job.evaluation["episodes"]) for job in jobs), default=0))


def _threads(jobs: Sequence[Job]) -> int:
    return max((int(job.config.get("threads") or processors()) for job in jobs), default=1)


def _in_order(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs as the table has them: by case, memory and seed, each as it came first."""
    cases = list(dict.fromkeys(job.case for job in jobs))
    memories = list(dict.fromkeys(job.memory for job in jobs))
    return sorted(
        jobs, key=lambda job: (cases.index(job.case), memories.index(job.memory), job.seed)
    )


def is_complete(report: Report) -> bool:
    """Return whether every run is in the numbers."""
    return all(one.is_done for one in report.outcomes)


def write_report(report: Report, out: Path) -> list[Path]:
    """Write the report.

    Raises:
        OSError: it cannot be written; the runs are as they were.
    """
    try:
        return report.write(out)
    except OSError as error:
        raise OSError(f"{out}: the tables cannot be written: {error.strerror}") from error

"""Tables with a column `step` in the run folder, where a run goes on from an earlier step."""

import csv
from contextlib import suppress
from pathlib import Path

from xlstm_rl.files import replacing, step_in
from xlstm_rl.runs.folder import METRICS_FILE


def last_step(run: Path) -> int:
    """Return the last step in the metrics of a run; 0 where there is none."""
    last = 0
    with (
        suppress(OSError, UnicodeDecodeError, csv.Error),
        (run / METRICS_FILE).open(newline="") as file,
    ):
        for row in csv.DictReader(file):
            last = max(last, step_in(row.get("step")) or 0)
    return last


def drop_rows_after(table: Path, step: int) -> None:
    """Leave out of a table the rows of later steps, and what a killed process left of a row."""
    if not table.exists():
        return
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.reader(file))
    if not rows or "step" not in rows[0]:
        return
    head, place = rows[0], rows[0].index("step")
    kept = [row for row in rows[1:] if len(row) == len(head) and _counts(row[place], step)]
    if len(kept) == len(rows) - 1 and table.read_bytes().endswith(b"\n"):
        return
    with replacing(table) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *kept])


def _counts(text: str, step: int) -> bool:
    found = step_in(text)
    return found is not None and found <= step

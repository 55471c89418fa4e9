"""What is printed fits a narrow terminal, and no value is cut."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import pytest

from xlstm_rl.cli.tables import table
from xlstm_rl.terminal import described, leading, wrapped

ROOT = Path(__file__).parents[1]


def on_a_terminal(columns: int, *words: str, status: int = 0) -> list[str]:
    """The lines that a command prints on a terminal of so many columns."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - another process
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        environment.pop("COLUMNS", None)
        os.execve(sys.executable, [sys.executable, "-m", "xlstm_rl", *words], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    printed = b""
    try:
        while part := os.read(terminal, 4096):
            printed += part
    except OSError:  # the end of a terminal
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", printed.decode()).splitlines()


def test_an_error_is_broken_between_words_on_a_terminal() -> None:
    lines = on_a_terminal(42, "eval", "no_such_run_here", status=2)
    assert len(lines) > 1
    assert all(len(line) <= 42 for line in lines)
    assert " ".join(" ".join(lines).split()).startswith("xlstm-rl eval: ")


def test_a_command_to_copy_is_never_broken() -> None:
    command = "xlstm-rl eval /a/folder/somewhere/with/a/long/name --trust-code"
    lines = wrapped(f"saved in /a/folder/somewhere; next: {command}", 42).splitlines()
    assert [line.strip() for line in lines] == ["saved in /a/folder/somewhere; next:", command]
    sync = "`wandb sync /a/run/wandb/offline-run-*-abcd*`"
    lines = wrapped(f"wandb: no API key, recording offline; {sync} uploads it", 42).splitlines()
    assert f"  {sync}" in lines


@pytest.mark.parametrize("words", [["--help"], ["list", "configs"], ["train", "--help"]])
def test_lines_fit_a_terminal_of_42_columns(words: list[str]) -> None:
    lines = on_a_terminal(42, *words)
    commands = [line for line in lines if line.startswith("  xlstm-rl ")]  # to be copied whole
    assert max(len(line) for line in lines if line not in commands) <= 42
    broken = [line for line in lines if re.search(r"(Environm|tw|kpoints)$", line)]
    assert not broken


def test_what_is_said_of_a_name_stands_beside_it_or_below() -> None:
    entries = [("one", "the first of all"), ("two", "another one, of some more words")]
    assert described(entries, None, 6) == [
        "one   the first of all",
        "two   another one, of some more words",
    ]
    assert described(entries, 30, 6) == [
        "one   the first of all",
        "two   another one, of some",
        "      more words",
    ]
    assert described(entries, 24, 6) == [
        "one",
        "    the first of all",
        "two",
        "    another one, of some",
        "    more words",
    ]


def test_a_line_breaks_between_words_and_a_long_word_stays_whole() -> None:
    assert wrapped("return [45.00, 74.00] of xlstm_rl/CartPoleNoVel-v1", 20) == (
        "return [45.00,\n  74.00] of\n  xlstm_rl/CartPoleNoVel-v1"
    )
    assert wrapped("a b c", None) == wrapped("a b c", 5) == "a b c"


def test_of_a_line_that_is_too_long_whole_parts_are_left_out() -> None:
    assert leading(["  7%", "tmaze", "step 12,800", "return 57.2"], 24) == (
        "  7%  tmaze  step 12,800"
    )
    assert leading(["  7%", "tmaze", "step 12,800", "return 57.2"], 23) == "  7%  tmaze"


def test_a_table_without_room_is_a_few_lines_a_row_with_whole_values() -> None:
    head = ["run", "actions", "return", "95 % interval", "success"]
    rows = [["runs/a", "most probable", "59.00", "[45.00, 74.00]", "-"]]
    assert table(head, rows, left=2, width=60) == table(head, rows, left=2)
    assert table(head, rows, left=2, width=42).splitlines() == [
        "runs/a  most probable",
        "  return 59.00",
        "  95 % interval [45.00, 74.00]  success -",
    ]

"""The check of style finds what it should, and leaves code, tables and links alone."""

import runpy

import pytest

from .pages import ROOT

CHECK = runpy.run_path(str(ROOT / ".ci" / "check_prose.py"))
LONG = "word " * 33 + "end."


def _found(text: str) -> list[str]:
    return [what for _, what in CHECK["faults"](text)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a" * 100, "a line of 100 characters"),
        (LONG.replace(" word", "\nword", 5), "a sentence of 34 words"),
        ("We utilize it.", "write use"),
        ("It works, in order to act.", "write to"),
    ],
)
def test_a_fault_is_found(text: str, said: str) -> None:
    assert any(said in one for one in _found(text))


@pytest.mark.parametrize(
    "text",
    [
        f"```\n{LONG}{'a' * 100}\n```",
        f"| {LONG} | {'a' * 100} |",
        f"[text](https://example.org/{'a' * 100})",
        "Say `in order to` and `utilize`.",
        "One two. " * 30,
        "A list:\n\n" + "- ten words stand in each of these lines of it\n" * 9,
        f"    {LONG}",
    ],
)
def test_code_tables_links_and_lists_are_left_alone(text: str) -> None:
    assert not [one for one in _found(text) if "a line of" not in one or "|" in text]


def test_a_fault_is_told_with_its_line() -> None:
    text = f"# Title\n\nShort.\n\n```\ncode\n\nmore\n```\n\n{LONG}\n\nWe utilize it.\n"
    lines = dict((what[:5], number) for number, what in CHECK["faults"](text))
    assert lines["a sen"] == 11
    assert lines["'util"] == 13


def test_code_over_two_lines_does_not_shift_the_lines_after_it() -> None:
    assert list(CHECK["faults"]("Run `one\ntwo`.\n\nWe utilize it.\n")) == [
        (4, "'utilize': write use")
    ]


def test_pages_and_docstrings_keep_the_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert CHECK["main"]([]) == 0, capsys.readouterr().out

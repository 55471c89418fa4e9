"""Read every page and docstring against a few rules of style: docs/develop/style.md says why.

python .ci/check_prose.py    # or with pages as arguments

Lines and sentences have a longest length. Words that say nothing are named, with what to write
instead. Code, the cells of tables and the changelog are not read for sentences.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("docs", "envs", "kernels", "benchmarks")
PACKAGES = ("agents", "envs", "kernels", "xlstm_rl")
HISTORY = {"CHANGELOG.md"}
LINE, WORDS = 99, 32
"""Characters of a line of the source; words of a sentence."""

INSTEAD = {
    r"(utili[sz]e[sd]?|leverag(e|es|ing))": "use",
    r"in order to": "to",
    r"(basically|obviously|simply|of course|hereby|thereof|whilst)": "nothing",
    r"(seamless|powerful|blazing|cutting-edge|state-of-the-art)": "a measurement",
    r"no whole number": "must be an integer",
    r"looked at, at once": "found at once",
}
"""What is not written, and what is."""

_CODE = re.compile(r"^```.*?^```$|^    .*?$|<!--.*?-->", re.M | re.S)
_SPAN = re.compile(r"`[^`]*`")
_LINK = re.compile(r"!?\[([^]]*)\]\([^)]*\)")
_NEXT = r"[-*] |\d+\. |\s*[|#<>]|\s*$"  # what no line that goes on begins with
_PARAGRAPH = re.compile(rf"^(?!\s*[|#<>]).+(?:\n(?!{_NEXT}).+)*", re.M)
_END = re.compile(r"(?<=[.!?:;])[)*_\"]*\s+")


def pages() -> list[Path]:
    """Return the pages that are read."""
    found = [*ROOT.glob("*.md"), *(one for name in FOLDERS for one in (ROOT / name).rglob("*.md"))]
    return sorted(path for path in found if path.name not in HISTORY)


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring that is not private."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text and not getattr(node, "name", "").startswith("_"):
                yield node.body[0].lineno, text


def _without(pattern: re.Pattern[str], text: str, instead: str = "") -> str:
    """Replace what a pattern finds, but keep its lines, so that line numbers stay."""
    return pattern.sub(lambda found: instead + "\n" * found[0].count("\n"), text)


def wording(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and what is wrong with words and sentences."""
    plain = _LINK.sub(r"\1", _without(_SPAN, _without(_CODE, text), "code"))
    for number, line in enumerate(plain.splitlines(), 1):
        for pattern, instead in INSTEAD.items():
            for found in re.finditer(rf"\b{pattern}\b", line, re.I):
                yield number, f"{found[0]!r}: write {instead}"
    for paragraph in _PARAGRAPH.finditer(plain):
        number = plain.count("\n", 0, paragraph.start()) + 1
        for sentence in _END.split(paragraph[0]):
            words = re.findall(r"[\w'-]+", sentence)
            if len(words) > WORDS:
                yield number, f"a sentence of {len(words)} words, {' '.join(words[:6])!r} ..."


def faults(text: str) -> Iterator[tuple[int, str]]:
    """Yield what is wrong with a page; a table's row, a link or a command cannot be broken."""
    yield from wording(text)
    for number, line in enumerate(_without(_CODE, text).splitlines(), 1):
        if len(line) > LINE and not line.startswith(("|", "!")) and "](" not in line:
            yield number, f"a line of {len(line)} characters; break it before {LINE + 1}"


def main(named: list[str]) -> int:
    """Print the faults and return their number; ruff holds the lines of modules."""
    read = [Path(one).resolve() for one in named] or pages()
    found = [(path, *one) for path in read for one in faults(path.read_text(encoding="utf-8"))]
    modules = [] if named else [path for one in PACKAGES for path in (ROOT / one).rglob("*.py")]
    for path in sorted(modules):
        for first, text in docstrings(path):
            found += [(path, first + number - 1, what) for number, what in wording(text)]
    for path, number, what in found:
        print(f"{path.relative_to(ROOT)}:{number}: {what}")
    return len(found)


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))

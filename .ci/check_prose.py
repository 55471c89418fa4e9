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
FOLDERS = (".", "docs", "docs/*", "envs", "kernels", "kernels/*", "kernels/*/triton", "benchmarks")
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

_FENCE = re.compile(r"^```.*?^```$|^    .*?$|<!--.*?-->", re.M | re.S)
_SPAN = re.compile(r"`[^`]*`")
_LINK = re.compile(r"!?\[([^]]*)\]\([^)]*\)")
_END = re.compile(r"(?<=[.!?:;])[)*_\"]*\s+")


def pages() -> list[Path]:
    """Return the pages that are read."""
    found = {path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.md")}
    return sorted(path for path in found if path.name not in HISTORY)


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring that is not private."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text and not getattr(node, "name", "").startswith("_"):
                yield node.body[0].lineno, text


def _prose(text: str) -> str:
    """Leave out blocks of code, but not their lines, so that line numbers stay."""
    return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)


def too_long(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines that are too long; a table's row, a link or a command cannot be broken."""
    for number, line in enumerate(_prose(text).splitlines(), 1):
        if len(line) > LINE and not line.startswith(("|", "!")) and "](" not in line:
            yield number, f"a line of {len(line)} characters; break it before {LINE + 1}"


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yield what is prose, with the number of its first line: no code, tables and headings."""
    number = 1
    for block in re.split(r"(\n\s*\n|\n(?=[-*] |\d+\. ))", _prose(text)):
        kept = [one for one in block.splitlines() if not re.match(r"\s*[|#<>]", one)]
        if " ".join(kept).strip():
            yield number + len(block) - len(block.lstrip("\n")), " ".join(kept)
        number += block.count("\n")


def faults(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and what is wrong there."""
    yield from too_long(text)
    for number, paragraph in paragraphs(text):
        plain = _SPAN.sub("code", _LINK.sub(r"\1", paragraph))
        for sentence in _END.split(plain):
            words = re.findall(r"[\w'-]+", sentence)
            if len(words) > WORDS:
                yield number, f"a sentence of {len(words)} words, {' '.join(words[:6])!r} ..."
    for number, line in enumerate(_SPAN.sub("code", _prose(text)).splitlines(), 1):
        for pattern, instead in INSTEAD.items():
            for found in re.finditer(rf"\b{pattern}\b", line, re.I):
                yield number, f"{found[0]!r}: write {instead}"


def main(named: list[str]) -> int:
    """Print the faults and return their number; ruff holds the lines of modules."""
    texts = [(Path(one).resolve(), 1, "") for one in named] or [(one, 1, "") for one in pages()]
    modules = [path for one in PACKAGES for path in sorted((ROOT / one).rglob("*.py"))]
    texts += [(path, *one) for path in modules if not named for one in docstrings(path)]
    count = 0
    for path, first, doc in texts:
        for number, what in faults(doc or path.read_text(encoding="utf-8")):
            if not doc or not what.startswith("a line"):
                print(f"{path.relative_to(ROOT)}:{first + number - 1}: {what}")
                count += 1
    return count


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))

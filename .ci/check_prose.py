"""Read every page against a few rules of style: docs/develop/style.md says why.

python .ci/check_prose.py    # or with pages as arguments

Lines of the source and sentences have a longest length. Words that say nothing are named, with what
to write instead. Code, the cells of tables and the changelog are not read for sentences.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (".", "docs", "docs/*", "envs", "kernels", "kernels/*", "kernels/*/triton", "benchmarks")
HISTORY = {"CHANGELOG.md"}
NOT_YET = {"learning.md", "defaults.md", "memories.md", "EQUATIONS.md"}
"""Pages that are yet to be read against the rules."""
LINE, WORDS = 99, 32
"""Characters of a line of the source; words of a sentence."""

INSTEAD = {
    r"utili[sz]e[sd]?": "use",
    r"leverag(e|es|ing)": "use",
    r"in order to": "to",
    r"(basically|obviously|simply|of course)": "nothing",
    r"(seamless|powerful|blazing|cutting-edge|state-of-the-art)": "a measurement",
    r"(hereby|herein|thereof|whereby|whilst)": "plain words",
    r"no whole number": "must be an integer",
    r"looked at, at once": "found at once",
    r"not only": "two sentences",
    r"(TODO|FIXME|TBD)": "the thing itself",
    r"we have seen": "what was seen",
    r"gradient descents?": "gradient step, or update",
}
"""What is not written, and what is."""

_FENCE = re.compile(r"^```.*?^```$|^    .*?$|<!--.*?-->", re.M | re.S)
_SPAN = re.compile(r"`[^`]*`")
_LINK = re.compile(r"!?\[([^]]*)\]\([^)]*\)")
_END = re.compile(r"(?<=[.!?:;])[)*_\"]*\s+")


def pages() -> list[Path]:
    """Return the pages that are read."""
    found = {path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.md")}
    return sorted(path for path in found if path.name not in HISTORY | NOT_YET)


def blank(match: re.Match[str]) -> str:
    """Keep the lines of what is left out, so that line numbers stay."""
    return "\n" * match[0].count("\n")


def too_long(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines that are too long; a table's row, a link or a command cannot be broken."""
    for number, line in enumerate(_FENCE.sub(blank, text).splitlines(), 1):
        if len(line) > LINE and not line.startswith(("|", "!")) and "](" not in line:
            yield number, f"a line of {len(line)} characters; break it before {LINE + 1}"


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yield what is prose, with the number of its first line: no code, tables and headings."""
    number = 1
    for block in re.split(r"(\n\s*\n|\n(?=[-*] |\d+\. ))", _FENCE.sub(blank, text)):
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
                begin = " ".join(words[:6])
                yield number, f"a sentence of {len(words)} words, {begin!r} ...: one idea each"
    for number, line in enumerate(_SPAN.sub("code", _FENCE.sub(blank, text)).splitlines(), 1):
        for pattern, instead in INSTEAD.items():
            for found in re.findall(rf"\b{pattern}\b", line, re.I):
                word = found if isinstance(found, str) and found else pattern
                yield number, f"{word!r}: write {instead}"


if __name__ == "__main__":
    wrong = 0
    for page in [Path(one).resolve() for one in sys.argv[1:]] or pages():
        for number, what in faults(page.read_text(encoding="utf-8")):
            print(f"{page.relative_to(ROOT)}:{number}: {what}")
            wrong += 1
    print(f"{wrong} faults of style" if wrong else "the pages keep the rules of style")
    sys.exit(bool(wrong))

"""The pages of the documentation, and the code in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "docs", "docs/*", "envs", "kernels", "benchmarks")
PAGES = {
    path.relative_to(ROOT).as_posix(): path for f in FOLDERS for path in ROOT.glob(f"{f}/*.md")
}


class Snippet(NamedTuple):
    """A block, without a language where it shows output, or a span of code in the text.

    A block with a title is a file of that name.
    """

    page: str
    line: int
    language: str
    text: str
    title: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


_FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)


def _fenced() -> Iterator[Snippet]:
    for page, path in PAGES.items():
        text = path.read_text(encoding="utf-8")
        for block in _FENCE.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            yield Snippet(page, line, block[1], block[3], block[2] or "")


def _prose(page: str) -> str:
    """A page without its blocks, line for line."""
    text = PAGES[page].read_text(encoding="utf-8")
    return _FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)


def _inline() -> Iterator[Snippet]:
    for page in PAGES:
        text = _prose(page)
        for span in re.finditer(r"`([^`]+)`", text):
            line = text.count("\n", 0, span.start()) + 1
            yield Snippet(page, line, "", " ".join(span[1].split()))


SPANS = list(_inline())
BLOCKS = [one for one in _fenced() if not one.page.startswith("docs/learn/")]
"""Each stands for itself."""
TUTORIALS = [one for one in _fenced() if one.page.startswith("docs/learn/")]
"""Each goes on where the block before it on its page ended."""

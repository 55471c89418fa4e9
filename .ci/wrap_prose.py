"""Wrap paragraphs of pages from their first line that is too long: `python .ci/wrap_prose.py`.

Code, tables, headings and pictures stay as they are, and so does what stands above that line.
"""

import re
import sys
import textwrap
from pathlib import Path

from check_prose import LINE, pages

_LEFT_ALONE = ("|", "#", "```", ">", "<", "!", "    ")
_MARK = re.compile(r"([-*]|\d+\.) ")


def wrapped(text: str) -> str:
    """Return a page without lines that are too long."""
    lines, done, fenced = text.split("\n"), [], False
    while lines:
        line = lines.pop(0)
        fenced ^= line.startswith("```")
        if fenced or len(line) <= LINE or line.startswith(_LEFT_ALONE):
            done.append(line)
            continue
        paragraph = [line.rstrip()]
        while lines and lines[0].strip() and not lines[0].startswith(_LEFT_ALONE):
            if _MARK.match(lines[0].lstrip()):
                break
            paragraph.append(lines.pop(0).strip())
        indent = "  " if _MARK.match(line) or line.startswith("  ") else ""
        whole = re.sub(r"`[^`]+`", lambda span: span[0].replace(" ", "\0"), " ".join(paragraph))
        wrapper = textwrap.TextWrapper(LINE - 1, subsequent_indent=indent)
        wrapper.break_long_words = wrapper.break_on_hyphens = False
        parts = wrapper.wrap(whole)
        done += [part.replace("\0", " ") for part in parts]
    return "\n".join(done)


if __name__ == "__main__":
    for page in [Path(one) for one in sys.argv[1:]] or pages():
        text = page.read_text(encoding="utf-8")
        page.write_text(wrapped(text), encoding="utf-8")

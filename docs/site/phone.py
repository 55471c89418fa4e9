"""What mkdocs does to each finished page so that tables and names fit a phone.

Long names break where a reader expects it: after a dot, a slash, an underscore, and never behind
the two hyphens of a flag. A table with words in several columns is marked. On a narrow screen
site.css shows each of its rows as a block, with the heads of the columns before the cells.
"""

import html
import re
from statistics import fmean
from typing import Any

ROW, COLUMN = 55, 28
"""Characters of a row, and of a column behind the first, from which on a table counts as text."""

WHOLE = 20
"""Characters of the longest name that is not broken."""

_TAG = re.compile(r"(<[^>]*>)")
_CODE = re.compile(r"(<code>)(.*?)(</code>)", re.S)
_PRE = re.compile(r"(<pre\b.*?</pre>)", re.S)
_BREAK = re.compile(
    r"(?<=[\w\])][./_=])(?!(?:py|md|csv|yaml|json|png|html|c|h)\b)(?=[A-Za-z_\[{<])"
    r"|(?<=\w[,(|])(?=[\w\"'\[{])"
)
_FLAG = re.compile(r"(?<![\w-])--[a-z]+(?:[.-][a-z]+)?")
_TABLE = re.compile(r"<table>.*?</table>", re.S)
_ROW = re.compile(r"<tr\b.*?</tr>", re.S)
_CELL = re.compile(r"<(t[hd])([^>]*)>(.*?)</\1>", re.S)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Let names break well, and mark the tables of words."""
    parts = _PRE.split(output)
    parts[::2] = [_CODE.sub(_breakable, one) for one in parts[::2]]
    parts[1::2] = [_with_whole_flags(one) for one in parts[1::2]]
    return _TABLE.sub(_marked, "".join(parts))


def _breakable(found: re.Match[str]) -> str:
    texts = _TAG.split(found[2])
    if len(html.unescape("".join(texts[::2]))) > WHOLE:
        texts[::2] = [_BREAK.sub("<wbr>", one) for one in texts[::2]]
    return found[1] + _with_whole_flags("".join(texts)) + found[3]


def _with_whole_flags(code: str) -> str:
    texts = _TAG.split(code)
    texts[::2] = [_FLAG.sub(r'<span class="whole">\g<0></span>', one) for one in texts[::2]]
    return "".join(texts)


def _marked(found: re.Match[str]) -> str:
    rows = [[words(one[3]) for one in _CELL.finditer(row)] for row in _ROW.findall(found[0])]
    heads, *cells = rows
    lengths = [fmean(map(len, column)) for column in zip(*cells, strict=False)]
    if len(heads) < 3 or sum(lengths) < ROW or max(lengths[1:]) < COLUMN:
        return found[0]
    return "<table data-rows>" + _ROW.sub(lambda row: _headed(row[0], heads), found[0][7:])


def _headed(row: str, heads: list[str]) -> str:
    """Give each cell behind the first the head of its column."""
    columns = iter(heads)

    def head(cell: re.Match[str]) -> str:
        name = html.escape(next(columns, ""), quote=True)
        return f'<td data-head="{name}"{cell[1]}>' if name else f"<td{cell[1]}>"

    return re.sub(r"<td([^>]*)>", head, row)


def words(cell: str) -> str:
    """Return the text of a cell without its tags."""
    return " ".join(html.unescape(_TAG.sub("", cell)).split())

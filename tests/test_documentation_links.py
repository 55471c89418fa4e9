"""Links, anchors, paths and names on the pages lead to something that is there."""

import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from .pages import PAGES, ROOT

HISTORY = {"CHANGELOG.md"}
"""Pages that name what is gone."""

OF_A_RUN = ("best/", "runs/", "checkpoints/", "tensorboard/", "wandb/", "videos/")
"""Folders that a run makes."""

_every_page = pytest.mark.parametrize("page", PAGES)


def _text(page: str) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", PAGES[page].read_text(encoding="utf-8"), flags=re.M | re.S)


def _anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    kept = string.ascii_lowercase + string.digits + "-_ "
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", one).lower() for one in headings]
    return {"".join(c for c in one if c in kept).replace(" ", "-") for one in plain}


@_every_page
def test_links_lead_to_files_and_headings(page: str) -> None:
    here = PAGES[page]
    for target in re.findall(r"\]\(([^)\s]+)\)", _text(page)):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        path = here.parent / name if name else here
        assert path.exists(), target
        assert not anchor or anchor in _anchors(path), target


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HISTORY])
def test_paths_lead_to_files(page: str) -> None:
    places = (ROOT, ROOT / "xlstm_rl", PAGES[page].parent)
    for span in re.findall(r"`([^`\s]+)`", _text(page)):
        is_path = "/" in span and re.search(r"\.(py|md|yaml|toml|json)$|/$", span)
        if not is_path or "<" in span or "://" in span or span.startswith(OF_A_RUN):
            continue
        assert any(list(place.glob(span.rstrip("/"))) for place in places), span


def _rows(page: str) -> Iterator[tuple[list[str], list[str]]]:
    """The files of each row of the tables headed `| ... | file | look for |`, and its names."""
    in_table = False
    for line in PAGES[page].read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            in_table = False
        elif line.endswith("| file | look for |"):
            in_table = True
        elif in_table and "`" in line:
            *_, files, names = line.strip("|").split("|")
            yield re.findall(r"`([^`]+)`", files), re.findall(r"`([^`]+)`", names)


def test_every_name_in_the_tables_of_files_is_defined_there() -> None:
    rows = [row for page in PAGES for row in _rows(page)]
    assert rows
    for files, names in rows:
        text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in files)
        assert names, files
        for part in (part for name in names for part in name.split(".")):
            found = re.search(rf"^ *((class|def) {part}\b|{part}( =|:))", text, re.M)
            assert found, f"{part} in {files}"


def test_the_list_of_pages_has_them_all() -> None:
    linked = re.findall(r"\]\(([^)\s#]+)\)", _text("docs/README.md"))
    there = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    assert set(there) - {"README.md"} <= set(linked)

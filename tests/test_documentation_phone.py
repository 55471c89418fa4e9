"""What is done to a finished page of the site so that it fits a phone."""

from importlib import util
from types import ModuleType

import pytest

from .pages import ROOT


@pytest.fixture(scope="module")
def phone() -> ModuleType:
    spec = util.spec_from_file_location("phone", ROOT / "docs" / "site" / "phone.py")
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _table(*rows: list[str]) -> str:
    heads, *others = rows
    lines = ["<tr>" + "".join(f"<th>{one}</th>" for one in heads) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{one}</td>" for one in row) + "</tr>" for row in others]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("rollout_steps", "rollout_steps"),  # short ones stay whole
        ("policy.action_distribution.std", "policy.<wbr>action_<wbr>distribution.<wbr>std"),
        ("xlstm_rl/collection/values.py", "xlstm_<wbr>rl/<wbr>collection/<wbr>values.py"),
        ("a width of 0.25 and 1.5 or 2.75", "a width of 0.25 and 1.5 or 2.75"),
    ],
)
def test_long_names_break_after_dots_slashes_and_underscores(
    phone: ModuleType, name: str, written: str
) -> None:
    assert phone.on_post_page(f"<code>{name}</code>", None) == f"<code>{written}</code>"


def test_a_flag_does_not_break_behind_its_hyphens_in_text_and_in_commands(
    phone: ModuleType,
) -> None:
    whole = '<span class="whole">--env.num</span>-envs 8'
    for tag in ("p", "pre"):
        page = f"<{tag}><code>--env.num-envs 8</code></{tag}>"
        assert phone.on_post_page(page, None) == page.replace("--env.num-envs 8", whole)
    assert phone.on_post_page("<pre><code>a_long_name.of_a_module</code></pre>", None) == (
        "<pre><code>a_long_name.of_a_module</code></pre>"
    )


def test_cells_of_a_table_of_words_have_the_heads_of_their_columns(phone: ModuleType) -> None:
    words = "what a reader who holds a phone wants to read in one piece"
    page = phone.on_post_page(_table(["option", "", 'its "default"'], ["a", words, "1"]), None)
    assert page.startswith("<table data-rows>")
    assert f'<td data-head="option">a</td><td>{words}</td>' in page
    assert '<td data-head="its &quot;default&quot;">1</td>' in page


def test_tables_of_numbers_and_of_two_columns_stay_as_they_are(phone: ModuleType) -> None:
    words = "what a reader who holds a phone wants to read in one piece"
    for table in (
        _table(["option", "meaning"], ["a", words]),
        _table(["a", "b", "c"], list("123")),
    ):
        assert phone.on_post_page(table, None) == table

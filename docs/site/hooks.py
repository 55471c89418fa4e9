"""What mkdocs does before it builds: gather the pages where they lie in the tree.

Links between pages are those of the tree, so that they work in an editor, on a forge and here. A
page may lie anywhere; the files that it links to come along. Every option of `xlstm-rl train` is
written from its class.
"""

import ast
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "build" / "site-pages"
FOLDERS = ("docs", "kernels", "envs", "benchmarks")
AT_THE_TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")
_ELSEWHERE = re.compile(
    r"""<(script|img|iframe|link rel="stylesheet")[^>]*(src|href)="https?:[^>]*>"""
)
_WORDLESS = re.compile(r"""<img(?![^>]*alt="[^"]+")[^>]*>""")
_LINK = re.compile(r"\]\(([^)#?:]+)(?:#[^)]*)?\)")


def on_config(config: Any) -> Any:
    """Gather pages and what they link to under `build/site-pages`."""
    shutil.rmtree(PAGES, ignore_errors=True)
    pages = [ROOT / name for name in AT_THE_TOP]
    pages += [one for folder in FOLDERS for one in sorted((ROOT / folder).rglob("*.md"))]
    pages += [ROOT / "docs" / "site" / "site.css"]
    for page in pages:
        _copy(page)
        if page.suffix == ".md":
            for linked in _linked(page):
                _copy(linked)
    options = PAGES / "docs" / "reference" / "options.md"
    options.write_text(option_page(), encoding="utf-8")
    config.docs_dir = str(PAGES)
    return config


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse a page that would ask another host, and a picture without words."""
    if found := _ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_uri}: asks another host: {found[0]}")
    if found := _WORDLESS.search(output):
        raise PluginError(f"{page.file.src_uri}: a picture without alternative text: {found[0]}")
    return output


def _copy(path: Path) -> None:
    target = PAGES / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def _linked(page: Path) -> Iterator[Path]:
    """Files of the tree that a page links to and that are no pages themselves."""
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        path = (page.parent / link).resolve()
        if path.is_file() and path.suffix != ".md" and ROOT in path.parents:
            yield path


def option_page() -> str:
    """Return the page of every option: its path, what it takes, its default, what it means."""
    from xlstm_rl.agents.config import TrainConfig
    from xlstm_rl.options.fields import own_fields
    from xlstm_rl.options.kinds import is_section

    lines = [
        "# Every option",
        "",
        "What `xlstm-rl train`, a YAML file and the Python API take, written from the classes of",
        "options. On the command line `agent.learning_rate` is `--agent.learning-rate`; how files,",
        "flags and defaults combine: [configuration](../configuration.md).",
    ]
    fields = own_fields(TrainConfig)
    plain = {name: one for name, one in fields.items() if not is_section(one[1])}
    lines += _table("The run", TrainConfig, "", plain)
    for name, (_, annotation) in fields.items():
        if is_section(annotation):
            lines += _section(name, annotation)
    return "\n".join(lines) + "\n"


def _section(path: str, annotation: Any) -> list[str]:
    """The tables of a section: one, or one for each kind that it may be; then those inside it."""
    from xlstm_rl.options.fields import own_fields
    from xlstm_rl.options.kinds import classes_of, is_section, kinds_of

    lines: list[str] = []
    inner: dict[str, Any] = {}
    chooses = kinds_of(annotation)
    for kind, cls in classes_of(annotation).items():
        fields = own_fields(cls)
        inner |= {name: one for name, (_, one) in fields.items() if is_section(one)}
        plain = {name: one for name, one in fields.items() if not is_section(one[1])}
        title = f"`{path}`" if chooses is None else f"`{path}`, {chooses.tag} `{kind}`"
        lines += _table(title, cls, f"{path}.", plain)
    for name, kind in inner.items():
        lines += _section(f"{path}.{name}", kind)
    return lines


def _table(title: str, cls: type, prefix: str, fields: dict[str, Any]) -> list[str]:
    from xlstm_rl.options.fields import default_of, describe

    if not fields:
        return []
    meanings = field_docs(cls)
    lines = ["", f"## {title}", "", "| option | takes | default | |", "|---|---|---|---|"]
    for name, (field, kind) in fields.items():
        default = default_of(field)
        text = f"{default:.4g}" if isinstance(default, float) else repr(default)
        shown = "" if default is None or "MISSING" in text else f"`{text}`"
        takes = re.sub(r"(\{[^}]*\})", r"`\1`", describe(kind))  # or attr_list takes the braces
        cells = [f"`{prefix}{name}`", takes, shown, meanings.get(name, "")]
        lines.append("| " + " | ".join(one.replace("|", "\\|") for one in cells) + " |")
    return lines


def field_docs(cls: type) -> dict[str, str]:
    """Return what stands below each field of a class and of those that it derives from."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if one.__module__.startswith("xlstm_rl"):
            body = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]
            assert isinstance(body, ast.ClassDef)
            for statement, below in zip(body.body, body.body[1:], strict=False):
                if isinstance(statement, ast.AnnAssign) and isinstance(below, ast.Expr):
                    name, text = statement.target, below.value
                    if isinstance(name, ast.Name) and isinstance(text, ast.Constant):
                        found[name.id] = " ".join(str(text.value).split())
    return found

"""What a user meets first: the import names, and how light they are."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest

import xlstm_rl

ROOT = Path(__file__).parents[1]
HEAVY = ("gymnasium", "matplotlib", "tensorboard", "tensordict", "torchrl", "triton", "wandb")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("module", ["xlstm_rl", "xlstm_rl.kernels"])
def test_import_stays_light(module: str) -> None:
    done = _python(f"import sys, {module}; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not set(HEAVY) & set(done.stdout.split())


def test_only_classes_that_were_generic_in_gymnasium_1_1_are_subscripted() -> None:
    files = [
        path for path in ROOT.rglob("*.py") if not path.relative_to(ROOT).parts[0].startswith(".")
    ]
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files
        for node in _evaluated(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Subscript) and _is_not_generic(node.value)
    ]
    assert not found


def _evaluated(tree: ast.Module) -> Iterator[ast.AST]:
    """Return the nodes of a module that are computed when it runs."""
    lazy = any(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body
    )
    for node in list(ast.walk(tree)):
        for field in ("annotation", "returns"):
            if lazy and getattr(node, field, None) is not None:
                setattr(node, field, None)
    return ast.walk(tree)


def _is_not_generic(node: ast.expr) -> bool:
    name = getattr(node, "attr", getattr(node, "id", ""))
    if name in vars(gymnasium.vector):
        return name != "VectorEnv" and name.endswith(("VectorEnv", "Wrapper"))
    return ast.unparse(node).startswith("spaces.") and name != "Space"


@pytest.mark.parametrize("name", xlstm_rl.__all__)
def test_public_name_is_there(name: str) -> None:
    assert getattr(xlstm_rl, name) is not None
    assert name in dir(xlstm_rl)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'RecurrentPPPO'"):
        _ = xlstm_rl.RecurrentPPPO


@pytest.mark.parametrize("folder", ["kernels", "agents", "envs", "configs"])
def test_bare_folder_name_is_refused(folder: str) -> None:
    done = _python(f"import {folder}")
    assert done.returncode != 0
    assert "import it by that name" in done.stderr
    assert f"xlstm_rl.{folder}" in done.stderr

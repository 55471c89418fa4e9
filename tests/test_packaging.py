"""What a user meets first: the import names, and how light they are."""

import subprocess
import sys
from pathlib import Path

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
    done = _python("""
import pkgutil, xlstm_rl
from gymnasium import spaces, vector

for cls in (*vars(vector).values(), *vars(spaces).values()):
    if isinstance(cls, type) and cls not in (vector.VectorEnv, spaces.Space):
        cls.__class_getitem__ = None
for module in pkgutil.walk_packages([f"{xlstm_rl.__path__[0]}/envs"], "xlstm_rl.envs."):
    __import__(module.name)
""")
    assert done.returncode == 0, done.stderr


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

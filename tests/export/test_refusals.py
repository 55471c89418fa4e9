"""What cannot be exported is refused in one line, and leaves no file."""

import re
import sys
from importlib.metadata import PackageNotFoundError

import pytest
from gymnasium import spaces

from xlstm_rl import versions
from xlstm_rl.cli.main import main
from xlstm_rl.errors import ExportError
from xlstm_rl.export import export_policy, pt2
from xlstm_rl.export import policy as module

from .conftest import BOX, make_policy


@pytest.fixture
def small():
    return make_policy(BOX, spaces.Discrete(3), {"kind": "mlp"}, {})


def test_an_existing_path_is_kept(small, tmp_path):
    path = tmp_path / "policy.pt2"
    path.write_text("mine")
    with pytest.raises(ExportError, match="exists"):
        export_policy(small, path, "pt2")
    assert path.read_text() == "mine"
    export_policy(small, path, "pt2", overwrite=True)
    assert path.stat().st_size > 1000


def test_an_unknown_format_and_a_missing_folder(small, tmp_path):
    with pytest.raises(ExportError, match="'tflite', expected one of onnx, pt2"):
        export_policy(small, tmp_path / "x", "tflite")
    with pytest.raises(ExportError, match="is not a folder"):
        export_policy(small, tmp_path / "none" / "x.pt2", "pt2")


def test_a_failed_export_leaves_no_file(small, tmp_path, monkeypatch):
    def fail(step, path, description):
        path.write_text("half")
        raise RuntimeError("no such operation: aten::frobnicate\nand a long story")

    monkeypatch.setattr(pt2, "write", fail)
    with pytest.raises(ExportError, match=r"cannot be written as pt2: .*frobnicate$"):
        export_policy(small, tmp_path / "x.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_acts_otherwise_is_not_kept(small, tmp_path, monkeypatch):
    load = pt2.load

    def load_wrong(path):
        run = load(path)
        return lambda inputs: {n: x + (n == "action") for n, x in run(inputs).items()}

    monkeypatch.setattr(pt2, "load", load_wrong)
    with pytest.raises(ExportError, match="differs from its policy by 1 in 'action'"):
        export_policy(small, tmp_path / "x.pt2", "pt2", check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_the_extra(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(module.import_module("xlstm_rl.export.onnx"), "write", _touch)
    with pytest.raises(ExportError, match=r'pip install "xlstm_rl\[export\]"'):
        export_policy(small, tmp_path / "x.onnx", check=True)
    assert list(tmp_path.iterdir()) == []


def test_an_onnxscript_that_is_too_old_is_named(small, tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "version", lambda package: "0.5.7")
    path = tmp_path / "x.onnx"
    line = "onnx needs onnxscript 0.7 or newer, and 0.5 is installed: "
    with pytest.raises(ExportError, match="^" + re.escape(line)):
        export_policy(small, path)
    assert not path.exists()


def test_a_missing_onnxscript_names_the_extra(small, tmp_path, monkeypatch):
    def missing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(versions, "version", missing)
    with pytest.raises(ExportError, match=r"needs the package onnxscript: .*xlstm_rl\[export\]"):
        export_policy(small, tmp_path / "x.onnx")


def _touch(step, path, description):
    path.write_text("")


def test_the_command_writes_checks_and_refuses(tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--memory.kind", "mlp", "--total-steps", "64", "--env.num-envs", "4"]
    options += ["--agent.rollout-steps", "32", "--logger.kind", "none", "--run-dir", str(run)]
    assert main(["train", *options]) == 0
    out = tmp_path / "policy.pt2"
    command = ["export", str(run), "--format", "pt2", "--out", str(out)]
    capsys.readouterr()
    assert main([*command, "--check"]) == 0
    assert "acts as the policy does over 1,000 steps" in capsys.readouterr().out
    assert main(command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("xlstm-rl export:") and "exists" in line
    assert main(["export", str(tmp_path / "none"), "--out", str(tmp_path / "x.onnx")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "none" in line

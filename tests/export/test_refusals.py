"""What cannot be exported is refused in one line, and leaves no file."""

import errno
import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from torch import nn

from xlstm_rl import versions
from xlstm_rl.cli.main import main
from xlstm_rl.errors import ExportError
from xlstm_rl.export import FORMATS, export_policy, pt2
from xlstm_rl.export import policy as module
from xlstm_rl.memory.baselines import GRUMemory

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
    with pytest.raises(ExportError, match="'tflite', expected one of onnx, pt2, c"):
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


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_cannot_be_written_to_is_said_in_a_line(
    small, tmp_path, monkeypatch, overwrite
):
    def fail(step, path, description):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    path = tmp_path / "x.pt2"
    if overwrite:
        path.write_text("mine")
    monkeypatch.setattr(pt2, "write", fail)
    with pytest.raises(ExportError, match=r"x\.pt2: cannot be written: Read-only file system$"):
        export_policy(small, path, "pt2", overwrite=overwrite)
    assert path.exists() == overwrite


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


def test_c_is_kept_from_existing_files_of_both_names(small, tmp_path):
    (tmp_path / "policy.weights").write_text("mine")
    with pytest.raises(ExportError, match=r"policy\.weights exists"):
        export_policy(small, tmp_path / "policy.c", "c")
    assert [one.name for one in tmp_path.iterdir()] == ["policy.weights"]
    export_policy(small, tmp_path / "policy.c", "c", overwrite=True)
    assert (tmp_path / "policy.weights").read_bytes()[:8] == b"xlstm_rl"
    with pytest.raises(ExportError, match=r"must end in \.c"):
        export_policy(small, tmp_path / "policy.cpp", "c")


def test_int8_is_of_c_alone(small, tmp_path):
    with pytest.raises(ExportError, match="int8 is for format='c'"):
        export_policy(small, tmp_path / "x.pt2", "pt2", int8=True)


class OwnMemory(GRUMemory):
    """Another one: what it does is its own affair."""


class OwnEncoder(nn.Linear):
    """Likewise."""


def _with_own_memory():
    policy = make_policy(BOX, spaces.Discrete(3), {"kind": "gru"}, {})
    policy.network.trunk.memory.__class__ = OwnMemory
    return policy


def _with_own_encoder():
    policy = make_policy(BOX, spaces.Discrete(3), {"kind": "gru"}, {})
    policy.network.trunk.encoder = OwnEncoder(3, 16)
    return policy


def _with_hook():
    policy = make_policy(BOX, spaces.Discrete(3), {"kind": "gru"}, {})
    policy.network.action_head.output.register_forward_hook(lambda *_: None)
    return policy


def _with_halves():
    space = spaces.Box(-1, 1, (2,), np.float16)
    return make_policy(space, spaces.Discrete(3), {"kind": "gru"}, {})


def _with_half_actions():
    space = spaces.Box(-1, 1, (2,), np.float16)
    return make_policy(BOX, space, {"kind": "gru"}, {})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_with_own_memory, "c does not support the memory OwnMemory"),
        (_with_own_encoder, "not support the encoder OwnEncoder"),
        (_with_hook, "the forward hook of network.action_head.output"),
        (_with_halves, "float16 of 'obs', for which C99 has no type"),
        (_with_half_actions, "float16 of 'action'"),
    ],
)
def test_c_refuses_what_it_lacks_in_one_line(make, says, tmp_path):
    with pytest.raises(ExportError, match=says) as error:
        export_policy(make(), tmp_path / "policy.c", "c")
    assert "try onnx or pt2" in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_check_without_a_compiler_says_so(small, tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match=r"only where it can be compiled: no C compiler"):
        export_policy(small, tmp_path / "policy.c", "c", check=True)
    assert list(tmp_path.iterdir()) == []
    assert export_policy(small, tmp_path / "policy.c", "c").is_file()


def test_a_compiler_that_fails_leaves_no_file(small, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "false")
    with pytest.raises(ExportError, match="does not compile"):
        export_policy(small, tmp_path / "policy.c", "c", check=True)
    assert list(tmp_path.iterdir()) == []


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
    small = [*command[:2], "--format", "c", "--out", str(tmp_path / "small.c"), "--int8", "--check"]
    assert main(small) == 0
    said = capsys.readouterr().out
    assert "small.c" in said and "small.weights" in said and "over 1,000 steps" in said
    assert main(small) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "small.c exists" in line
    assert main([*command[:2], "--out", str(tmp_path / "x.onnx"), "--int8"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "int8 is for" in line
    assert main(["export", str(tmp_path / "none"), "--out", str(tmp_path / "x.onnx")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "none" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full: Linux")
@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_called_full(small, tmp_path, monkeypatch, format):
    def write_there(step, path, *others, **options):
        path.symlink_to("/dev/full")
        write(step, path, *others, **options)

    writer = import_module(f"xlstm_rl.export.{format}")
    write = writer.write
    monkeypatch.setattr(writer, "write", write_there)
    with pytest.raises(ExportError, match=r"cannot be written: No space left on device$"):
        export_policy(small, tmp_path / f"x.{format}", format)

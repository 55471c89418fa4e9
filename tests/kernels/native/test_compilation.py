import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xlstm_rl.kernels.native import build as build_command
from xlstm_rl.kernels.native import compilation, library
from xlstm_rl.kernels.native.compilation import BuildError, build


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sources that compile in no time: little but library.c."""
    sources = tmp_path / "src"
    sources.mkdir()
    for name in ("library.c", "parallel.c", "parallel.h", "export.h"):
        shutil.copy(compilation.SOURCES / name, sources)
    monkeypatch.setattr(compilation, "SOURCES", sources)
    return sources


def test_every_target_of_this_machine_is_compiled(small: Path, tmp_path: Path) -> None:
    made = build(tmp_path / "new" / "folder")
    assert made and all(path.stat().st_size > 1000 for path in made)
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == sorted(path.name for path in made)


def test_no_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"^no C compiler was found \(cc, gcc or clang .*CC\)$"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("false", "^false failed: status 1$"),
        ("no-such-compiler --flag", "No such file or directory: 'no-such-compiler'"),
        (sys.executable, "failed: .*"),
    ],
)
def test_a_compiler_that_fails_is_one_line(
    compiler: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(BuildError, match=message) as caught:
        build(tmp_path)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_sources_that_do_not_compile_leave_no_old_library_behind(
    small: Path, tmp_path: Path
) -> None:
    made = build(tmp_path)
    (small / "library.c").write_text("int x = y;\n")
    with pytest.raises(BuildError, match=r"y. undeclared|undeclared identifier"):
        build(tmp_path)
    assert not any(path.exists() for path in made)


def test_a_folder_that_cannot_be_written_is_one_line(small: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="file"):
        build(tmp_path / "file" / "folder")


def test_another_processor_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compilation.platform, "machine", lambda: "riscv64")
    with pytest.raises(BuildError, match="no native code for riscv64 on"):
        build(tmp_path)


def test_the_stamp_is_that_of_the_sources(small: Path) -> None:
    before = compilation.stamp()
    assert compilation.stamp() == before
    (small / "more.h").write_text("#define X 1\n")
    changed = compilation.stamp()
    (small / "more.h").write_text("#define X 2\n")
    assert len({before, changed, compilation.stamp()}) == 3


def test_the_command_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> None:
        raise BuildError("no C compiler was found")

    monkeypatch.setattr(build_command, "build", fail)
    with pytest.raises(SystemExit, match=r"^error: no C compiler was found$"):
        build_command.main()


def test_the_command_builds_where_it_is_told(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XLSTM_RL_NATIVE_FOLDER", str(tmp_path / "elsewhere"))
    build_command.main()
    made = [Path(line) for line in capsys.readouterr().out.split()]
    assert made and sorted(made) == sorted((tmp_path / "elsewhere").iterdir())
    assert library.load(library.cpu_targets()[0])


def test_no_flag_flushes_denormals_in_the_whole_process() -> None:
    code = (
        "import torch\n"
        "from xlstm_rl.kernels.native import library\n"
        "assert library.library() is not None, library.why_not_native()\n"
        "small = torch.tensor([1e-30])\n"
        "assert (small * 1e-10).item() > 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

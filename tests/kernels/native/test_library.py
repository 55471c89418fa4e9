import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xlstm_rl.kernels.native import compilation, library
from xlstm_rl.kernels.native.library import NotLoadedError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the libraries are looked for."""
    monkeypatch.setenv("XLSTM_RL_NATIVE_FOLDER", str(tmp_path))
    return tmp_path


def test_the_library_of_this_tree_is_loaded() -> None:
    assert library.why_not_native() is None
    assert isinstance(library.library(), ctypes.CDLL)
    assert library.target() in compilation.TARGETS


@pytest.mark.parametrize("word", ["0", "off", "False"])
def test_the_environment_switches_it_off(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLSTM_RL_NATIVE", word)
    with pytest.raises(NotLoadedError, match=f"^XLSTM_RL_NATIVE={word.lower()} switches it off$"):
        library.choose_target()


def test_switched_off_auto_runs_on_torch_and_native_says_why() -> None:
    code = (
        "import torch, xlstm_rl.kernels as k\n"
        "x, w = torch.ones(1, 2, 3), torch.ones(3, 4)\n"
        "print(k.causal_conv1d(x, w, None)[0].sum().item(), k.backends()['auto'].about)\n"
        "try: k.causal_conv1d(x, w, None, backend='native')\n"
        "except RuntimeError as error: print(error)\n"
    )
    environment = {**os.environ, "XLSTM_RL_NATIVE": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran, refused = done.stdout.splitlines()
    assert ran == "9.0 torch"
    assert refused.startswith("backend='native' cannot run here: XLSTM_RL_NATIVE=0 switches it off")


def test_the_environment_names_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in library.cpu_targets():
        monkeypatch.setenv("XLSTM_RL_NATIVE", name)
        assert library.choose_target() == name
    for word in ("1", "", "auto"):
        monkeypatch.setenv("XLSTM_RL_NATIVE", word)
        assert library.choose_target() == library.cpu_targets()[0]
    monkeypatch.setenv("XLSTM_RL_NATIVE", "sse9")
    with pytest.raises(NotLoadedError, match="=sse9 is not a target of this CPU: use 0, 1, "):
        library.choose_target()


@pytest.mark.parametrize(
    ("capability", "targets"),
    [("AVX512", ("avx512", "avx2")), ("AVX2", ("avx2",))],
)
def test_the_target_follows_the_cpu(
    capability: str, targets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert library.cpu_targets() == targets


@pytest.mark.parametrize(("machine", "capability"), [("x86_64", "DEFAULT"), ("ppc64le", "VSX")])
def test_an_older_or_another_cpu_is_refused(
    machine: str, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with pytest.raises(NotLoadedError, match=f"needs AVX2 and FMA.*{machine}.*{capability}"):
        library.cpu_targets()


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
def test_arm_has_one_target(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.platform, "machine", lambda: machine)
    assert library.cpu_targets() == ("neon",)


def test_a_library_that_was_not_built_is_missed(folder: Path) -> None:
    with pytest.raises(NotLoadedError, match=r"_native-avx2.so is missing.*run python -m .*build"):
        library.load("avx2")


def test_a_file_that_is_no_library_is_refused(folder: Path) -> None:
    (folder / "_native-avx2.so").write_bytes(b"\x7fELF and nothing more")
    with pytest.raises(NotLoadedError, match=r"_native-avx2.so cannot be loaded"):
        library.load("avx2")


def test_a_library_of_something_else_is_refused(folder: Path) -> None:
    _compile(folder / "_native-avx2.so", "int xl_nothing(void) { return 0; }")
    with pytest.raises(NotLoadedError, match=r"cannot be loaded.*xl_version"):
        library.load("avx2")


def test_a_library_of_another_version_is_refused(folder: Path) -> None:
    _compile(folder / "_native-avx2.so", 'const char *xl_version(void) { return "0123"; }')
    with pytest.raises(NotLoadedError, match=f"other sources .0123.*{compilation.stamp()}"):
        library.load("avx2")


def test_calls_use_as_many_threads_as_torch() -> None:
    before = torch.get_num_threads()
    try:
        for count in (3, 1):
            torch.set_num_threads(count)
            assert library.num_threads() == count
    finally:
        torch.set_num_threads(before)


def _compile(path: Path, code: str) -> None:
    command = [*compilation.find_compiler(), "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=code, text=True, check=True)

"""How `src/*.c` become one shared library per target.

`setup.py` loads this file by its path when the package is installed: it imports nothing but the
standard library. `build.py` runs it later.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "src"

X86 = ("x86_64", "amd64")
ARM = ("aarch64", "arm64")

TARGETS = {
    "avx2": (X86, ("-mavx2", "-mfma", "-mtune=haswell")),
    "avx512": (
        X86,
        (
            *("-mavx2", "-mfma", "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"),
            *("-mtune=skylake-avx512", "-mprefer-vector-width=512"),
        ),
    ),
    "neon": (ARM, ()),
}
"""The machines that a target is for, and what the compiler is told: no more than the loader asks
the CPU for."""

# Fused multiply-adds are wanted, and sqrtf without errno. No -ffast-math nor a part of it that a
# library could bring into the process: it would flush denormals to zero everywhere.
FLAGS = (
    *("-std=gnu11", "-O2", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden"),
    *("-ffp-contract=fast", "-fno-math-errno", "-Wall", "-Wextra"),
)
SANITIZE = (
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
    *("-g", "-O1"),  # with -O2 they compile twice as long
)


class BuildError(Exception):
    """Why there is no library, in one line."""


def stamp() -> str:
    """What tells these sources and flags from those of another version."""
    digest = hashlib.sha256()
    for path in (Path(__file__), *sorted(SOURCES.glob("*.[ch]"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def library_path(target: str, folder: Path = HERE) -> Path:
    """Where the library of a target lies."""
    return folder / f"_native-{target}.so"


def build(
    folder: Path = HERE,
    extra: tuple[str, ...] = (),
    compiler: list[str] | None = None,
    machine: str | None = None,
    targets: tuple[str, ...] = (),
) -> list[Path]:
    """Compile the library of every target of a machine, and put them in place when all are done.

    Args:
        folder: where they go. What an earlier build left there is taken away, also on failure.
        extra: further flags for the compiler.
        compiler: its command; None: :func:`find_compiler`.
        machine: as `platform.machine()` has it; None: this one.
        targets: those to compile; none named: all of the machine.

    Raises:
        BuildError: no compiler, one that fails, or a folder that cannot be written.
    """
    machine = (machine or platform.machine()).lower()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("_native-*.so"):
            path.unlink()
        known = tuple(name for name, (machines, _) in TARGETS.items() if machine in machines)
        targets = targets or known
        if not targets or os.name != "posix":
            raise BuildError(f"there is no native code for {machine} on {sys.platform}")
        with tempfile.TemporaryDirectory(prefix=".native-", dir=folder) as drafts:
            command = [*(compiler or find_compiler()), *FLAGS, *extra]
            running = [_compile(command, target, Path(drafts)) for target in targets]
            failures = [failure for process in running if (failure := _failure(process))]
            if failures:
                raise BuildError(f"{command[0]} failed: {failures[0]}")
            for target in targets:
                os.replace(library_path(target, Path(drafts)), library_path(target, folder))
    except OSError as error:
        raise BuildError(str(error)) from error
    return [library_path(target, folder) for target in targets]


def find_compiler() -> list[str]:
    """Return the command of the C compiler: `$CC`, or the first on the PATH of three names."""
    named = os.environ.get("CC")
    if named:
        return shlex.split(named)
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    raise BuildError("no C compiler was found (cc, gcc or clang on the PATH, or $CC)")


def _compile(command: list[str], target: str, folder: Path) -> "subprocess.Popen[str]":
    command = [*command, *TARGETS[target][1], f'-DXL_STAMP="{stamp()}"']
    command += [str(path) for path in sorted(SOURCES.glob("*.c"))]
    command += ["-o", str(library_path(target, folder)), "-lm"]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _failure(process: "subprocess.Popen[str]") -> str | None:
    output, _ = process.communicate()
    if process.returncode == 0:
        sys.stderr.write(output)
        return None
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line]
    return (errors or lines or [f"status {process.returncode}"])[0]

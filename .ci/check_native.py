"""Compile the native backend without a warning, and run its tests under gcc's sanitizers.

AddressSanitizer and UBSan are compiled into a library in a folder of its own, and the tests of
the C code (or those that are named) run with it: on the narrowest target of this CPU,
or with --all on each. On x86-64 the tests run once more with vectors of four floats, which is what
64-bit ARM has. Where there are clang and a compiler for 64-bit ARM, they are tried too.

Usage: check_native.py [--all] [TEST...]
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from xlstm_rl.kernels.native import compilation
from xlstm_rl.kernels.native.compilation import SANITIZE, BuildError, build, find_compiler
from xlstm_rl.kernels.native.library import cpu_targets

ROOT = Path(__file__).resolve().parents[1]
_OF_POLICIES = (
    *("test_native_step", "test_native_step_raw", "test_native_sequences"),
    *("test_native_sequences_encoders", "encoders/test_linear_form"),
)
TESTS = ["tests/kernels/native", *(f"tests/policy/{name}.py" for name in _OF_POLICIES)]
OTHER_COMPILERS = {"clang": None, "aarch64-linux-gnu-gcc": "aarch64"}
"""And the machine that they compile for, where it is another one."""


def main() -> None:
    """Run all checks; exit with status 1 if any fails."""
    tests = [word for word in sys.argv[1:] if word != "--all"] or TESTS
    targets = cpu_targets() if "--all" in sys.argv else cpu_targets()[-1:]
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            build(Path(folder), ("-Werror", *SANITIZE), targets=targets)
        except BuildError as error:
            failed.append(str(error))
        else:
            failed += [
                f"the tests under the sanitizers, {target}: status {status}"
                for target in targets
                if (status := run_tests(target, tests, folder))
            ]
    failed += try_four_lanes(tests) + try_other_compilers()
    for failure in failed:
        print(f"error: {failure}")
    sys.exit(1 if failed else 0)


def run_tests(target: str, tests: list[str], folder: str) -> int:
    """Run tests with the sanitized library of a target and return pytest's status."""
    print(f"sanitizers, {target}:", flush=True)
    environment = {
        # before the interpreter, which was compiled without; it looks for C++'s exceptions at once
        "LD_PRELOAD": " ".join(map(find_file, ("libasan.so", "libstdc++.so.6"))),
        # leaks are the interpreter's and torch's own; pytest would swallow what is printed
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={folder}/report",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={folder}/report",
    }
    status = run_pytest(target, tests, folder, **environment)
    for report in Path(folder).glob("report.*"):
        print(report.read_text())
        report.unlink()
    return status


def try_four_lanes(tests: list[str]) -> list[str]:
    """Run the tests with vectors of four floats, on x86-64; return what failed."""
    if "avx2" not in cpu_targets():
        return []
    print("four lanes, as for ARM:", flush=True)
    machines, flags = compilation.TARGETS["avx2"]
    compilation.TARGETS["avx2"] = (machines, ("-msse4.1",))
    try:
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder), targets=("avx2",))
            return ["the tests with four lanes"] if run_pytest("avx2", tests, folder) else []
    except BuildError as error:
        return [str(error)]
    finally:
        compilation.TARGETS["avx2"] = (machines, flags)


def run_pytest(target: str, tests: list[str], folder: str, **environment: str) -> int:
    """Run tests with the library of a target in a folder and return pytest's status."""
    where = {"XLSTM_RL_NATIVE": target, "XLSTM_RL_NATIVE_FOLDER": folder}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "auto", *tests]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **where, **environment}).returncode


def find_file(name: str) -> str:
    """Return the path of one of the compiler's libraries."""
    command = [*find_compiler(), f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def try_other_compilers() -> list[str]:
    """Compile with the other compilers that are here, to nowhere; return what failed."""
    failed = []
    for compiler, machine in OTHER_COMPILERS.items():
        if shutil.which(compiler) is None:
            print(f"{compiler}: not here, not tried")
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = build(Path(folder), ("-Werror",), [compiler], machine)
            except BuildError as error:
                failed.append(str(error))
            else:
                print(f"{compiler}: {', '.join(path.name for path in made)}")
    return failed


if __name__ == "__main__":
    main()

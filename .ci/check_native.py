"""Compile the native backend without a warning, and run its tests under gcc's sanitizers.

AddressSanitizer and UBSan are compiled into a library in a folder of its own, and the tests of
the C code (or those that are named) run with it: on the narrowest target of this CPU,
or with --all on each. On x86-64 those of numbers run once more with vectors of four floats, which
is what 64-bit ARM has. Where there are clang and a compiler for 64-bit ARM, they are tried too.

Usage: check_native.py [--all | --compiled FOLDER] [TEST...]

FOLDER: what native_libraries.py has compiled; compiled here if it is not given.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from native_libraries import (
    BuildError,
    compilation,
    compile_four_lanes,
    compile_sanitized,
    four_lanes,
    has_four_lanes,
    sanitized,
)

from xlstm_rl.kernels.native.library import cpu_targets

ROOT = Path(__file__).resolve().parents[1]
_OF_POLICIES = (
    *("test_native_step", "test_native_step_raw", "test_native_sequences"),
    *("test_native_sequences_encoders", "encoders/test_linear_form"),
)
NUMBERS = ["tests/kernels/native"]
POINTERS = ["tests/agents/test_direct.py", *(f"tests/policy/{name}.py" for name in _OF_POLICIES)]
"""Of what keeps memory alive for C: with four lanes they would say nothing new."""
_OF_PYTHON = ("choose", "compilation", "library")  # how the code is compiled, found and chosen
OMITTED = [
    *(f"--ignore=tests/kernels/native/test_{name}.py" for name in _OF_PYTHON),
    *("-k", "not opcheck and not op_of_compiled"),  # what torch asks of ops: as slow as all others
]
"""Of these, what would say nothing new under the sanitizers or with four lanes."""
OTHER_COMPILERS = {"clang": None, "aarch64-linux-gnu-gcc": "aarch64"}
"""And the machine that they compile for, where it is another one."""


def main() -> None:
    """Run all checks; exit with status 1 if any fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--all", action="store_true", help="sanitizers on every target")
    parser.add_argument("--compiled", type=Path, help="what native_libraries.py has compiled")
    parser.add_argument("tests", nargs="*", metavar="TEST", default=[])
    arguments = parser.parse_args()
    targets = cpu_targets() if arguments.all else cpu_targets()[-1:]
    with tempfile.TemporaryDirectory() as folder:
        tests = arguments.tests or [*NUMBERS, *POINTERS, *OMITTED]
        failed = try_sanitizers(targets, tests, arguments.compiled, Path(folder))
        tests = arguments.tests or [*NUMBERS, *OMITTED]
        failed += try_four_lanes(tests, arguments.compiled, Path(folder))
    failed += try_other_compilers()
    for failure in failed:
        print(f"error: {failure}")
    sys.exit(1 if failed else 0)


def try_sanitizers(
    targets: tuple[str, ...], tests: list[str], compiled: Path | None, folder: Path
) -> list[str]:
    """Run the tests with the sanitized library of each target; return what failed."""
    failed = []
    for target in targets:
        print(f"sanitizers, {target}:", flush=True)
        try:
            library = sanitized(compiled) if compiled else compile_sanitized(folder, target)
            if status := run_sanitized(target, tests, library):
                failed.append(f"the tests under the sanitizers, {target}: status {status}")
        except BuildError as error:
            failed.append(str(error))
    return failed


def run_sanitized(target: str, tests: list[str], folder: Path) -> int:
    """Run tests with the sanitized library of a target, print its reports, return the status."""
    with tempfile.TemporaryDirectory() as reports:
        environment = {
            # before the interpreter, which was compiled without; it looks for C++'s exceptions
            "LD_PRELOAD": " ".join(map(find_file, ("libasan.so", "libstdc++.so.6"))),
            # leaks are the interpreter's and torch's own; pytest would swallow what is printed
            "ASAN_OPTIONS": f"detect_leaks=0:log_path={reports}/report",
            "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={reports}/report",
        }
        status = run_pytest(target, tests, folder, **environment)
        for report in Path(reports).glob("report.*"):
            print(report.read_text())
    return status


def try_four_lanes(tests: list[str], compiled: Path | None, folder: Path) -> list[str]:
    """Run the tests with vectors of four floats, on x86-64; return what failed."""
    if not has_four_lanes():
        return []
    print("four lanes, as for ARM:", flush=True)
    try:
        library = four_lanes(compiled) if compiled else compile_four_lanes(folder)
    except BuildError as error:
        return [str(error)]
    return ["the tests with four lanes"] if run_pytest("avx2", tests, library) else []


def run_pytest(target: str, tests: list[str], folder: Path, **environment: str) -> int:
    """Run tests with the library of a target in a folder and return pytest's status."""
    if not compilation.library_path(target, folder).is_file():  # else the tests would be skipped
        print(f"there is no {compilation.library_path(target, folder)}")
        return 1
    where = {"XLSTM_RL_NATIVE": target, "XLSTM_RL_NATIVE_FOLDER": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "auto", *tests]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **where, **environment}).returncode


def find_file(name: str) -> str:
    """Return the path of one of the compiler's libraries."""
    command = [*compilation.find_compiler(), f"-print-file-name={name}"]
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
                made = compilation.build(Path(folder), ("-Werror",), [compiler], machine)
            except BuildError as error:
                failed.append(str(error))
            else:
                print(f"{compiler}: {', '.join(path.name for path in made)}")
    return failed


if __name__ == "__main__":
    main()

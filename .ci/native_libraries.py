"""Compile the C code as check_native.py tests it: for gcc's sanitizers, and with four lanes.

It needs a C compiler and nothing but Python's own library, so that .ci/run compiles on the core
that is idle while the environment is installed.

Usage: native_libraries.py FOLDER
"""

import importlib.util
import platform
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def _compilation() -> Any:
    """Load the package's file by its path, as setup.py does: without torch."""
    path = ROOT / "kernels" / "native" / "compilation.py"
    spec = importlib.util.spec_from_file_location("compilation", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


compilation = _compilation()
BuildError: type[Exception] = compilation.BuildError


def main() -> None:
    """Compile both; exit with status 1 if either fails."""
    if len(sys.argv) != 2:
        sys.exit(str(__doc__))
    try:
        print(compile_sanitized(Path(sys.argv[1])))
        if has_four_lanes():
            print(compile_four_lanes(Path(sys.argv[1])))
    except BuildError as error:
        sys.exit(f"error: {error}")


def sanitized(folder: Path) -> Path:
    """Where the library for the sanitizers lies."""
    return folder / "sanitized"


def four_lanes(folder: Path) -> Path:
    """Where the library with vectors of four floats lies."""
    return folder / "four_lanes"


def compile_sanitized(folder: Path, target: str | None = None) -> Path:
    """Compile one target for the sanitizers, the narrowest if none is named; return its folder."""
    target = target or ("avx2" if has_four_lanes() else "neon")
    flags = ("-Werror", *compilation.SANITIZE)
    compilation.build(sanitized(folder), flags, targets=(target,))
    return sanitized(folder)


def has_four_lanes() -> bool:
    """Whether this is x86-64, where four lanes are not what is compiled anyway."""
    return platform.machine().lower() in compilation.X86


def compile_four_lanes(folder: Path) -> Path:
    """Compile the target of AVX2 with the vectors of 64-bit ARM, and return its folder."""
    machines, flags = compilation.TARGETS["avx2"]
    compilation.TARGETS["avx2"] = (machines, ("-msse4.1",))
    try:
        compilation.build(four_lanes(folder), ("-Werror",), targets=("avx2",))
    finally:
        compilation.TARGETS["avx2"] = (machines, flags)
    return four_lanes(folder)


if __name__ == "__main__":
    main()

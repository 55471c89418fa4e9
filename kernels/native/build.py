"""Compile the library in place: for a developer, or where a compiler came after the package.

python -m xlstm_rl.kernels.native.build

`$CC` names another compiler than cc, gcc or clang.
"""

import argparse
import sys

from xlstm_rl.kernels.native.compilation import SANITIZE, BuildError, build


def main() -> None:
    """Build the libraries of this machine's targets and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m xlstm_rl.kernels.native.build")
    parser.add_argument(
        "--sanitize", action="store_true", help="with AddressSanitizer and UBSan, for the tests"
    )
    parser.add_argument("--werror", action="store_true", help="fail on a warning")
    options = parser.parse_args()
    extra = (*(SANITIZE if options.sanitize else ()), *(("-Werror",) if options.werror else ()))
    try:
        for path in build(extra=extra):
            print(path)
    except BuildError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""Compile the library: for a developer, or where a compiler came after the package.

python -m xlstm_rl.kernels.native.build

`$CC` names another compiler than cc, gcc or clang, `$XLSTM_RL_NATIVE_FOLDER` another folder.
"""

import sys

from xlstm_rl.kernels.native.compilation import BuildError, build
from xlstm_rl.kernels.native.library import folder


def main() -> None:
    """Build the libraries of this machine's targets and say where they are."""
    try:
        for path in build(folder()):
            print(path)
    except BuildError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

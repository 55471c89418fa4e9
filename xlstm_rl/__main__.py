"""`python -m xlstm_rl` is `xlstm-rl`."""

import sys

from xlstm_rl.cli import main

if __name__ == "__main__":
    sys.exit(main())

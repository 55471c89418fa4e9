"""Cases of Triton's interpreter, a fifth of the suite's time: unchanged, a share of them.

`RECORD` says with which sources and versions all of them passed. As long as these are the same, one
in `SHARE` runs a day, another one each day; the others are marked `slow`. With any change all run.

    python -m tests.unchanged_kernels      # run all of them, and write the record if they pass
"""

import hashlib
import json
import os
import subprocess
import sys
import zlib
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "tests" / "kernels" / "triton" / "passed.json"
SHARE = 4
TESTS = "tests/kernels", "tests/memory"
SOURCES = "kernels", "xlstm_rl/memory", *TESTS
"""What such a case runs, but for C code."""
_ALL = "XLSTM_RL_ALL_KERNELS"


def mark_what_is_unchanged(items: list[pytest.Item], today: date | None = None) -> None:
    """Mark as slow what another day runs, unless something differs from the record."""
    if os.environ.get(_ALL) or torch.cuda.is_available() or recorded() != state():
        return
    turn = (today or date.today()).toordinal() % SHARE
    for item in items:
        if is_interpreted(item.nodeid) and zlib.crc32(item.nodeid.encode()) % SHARE != turn:
            item.add_marker(pytest.mark.slow)


def is_interpreted(nodeid: str) -> bool:
    """Whether a test runs Triton's kernels: it stands beside them, or its case is named so."""
    if not nodeid.startswith(tuple(f"{folder}/" for folder in TESTS)):
        return False  # what it runs is not in the record
    return nodeid.startswith("tests/kernels/triton/") or "triton" in nodeid.partition("[")[2]


def state() -> dict[str, str]:
    """Return the hash of what these tests run, and the versions of what runs it."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "/native/" not in name:
                digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return {"sources": digest.hexdigest(), "triton": _version("triton"), "torch": _version("torch")}


def recorded() -> dict[str, str]:
    """Return the state in which all of them passed; nothing: no record can be read."""
    try:
        found: dict[str, str] = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _version(name: str) -> str:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return "none"


def main() -> int:
    """Run all of them; write the record if they pass."""
    before = state()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "triton",
        "tests/kernels",
        "tests/memory",
    ]
    status = subprocess.run(command, cwd=ROOT, env={**os.environ, _ALL: "1"}).returncode
    if status == 0 and state() == before:
        RECORD.write_text(json.dumps(before, indent=1) + "\n")
        print(f"wrote {RECORD.relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())

"""What kernels came out as, by their source, their specialisation and the version of Triton."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import triton

from kernel_check.compilation import Build, Job

SHARE = 20  # one in so many is compiled again, so that each had its turn after as many days
_DAY = 24 * 60 * 60


@dataclass
class Record:
    """The builds of kernels by their fingerprints."""

    builds: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read a record; one that is not there knows nothing."""
        return cls(json.loads(path.read_text()) if path.exists() else {})

    @classmethod
    def made_of(cls, jobs: Mapping[str, Job], builds: Mapping[int, Build]) -> "Record":
        """Make a record of what was compiled."""
        kept = {}
        for n, (specialization, job) in enumerate(jobs.items()):
            kept[_fingerprint(specialization, job)] = asdict(replace(builds[n], seconds=0.0))
        return cls(kept)

    def write(self, path: Path) -> None:
        """Write one line a kernel, sorted, so that a change shows what changed."""
        items = sorted(self.builds.items())
        lines = (f"{json.dumps(key)}: {json.dumps(build)}" for key, build in items)
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")

    def of(self, jobs: Mapping[str, Job]) -> dict[int, Build]:
        """Return the builds of those jobs that are as they were, by their place."""
        keys = (_fingerprint(*item) for item in jobs.items())
        return {n: Build(**self.builds[key]) for n, key in enumerate(keys) if key in self.builds}

    def due(self, number: int) -> set[int]:
        """Return the places among so many jobs that are compiled today although they are known."""
        today = int(time.time() // _DAY)
        return set(range(today % min(SHARE, number), number, SHARE)) if number else set()


def _fingerprint(specialization: str, job: Job) -> str:
    source = job.kernel.cache_key  # a hash of its source and of all that it calls
    text = f"{triton.__version__} {source} {specialization}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]

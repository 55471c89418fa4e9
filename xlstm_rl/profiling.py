"""Where the time of a run goes, part by part."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

import torch

PARTS = (
    "environment",
    "acting",
    "storage",
    "values",
    "advantages",
    "forward",
    "backward",
    "optimizer",
    "logging",
)
"""What a run does, in its order. What lies between them is `other`."""


class Profile:
    """Measures the parts of a run: give it to `learn(profile=...)`, then print its `table()`.

    Parts do not overlap. On a CUDA device each waits for the device at its ends, so that the time
    of a kernel is that of the part that launched it; the run is then slower than without.

    Args:
        device: where the policy is.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._waits = torch.device(device).type == "cuda"
        self._parts = {name: _Part(self._waits) for name in PARTS}
        self._before = dict.fromkeys(PARTS, 0.0)
        self._elapsed = 0.0
        self._steps = 0
        self.floors: dict[str, float] = {}
        """Seconds that the products of a part would take alone, as measured by `agents.floors`."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Return a context whose time counts as that of a part."""
        return self._parts[name]

    def rollout(self, steps: int, elapsed: float) -> dict[str, float]:
        """Count a rollout and its update.

        Args:
            steps: environment steps in it.
            elapsed: seconds that it took in all.

        Returns:
            Seconds of each part since the last call, as `profile/PART`, for the log. The time of
            logging itself stands in the next row.
        """
        now = {name: part.seconds for name, part in self._parts.items()}
        spent = {name: now[name] - self._before[name] for name in PARTS}
        self._before = now
        self._steps += steps
        self._elapsed += elapsed
        other = max(0.0, elapsed - sum(s for name, s in spent.items() if name != "logging"))
        return {f"profile/{name}": seconds for name, seconds in (*spent.items(), ("other", other))}

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part and of `other`, over all rollouts."""
        found = {name: part.seconds for name, part in self._parts.items()}
        others = self._elapsed - sum(s for name, s in found.items() if name != "logging")
        return {**found, "other": max(0.0, others)}

    def table(self) -> str:
        """Return the parts as lines of text: seconds, share, time a step, and beside the floor."""
        found = self.seconds()
        whole = sum(found.values()) or 1.0
        steps = max(self._steps, 1)
        lines = [f"{'part':14}{'seconds':>9}{'share':>7}{'us/step':>9}{'floor':>9}{'ratio':>7}"]
        for name, seconds in (*found.items(), ("all", whole)):
            floor = sum(self.floors.values()) if name == "all" else self.floors.get(name)
            beside = f"{floor:9.2f}{seconds / floor:7.1f}" if floor else ""
            lines.append(
                f"{name:14}{seconds:9.2f}{seconds / whole:7.1%}{seconds / steps * 1e6:9.1f}{beside}"
            )
        if self.floors:
            lines.append(
                "floor: seconds of the matrix products alone, at the rate of large ones here"
            )
        return "\n".join(lines)

    def set_floors(self, per_step: Mapping[str, float]) -> None:
        """Take the floor of parts, in seconds an environment step."""
        self.floors = {name: seconds * self._steps for name, seconds in per_step.items()}


class _Part:
    """Sums up the time between entering and leaving."""

    def __init__(self, waits: bool) -> None:
        self.seconds = 0.0
        self._waits, self._began = waits, 0.0

    def __enter__(self) -> None:
        if self._waits:
            torch.cuda.synchronize()
        self._began = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._waits:
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - self._began


class _NoProfile(Profile):
    """Measures nothing."""

    def part(self, name: str) -> AbstractContextManager[None]:
        return _NOTHING

    def rollout(self, steps: int, elapsed: float) -> dict[str, float]:
        return {}


_NOTHING = nullcontext()
NO_PROFILE: Profile = _NoProfile()
"""For runs that nobody measures: a part of it costs a tenth of a microsecond."""

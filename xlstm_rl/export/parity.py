"""Whether an exported file acts as its policy does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xlstm_rl.envs.spaces.leaves import space_leaves, take
from xlstm_rl.errors import ExportError
from xlstm_rl.export.step import ExportedStep

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]
TOLERANCE = 1e-4
_ROWS, _RESET_EVERY = 3, 40


def largest_difference(
    step: ExportedStep, run: Run, steps: int = 1000, seed: int = 0
) -> tuple[float, str]:
    """Let both act on the same observations, each going on from its own state.

    Observations are samples of the space; episodes end at random, every 40 steps on average.

    Args:
        step: of the policy.
        run: what runs the file.
        steps: how many, for three environments.
        seed: of observations and resets.

    Returns:
        The largest difference, relative to numbers above 1, and the output in which it was.
    """
    rng = np.random.default_rng(seed)
    space = step.policy.observation_space
    space.seed(seed)
    theirs = mine = _zero_state(step)
    worst, where = 0.0, ""
    for number in range(steps):
        inputs = _inputs(step, rng, number)
        expected = _own(step, inputs | theirs)
        found = run(inputs | mine)
        for name, value in expected.items():
            difference = _difference(found[name], value)
            if not difference <= worst:  # NaN is the worst of all
                worst, where = difference, name
        theirs, mine = (
            {name.replace("next.", "state.", 1): x for name, x in each.items() if "next." in name}
            for each in (expected, found)
        )
    return worst, where


def check(step: ExportedStep, run: Run, what: str) -> float:
    """Return the largest difference over 1,000 steps.

    Raises:
        ExportError: it is above 1e-4.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # steps are small: threads would wait for each other
    try:
        worst, where = largest_difference(step, run)
    finally:
        torch.set_num_threads(threads)
    if not worst <= TOLERANCE:
        raise ExportError(
            f"{what} differs from its policy by {worst:.2g} in {where!r} within 1,000 steps, "
            f"expected {TOLERANCE:g} at most: nothing was written"
        )
    return worst


def _zero_state(step: ExportedStep) -> Arrays:
    return {port.name: port.example(_ROWS).numpy() for port in step.ports.state}


def _inputs(step: ExportedStep, rng: np.random.Generator, number: int) -> Arrays:
    space = step.policy.observation_space
    samples = [space.sample() for _ in range(_ROWS)]
    found: Arrays = {}
    for port, leaf in zip(step.ports.observation, space_leaves(space), strict=True):
        rows = np.stack([np.asarray(take(sample, leaf.path)) for sample in samples])
        # a space without bounds is sampled from a wide law, which only tries the clipping
        found[port.name] = rows.astype(str(port.dtype).split(".")[-1])
    found["reset"] = (rng.random(_ROWS) < 1 / _RESET_EVERY) | (number == 0)
    for port in step.ports.others[1:]:
        if port.name == "reward":
            found["reward"] = rng.normal(size=_ROWS).astype(np.float32)
        else:
            mask = rng.random((_ROWS, *port.shape)) < 0.7
            found["action_mask"] = mask | ~mask.any(1, keepdims=True)
    return found


def _own(step: ExportedStep, inputs: Arrays) -> Arrays:
    with torch.no_grad():
        found = step(*(torch.from_numpy(inputs[name]) for name in step.ports.input_names))
    return {name: x.numpy() for name, x in zip(step.ports.output_names, found, strict=True)}


def _difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if not expected.size:
        return 0.0
    a, b = found.astype(np.float64), expected.astype(np.float64)
    return float((np.abs(a - b) / np.maximum(np.abs(b), 1.0)).max())

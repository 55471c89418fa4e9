"""The cases: what is run, at which shapes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from gpu import floors, ours
from gpu.acting import policy_step
from gpu.floors import Work

DTYPES = (torch.bfloat16, torch.float32)
HIDDEN = 128  # H D of every sLSTM, so that the head size is all that differs
MLSTM = ((256, 128, 4, 32), (64, 512, 4, 64), (16, 2048, 8, 64), (4, 8192, 8, 128))
SLSTM_HEADS, SLSTM_BATCHES, SLSTM_LENGTHS = (16, 32, 64, 128), (16, 256, 2048), (128, 1024)
STEP_BATCHES = (4096, 1)
TINY = {"B": 2, "T": 3, "H": 1, "K": 16, "V": 16, "D": 16, "C": 8}


@dataclass(frozen=True)
class Case:
    """One operation at one shape and dtype.

    Args:
        op: mlstm, slstm, mlstm_step, slstm_step, conv_step or policy_step.
        shape: the sizes, by the letters of the documentation.
        dtype: of the inputs.
        work: what has to be moved and done.
        state_bytes: for a step: the size of its state.
        setups: makes inputs on a device and returns what prepares each contender; `None` in place
            of `work` until then for the policy, whose size only its modules know.
    """

    op: str
    shape: dict[str, int]
    dtype: torch.dtype
    work: Work | None
    setups: Callable[[torch.device], tuple[Work, ours.Setups]]
    state_bytes: int = 0

    @property
    def name(self) -> str:
        """Operation, sizes and dtype in one line."""
        sizes = " ".join(f"{letter}={size}" for letter, size in self.shape.items())
        return f"{self.op} {sizes} {str(self.dtype).removeprefix('torch.')}"


def all_cases(tiny: bool = False, with_rivals: bool = True) -> Iterator[Case]:
    """Every case; `tiny`: the same, each shrunk to a size for a CPU (many become equal)."""
    for dtype in DTYPES:
        for B, T, H, K in MLSTM:
            shape = {"B": B, "T": T, "H": H, "K": K, "V": K}
            yield _sequence("mlstm", shape, dtype, tiny, with_rivals)
    for dtype in DTYPES:
        for D in SLSTM_HEADS:
            for B in SLSTM_BATCHES:
                for T in SLSTM_LENGTHS:
                    shape = {"B": B, "T": T, "H": HIDDEN // D, "D": D}
                    yield _sequence("slstm", shape, dtype, tiny, with_rivals)
    for dtype in DTYPES:
        for B in STEP_BATCHES:
            yield _step("mlstm_step", {"B": B, "H": 4, "K": 64, "V": 64}, dtype, tiny)
            yield _step("slstm_step", {"B": B, "H": 4, "D": 32}, dtype, tiny)
            yield _step("conv_step", {"B": B, "C": 256, "W": 4}, dtype, tiny)
    for B in STEP_BATCHES[::-1]:
        shape = {"B": 2 if tiny else B, "width": 16 if tiny else 64}
        yield Case(
            "policy_step",
            shape,
            torch.float32,
            None,
            partial(policy_step, shape["B"], shape["width"]),
        )


def _sequence(
    op: str, shape: dict[str, int], dtype: torch.dtype, tiny: bool, with_rivals: bool
) -> Case:
    shape = _shrink(shape) if tiny else shape
    work = getattr(floors, op)(**shape, size=dtype.itemsize)

    def setups(device: torch.device) -> tuple[Work, ours.Setups]:
        return work, getattr(ours, op)(shape, dtype, device, with_rivals)

    return Case(op, shape, dtype, work, setups)


def _step(op: str, shape: dict[str, int], dtype: torch.dtype, tiny: bool) -> Case:
    shape = _shrink(shape) if tiny else shape
    work = getattr(floors, op)(**shape, size=dtype.itemsize)
    if op == "conv_step":
        state = floors.conv_state(**shape, size=dtype.itemsize)
    else:
        state = getattr(floors, f"{op.removesuffix('_step')}_state")(**shape)

    def setups(device: torch.device) -> tuple[Work, ours.Setups]:
        return work, getattr(ours, op)(shape, dtype, device)

    return Case(op, shape, dtype, work, setups, state)


def _shrink(shape: dict[str, int]) -> dict[str, int]:
    return {letter: min(size, TINY.get(letter, size)) for letter, size in shape.items()}

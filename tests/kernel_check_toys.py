"""Kernels for the tests of .ci/check_kernels.py: one that is good, and one for each fault."""

import torch
import triton
import triton.language as tl
from kernel_check.cases import Case, Subject

from xlstm_rl.kernels.launch import device_class, launch

TABLE = {"sm_80": {"small": 32, "large": 64}, ("sm_90", 16): 128, ("gfx942", 16): 128}
META = torch.device("meta")


@triton.jit
def scale_kernel(x, y, n, s, SIZE: tl.constexpr):
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(y + at, tl.load(x + at, mask=at < n, other=0.0) * s, mask=at < n)


@triton.jit
def held_kernel(x, y, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    held = tl.load(x + at)  # all of it stays in registers until the sum is known
    tl.store(y + at, held / tl.sum(held, 0))


@triton.jit
def turned_kernel(x, y, SIZE: tl.constexpr):
    row, column = tl.arange(0, SIZE)[:, None], tl.arange(0, SIZE)[None, :]
    tl.store(y + row + column * SIZE, tl.load(x + row * SIZE + column))  # by way of shared memory


@triton.jit
def wrong_kernel(x, y, SIZE: tl.constexpr):
    tl.store(y + tl.arange(0, SIZE), tl.load(x + tl.arange(0, 2 * SIZE)))


def _call(kernel, warps=4, **arguments):
    x = torch.empty(256, device="meta")
    launch(META, kernel, (1,), x=x, y=x, **arguments, num_warps=warps)


def _scale(n, name):
    row = device_class(META)
    size = TABLE[row][name] if row == "sm_80" else TABLE[row, 16]
    _call(scale_kernel, n=n, s=0.5, SIZE=size)


def good():
    for n in (1600, 3200, 1601, 1, 2**31):  # four kernels: divisible by 16, any, equal to 1, int64
        yield Case(f"small n={n}", lambda n=n: _scale(n, "small"))
    yield Case("large", lambda: _scale(1600, "large"))


def spilling():
    # all the threads that a block can have, so that each has few registers
    warps = {"sm_80": 32, "gfx942": 16}
    yield Case("held", lambda: _call(held_kernel, warps[device_class(META)], SIZE=2**18))


def wide():
    yield Case("turned", lambda: _call(turned_kernel, 16, SIZE=256))


def wrong():
    yield Case("wrong", lambda: _call(wrong_kernel, SIZE=64))
    yield Case("raises", lambda: _scale(16, "medium"))
    yield Case("idle", lambda: None)


SUBJECTS = {
    "good": Subject(good, __name__),
    "spilling": Subject(spilling, __name__),
    "wide": Subject(wide, __name__),
    "wrong": Subject(wrong, __name__),
    "untiled": Subject(lambda: iter(()), "kernel_check.cases"),
}

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from xlstm_rl.kernels.native import compilation, library, program

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("pool") / "pool.so"
    sources = [
        HERE / "pool.c",
        *(compilation.SOURCES / f"{one}.c" for one in ("parallel", "program")),
    ]
    sanitize = compilation.SANITIZE if "asan" in os.environ.get("LD_PRELOAD", "") else ()
    flags = (*compilation.FLAGS, *sanitize, f"-I{compilation.SOURCES}")
    command = [*compilation.find_compiler(), *flags, *map(str, sources)]
    subprocess.run([*command, "-o", str(path)], check=True)
    loaded = ctypes.CDLL(str(path))
    pointer = ctypes.c_void_p
    loaded.run_probe.argtypes = (
        *(ctypes.c_int, pointer, pointer),
        *(ctypes.c_float, ctypes.c_int),
    )
    loaded.run_nested.argtypes = (ctypes.c_int, ctypes.c_int, pointer)
    return loaded


def run(pool: ctypes.CDLL, n: int, threads: int, microseconds: int = 0) -> tuple[Tensor, Tensor]:
    """The worker of each index, and the bits of what it takes 1e-30 * 1e-10 for."""
    worker, denormal = torch.zeros(n, dtype=torch.int32), torch.zeros(n)
    pool.xl_set_threads(threads)
    pool.run_probe(n, worker.data_ptr(), denormal.data_ptr(), 1e-10, microseconds)
    return worker - 1000, denormal.view(torch.int32)  # 1000 once: every index ran once


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("n", [0, 1, 2, 5, 16, 1000])
def test_each_index_runs_once_in_contiguous_ranges(pool: ctypes.CDLL, n: int, threads: int) -> None:
    parts = max(1, min(n, threads))
    starts = [n * part // parts for part in range(parts + 1)]
    expected = [w for w in range(parts) for _ in range(starts[w], starts[w + 1])]
    for _ in range(20):
        assert run(pool, n, threads)[0].tolist() == expected


def test_the_number_of_threads_is_kept_within_bounds(pool: ctypes.CDLL) -> None:
    for asked, given in ((0, 1), (-3, 1), (5, 5), (10**6, library.MAX_THREADS)):
        assert pool.xl_set_threads(asked) == given == pool.threads_now()


def test_a_call_in_a_row_runs_on_no_more_threads_than_its_memory_is_laid_out_for(
    pool: ctypes.CDLL,
) -> None:
    workers, seen = (2, 0, 1, 9), (ctypes.c_int * 4)()
    calls = (program.CallStruct * len(workers))()
    for n, (call, count) in enumerate(zip(calls, workers, strict=True)):
        call.workers, call.arguments = (
            count,
            ctypes.addressof(seen) + n * ctypes.sizeof(seen._type_),
        )
        call.function = ctypes.cast(pool.note_threads, ctypes.c_void_p).value
    whole = program.ProgramStruct(len(workers), ctypes.addressof(calls))
    pool.xl_set_threads(3)
    assert pool.xl_program(ctypes.byref(whole)) == 0
    assert list(seen) == [2, 3, 1, 3]


def test_more_threads_than_cores_work_and_fewer_again_after_them(pool: ctypes.CDLL) -> None:
    for threads in (2, 100, 256, 2, 3):
        workers, _ = run(pool, 1024, threads, microseconds=1)
        assert workers.unique().tolist() == list(range(threads))


def test_a_loop_inside_a_loop_stays_with_its_worker(pool: ctypes.CDLL) -> None:
    workers = torch.full((8, 5), -1, dtype=torch.int32)
    pool.xl_set_threads(4)
    pool.run_nested(8, 5, workers.data_ptr())
    assert workers.tolist() == [[index // 2] * 5 for index in range(8)]


def test_two_callers_at_a_time_both_get_all_of_their_indices(pool: ctypes.CDLL) -> None:
    wrong = []

    def call() -> None:
        for _ in range(200):
            workers, _ = run(pool, 33, 3)
            if (workers < 0).any() or (workers >= 3).any():
                wrong.append(workers)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_the_number_of_threads_is_the_callers_own(pool: ctypes.CDLL) -> None:
    pool.xl_set_threads(3)
    other: list[int] = []
    thread = threading.Thread(target=lambda: other.append(pool.threads_now()))
    thread.start()
    thread.join()
    assert (other, pool.threads_now()) == ([1], 3)


def test_workers_treat_denormals_as_their_caller_does(pool: ctypes.CDLL) -> None:
    try:
        assert run(pool, 8, 4)[1].ne(0).all()
        if torch.set_flush_denormal(True):
            assert run(pool, 8, 4)[1].eq(0).all()
    finally:
        torch.set_flush_denormal(False)
    assert run(pool, 8, 4)[1].ne(0).all()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_workers_of_its_own(
    pool: ctypes.CDLL, in_child: Callable[..., str]
) -> None:
    run(pool, 64, 4)
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [run(pool, 64, 4, 50) for _ in iter(stop.is_set, True)])
    busy.start()
    try:
        for _ in range(5):
            assert in_child(lambda: run(pool, 64, 4, 10)[0].unique().tolist()) == "[0, 1, 2, 3]"
    finally:
        stop.set()
        busy.join()
    assert run(pool, 64, 4, 10)[0].unique().tolist() == [0, 1, 2, 3]

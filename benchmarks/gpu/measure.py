"""Runs one case: prepares its contenders, compares their results, times them."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from gpu.cases import Case
from gpu.floors import Rates
from gpu.timing import Run, Sample, Timer, compare, paired_ratio

Row = dict[str, Any]
ORACLE = "torch, resets"
CHECKED = ("triton, resets", "triton tf32, resets")
# rival: which of ours it is held against, with the same precision and the same inputs
RIVALS = {
    "mlstm_kernels": "triton{}, resets",
    "flashrnn": "triton{}, resets",
    "torchrl lstm, resets": "triton{} projected, resets",
    "cudnn lstm": "triton{} projected",
    "cudnn lstm, resets": "triton{} projected, resets",
    "torch, resets": "triton, resets",
}


def run_case(case: Case, timer: Timer, rates: Rates, repeats: int, seconds: float) -> Row:
    """Return everything about the case in a form for JSON; times in microseconds."""
    row: Row = {"case": case.name, "op": case.op, "shape": case.shape}
    row |= {"dtype": str(case.dtype).removeprefix("torch."), "absent": {}}
    try:
        work, setups = case.setups(timer.device)
    except Exception as error:  # a package is missing, or memory: said in the report
        row["absent"]["all"] = reason(error)
        return row
    runs: dict[str, Run] = {}
    results: dict[str, object] = {}
    for name, setup in setups.items():
        try:
            runs[name] = setup()
            result = runs[name]()  # compiles
            if timer.on_gpu or case.state_bytes:  # a step's second start is no fresh state
                result = runs[name]()
        except Exception as error:
            runs.pop(name, None)
            row["absent"][name] = reason(error)
        else:
            if name == ORACLE or name in CHECKED:
                results[name] = result
            del result
        timer.sync()  # after a fault in a kernel nothing else can be measured: stop here
    row["errors"] = {
        name: worst_difference(results[name], results[ORACLE])
        for name in CHECKED
        if name in results and ORACLE in results
    }
    results.clear()
    samples = compare(runs, timer, repeats, seconds)
    kind = "bfloat16" if case.dtype is torch.bfloat16 else "float32"
    floor = rates.floor(work, kind)
    row |= asdict(work) | {"floor_us": 1e6 * floor, "state_bytes": case.state_bytes}
    row["bytes_us"] = 1e6 * work.bytes / rates.copy
    row["operations_us"] = 1e6 * work.operations / asdict(rates)[kind]
    row["contenders"] = {name: _figures(sample, floor) for name, sample in samples.items()}
    if case.state_bytes:
        once = 2 * case.state_bytes / rates.copy  # to read and write the state alone
        for name, sample in samples.items():
            row["contenders"][name]["ratio_to_state"] = sample.median / once
    row["ratios"] = _ratios(samples, "" if kind == "bfloat16" else " tf32")
    return row


def reason(error: Exception) -> str:
    """The kind of an error and its first line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


def worst_difference(ours: object, oracle: object) -> float:
    """The largest norm of a difference over the norm, over all outputs and gradients."""

    def difference(a: Tensor, b: Tensor) -> float:
        a, b = a.float(), b.float()
        return float((a - b).norm() / b.norm().clamp_min(1e-30))

    assert isinstance(ours, tuple) and isinstance(oracle, tuple)
    return max(difference(a, b) for a, b in zip(ours, oracle, strict=True))


def _figures(sample: Sample, floor: float) -> Row:
    times = sorted(sample.device)
    return {
        "us": 1e6 * sample.median,
        "fastest_us": 1e6 * times[0],
        "slowest_us": 1e6 * times[-1],
        "runs": len(times),
        "wall_us": 1e6 * min(sample.wall or times),
        "ratio_to_floor": sample.median / floor,
    }


def _ratios(samples: dict[str, Sample], tf32: str) -> Row:
    """Cost of resets, and how many times as long as ours each rival takes."""
    ratios: Row = {}
    if "triton" in samples and "triton, resets" in samples:
        ratios["cost of resets"] = paired_ratio(samples["triton, resets"], samples["triton"]) - 1
    for rival, name in RIVALS.items():
        ours = name.format(tf32)
        if rival in samples and ours in samples:
            ratios[f"{rival} / {ours}"] = paired_ratio(samples[rival], samples[ours])
    for name in ("graph replay", "actor, graph", "actor, eager"):
        if name in samples and "smallest graph" in samples:
            ratios[f"{name} / smallest graph"] = paired_ratio(
                samples[name], samples["smallest graph"]
            )
    return ratios

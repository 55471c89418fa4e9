"""Exported policies beside Python: the same returns, and the time of a step for one environment.

    python benchmarks/exports.py RUN... [--episodes 20] [--trust-code] [--out FILE.json]

Each run is exported to every format, with `--check`, and plays the same episodes: by `evaluate`, by
`xlstm-rl eval`, and through each file. `c` is compiled as the check compiles it, with -O2; `c
native` with -O3 for this machine. A step is that of one environment: the call of `policy.actor()`,
NumPy in and out; of `InferenceSession.run` or of the program with its inputs at hand; of the
function in C, by ctypes. Times are CPU times of one thread, over rounds in which all take turns: of
the fastest round, and the median. `differs` is the largest difference of a return.
"""

import argparse
import contextlib
import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlstm_rl import evaluate, load_policy
from xlstm_rl.cli.main import main as run_command
from xlstm_rl.envs.spaces.leaves import space_leaves, take
from xlstm_rl.export import export_policy, through_file
from xlstm_rl.export.c.compiled import CompiledPolicy
from xlstm_rl.export.ports import ports_of
from xlstm_rl.policy import Policy

FILES = {
    "onnx": ("policy.onnx", "onnx", False),
    "pt2": ("policy.pt2", "pt2", False),
    "c": ("policy.c", "c", False),
    "c int8": ("small.c", "c", True),
}
ROUNDS, STEPS = 20, 100


def one_input(policy: Policy) -> dict[str, Any]:
    """Return what a file reads in one step for one environment, beside the state."""
    policy.observation_space.seed(0)
    obs, ports = policy.observation_space.sample(), ports_of(policy)
    found = {port.name: port.example(1).numpy() for port in ports.inputs}
    for port, leaf in zip(ports.observation, space_leaves(policy.observation_space), strict=True):
        found[port.name] = np.asarray(take(obs, leaf.path))[None].astype(found[port.name].dtype)
    return found | {name: np.ones_like(found[name]) for name in found if name == "action_mask"}


def steps_of(policy: Policy, folder: Path) -> dict[str, Callable[[], Any]]:
    """Return one step for one environment of each kind."""
    import onnxruntime

    given = one_input(policy)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "policy.onnx"), options)
    program = torch.export.load(folder / "policy.pt2").module()
    tensors = [torch.from_numpy(x) for x in given.values()]
    actor, obs = policy.actor(), policy.observation_space.sample()
    mask = given["action_mask"][0] if "action_mask" in given else None
    actor(obs, reset=True, reward=0.0, action_mask=mask)
    found: dict[str, Callable[[], Any]] = {
        "python": lambda: actor(obs, reward=0.0, action_mask=mask),
        "onnx": lambda: session.run(None, given),
        "pt2": lambda: program(*tensors),
    }
    widest = ("-std=c99", "-O3", "-march=native", "-ffp-contract=fast")
    for name, file, flags in (
        ("c", "policy.c", ()),
        ("c native", "policy.c", (widest,)),
        ("c int8", "small.c", ()),
        ("c int8 native", "small.c", (widest,)),
    ):
        compiled = CompiledPolicy(folder / file, *flags)
        compiled.give({key: x[0] for key, x in given.items()})
        found[name] = compiled.bound_step()
        found[name].owner = compiled  # type: ignore[attr-defined]
    return found


def times(steps: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, float]]:
    """Return the microseconds of a step of each kind: least and median."""
    each: dict[str, list[float]] = {name: [] for name in steps}
    with torch.no_grad():
        for _ in range(ROUNDS):
            for name, step in steps.items():
                step()
                began = time.thread_time()
                for _ in range(STEPS):
                    step()
                each[name].append((time.thread_time() - began) / STEPS * 1e6)
    return {name: (min(found), statistics.median(found)) for name, found in each.items()}


def figures(run: str, episodes: int, trust_code: bool) -> dict[str, Any]:
    """Return mean and deviation of the returns by each way, and times."""
    policy = load_policy(run, trust_code=trust_code)
    trust = ["--trust-code"] if trust_code else []
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run_command(["eval", run, "--episodes", str(episodes), "--json", *trust])
    said = json.loads(printed.getvalue())
    found = {"python": list(evaluate(policy, episodes=episodes).returns)}
    found["command line"] = said["returns"]
    with tempfile.TemporaryDirectory() as name:
        folder, sizes = Path(name), {}
        for way, (file, format, int8) in FILES.items():
            path = export_policy(policy, folder / file, format, check=True, int8=int8)
            weights = path.with_suffix(".weights")
            sizes[way] = (weights if weights.exists() else path).stat().st_size
            found[way] = list(evaluate(through_file(policy, path), episodes=episodes).returns)
        spent = times(steps_of(policy, folder))
    return {"env": said["env"], "returns": found, "bytes": sizes, "microseconds": spent}


def main() -> None:
    """Print a table for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--trust-code", action="store_true", help="as of xlstm-rl eval")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread")
    everything = {}
    for run in options.runs:
        everything[run] = result = figures(run, options.episodes, options.trust_code)
        print(f"\n{result['env']}, {options.episodes} episodes")
        print(f"  {'':14s} {'return':>21s} {'differs':>9s}   least  median        size")
        exact = result["returns"]["python"]
        for way in [*result["returns"], "c native", "c int8 native"]:
            own = result["returns"].get(way)
            mean = "" if own is None else f"{np.mean(own):10.3f} +- {np.std(own):.3f}"
            same = "" if own is None else f"{np.abs(np.subtract(own, exact)).max():.2g}"
            spent = result["microseconds"].get(way)
            time_text = "" if spent is None else f"{spent[0]:7.1f} {spent[1]:7.1f} us"
            size = result["bytes"].get(way)
            size_text = "" if size is None else f"{size / 2**10:8.0f} KiB"
            print(f"  {way:14s} {mean:22s} {same:>8s} {time_text:20s}{size_text}")
    if options.out:
        options.out.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()

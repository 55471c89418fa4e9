"""Do agents learn alike in C and in torch? The same seeds on both, curve over curve.

    python benchmarks/native_curves.py --runs FOLDER [--seeds 5] [--out FILE.json] [--plot FILE.png]

Trains each configuration with each seed on both backends, one thread, and draws the mean of the
curves with its 95 % bootstrap interval. A run whose folder is complete is not trained again. The
table has both means at quarters of the budget, and the interval of their difference: the backends
agree where 0 is in it.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xlstm_rl.config import load_yaml
from xlstm_rl.runs.curves import read_curve

CONFIGS = ("cartpole_novel", "parity", "associative_recall")
BACKENDS = {"native": "1", "torch": "0"}
POINTS = 40

Curves = npt.NDArray[np.float64]


def train(folder: Path, config: str, seed: int, switch: str) -> None:
    """Train a run to its end, unless that was done before."""
    if (folder / "checkpoints").is_dir() and (folder / "metrics.csv").is_file():
        return
    command = [sys.executable, "-m", "xlstm_rl", "train", "--config", config, "--seed", str(seed)]
    environment = os.environ | {"XLSTM_RL_NATIVE": switch, "OMP_NUM_THREADS": "1"}
    command += ["--threads", "1", "--run-dir", str(folder)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def curves(folders: list[Path], steps: npt.NDArray[np.float64]) -> Curves:
    """Return the curves ``[seeds, steps]``."""
    found = [read_curve(folder) for folder in folders]
    return np.stack([np.interp(steps, one.steps, one.values) for one in found])


def interval(samples: Curves) -> tuple[Any, Any]:
    """Return the 95 % bootstrap interval of the mean over seeds, for each step."""
    picks = np.random.default_rng(0).integers(len(samples), size=(10_000, len(samples)))
    low, high = np.percentile(samples[picks].mean(1), [2.5, 97.5], axis=0)
    return low, high


def compare(runs: Path, config: str, seeds: int) -> dict[str, Any]:
    """Return steps, both groups of curves and the interval of the difference of their means."""
    folders = {b: [runs / b / f"{config}{s}" for s in range(seeds)] for b in BACKENDS}
    total = load_yaml(folders["native"][0] / "config.yaml")["total_steps"]
    first = max(read_curve(one).steps[0] for each in folders.values() for one in each)
    steps = np.linspace(first, total, POINTS)
    both = {backend: curves(each, steps) for backend, each in folders.items()}
    rng = np.random.default_rng(0)
    means = {
        backend: each[rng.integers(seeds, size=(10_000, seeds))].mean(1)
        for backend, each in both.items()
    }
    low, high = np.percentile(means["native"] - means["torch"], [2.5, 97.5], axis=0)
    return {"steps": steps, **both, "difference": (low, high)}


def report(config: str, found: dict[str, Any]) -> None:
    """Print the table of a configuration."""
    low, high = found["difference"]
    for quarter in (1, 2, 3, 4):
        at = quarter * POINTS // 4 - 1
        means = "".join(f"{found[backend][:, at].mean():10.3g}" for backend in BACKENDS)
        agree = "agree" if low[at] <= 0 <= high[at] else "differ"
        step, bounds = found["steps"][at], f"{low[at]:10.3g}{high[at]:10.3g}"
        print(f"{config:20}{step:10.0f}{means}{bounds}  {agree}")


def draw(path: Path, results: dict[str, dict[str, Any]]) -> None:
    """Draw all curves over each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(results), 3.2), layout="constrained")
    for axes, (config, found) in zip(
        figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True
    ):
        for backend in BACKENDS:
            low, high = interval(found[backend])
            axes.plot(found["steps"], found[backend].mean(0), label=backend)
            axes.fill_between(found["steps"], low, high, alpha=0.2)
        axes.set(title=config, xlabel="environment steps", ylabel="return")
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="where the run folders are made")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--configs", nargs="+", default=list(CONFIGS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    results = {}
    print(f"{'':20}{'step':>10}{'native':>10}{'torch':>10}{'least':>10}{'most':>10}")
    for config in arguments.configs:
        for seed in range(arguments.seeds):
            for backend, switch in BACKENDS.items():
                train(arguments.runs / backend / f"{config}{seed}", config, seed, switch)
        results[config] = compare(arguments.runs, config, arguments.seeds)
        report(config, results[config])
    if arguments.plot:
        draw(arguments.plot, results)
    if arguments.out:
        plain = json.dumps(results, default=lambda array: np.round(array, 4).tolist())
        arguments.out.write_text(plain + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

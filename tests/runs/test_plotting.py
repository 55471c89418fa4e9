from pathlib import Path

import numpy as np
import pytest

from xlstm_rl.config import ConfigError, save_yaml
from xlstm_rl.runs.plotting import group_by_label, mean_curve, plot_runs, read_curve


def make_run(folder: Path, rows: str, **config: object) -> Path:
    folder.mkdir()
    (folder / "metrics.csv").write_text(f"step,episode/return\n{rows}")
    save_yaml({"env": {"id": "CartPole-v1"}, **config}, folder / "config.yaml")
    return folder


def test_updates_without_a_finished_episode_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "1,\n2,nan\n3,5\n4,7\n")
    curve = read_curve(run)
    assert curve.steps.tolist() == [3, 4]
    assert curve.values.tolist() == [5, 7]


def test_seeds_are_one_experiment_and_other_settings_make_the_label(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", "1,1\n", seed=0, run_dir="a", memory={"kind": "xlstm"}),
        make_run(tmp_path / "b", "1,1\n", seed=1, run_dir="b", memory={"kind": "xlstm"}),
        make_run(tmp_path / "c", "1,1\n", seed=0, run_dir="c", memory={"kind": "lstm"}),
    ]
    groups = group_by_label([read_curve(run) for run in runs])
    assert {label: len(curves) for label, curves in groups.items()} == {"xlstm": 2, "lstm": 1}


def test_the_mean_covers_the_steps_that_all_seeds_have(tmp_path: Path) -> None:
    curves = [
        read_curve(make_run(tmp_path / "a", "0,0\n10,10\n20,20\n")),
        read_curve(make_run(tmp_path / "b", "10,30\n20,20\n30,0\n")),
    ]
    steps, values = mean_curve(curves)
    np.testing.assert_array_equal(steps, [10, 20])
    np.testing.assert_array_equal(values, [20, 20])


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_figure_has_the_format_that_its_name_says(
    tmp_path: Path, suffix: str, magic: bytes
) -> None:
    runs = [make_run(tmp_path / name, "1,1\n2,2\n", seed=name) for name in ("a", "b")]
    out = plot_runs(runs, tmp_path / "plots" / f"figure{suffix}")
    assert out.read_bytes().startswith(magic)


@pytest.mark.parametrize(
    ("csv", "reason"),
    [
        (None, "cannot be read"),
        ("step\n1\n", "no column episode/return"),
        ("step,episode/return\n1,high\n", "expected numbers"),
        ("step,episode/return\n1,\n", "no episode"),
        ("", "no episode"),
    ],
)
def test_metrics_that_cannot_be_drawn_are_refused(
    tmp_path: Path, csv: str | None, reason: str
) -> None:
    if csv is not None:
        (tmp_path / "metrics.csv").write_text(csv)
    with pytest.raises(ConfigError, match=reason):
        plot_runs([tmp_path], tmp_path / "figure.png")
    assert not (tmp_path / "figure.png").exists()


def test_an_unknown_format_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"figure.bmp: expected a name that ends in .png"):
        plot_runs([tmp_path / "missing"], tmp_path / "figure.bmp")

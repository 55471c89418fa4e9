import re
from pathlib import Path

import numpy as np
import pytest

from xlstm_rl.bootstrap import bootstrap_interval
from xlstm_rl.config import ConfigError, save_yaml
from xlstm_rl.runs.curves import (
    band,
    find_runs,
    group_by_label,
    mean_curve,
    read_curve,
    smoothed,
)
from xlstm_rl.runs.plotting import _draw, plot_runs


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


def test_a_band_is_the_interval_of_the_mean_over_runs_and_as_wide_as_they_differ(
    tmp_path: Path,
) -> None:
    rows = "".join(f"{step},{{}}\n" for step in range(5))
    curves = [
        read_curve(make_run(tmp_path / str(n), rows.replace("{}", str(n)), seed=n))
        for n in range(4)
    ]
    found = band(curves)
    interval = bootstrap_interval([0.0, 1.0, 2.0, 3.0], resamples=2000)
    assert interval is not None
    np.testing.assert_allclose(found.mean, 1.5)
    np.testing.assert_allclose(found.low, interval[0])
    np.testing.assert_allclose(found.high, interval[1])
    alone = band(curves[:1])
    np.testing.assert_array_equal(alone.low, alone.high)


def test_runs_without_common_steps_have_an_empty_band(tmp_path: Path) -> None:
    curves = [
        read_curve(make_run(tmp_path / "a", "0,0\n1,1\n")),
        read_curve(make_run(tmp_path / "b", "5,0\n6,1\n")),
    ]
    assert band(curves).mean.size == 0
    assert plot_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "figure.html").exists()


@pytest.mark.parametrize("window", [1, 2, 3, 4, 99])
def test_smoothing_is_the_mean_around_each_value(window: int) -> None:
    values = np.array([1.0, 5.0, 2.0, 8.0, 3.0, 0.0])
    by_hand = []
    for n in range(6):
        around = values[max(0, n - window // 2) : n + window - window // 2]
        by_hand.append(around.mean())
    np.testing.assert_allclose(smoothed(values, window), by_hand)


def test_what_only_one_kind_of_memory_has_is_not_in_the_label(tmp_path: Path) -> None:
    xlstm = {"kind": "xlstm", "pattern": "ms", "width": 64}
    runs = [
        make_run(tmp_path / "a", "1,1\n", memory=xlstm),
        make_run(tmp_path / "b", "1,1\n", memory={"kind": "gru", "width": 64}),
        make_run(tmp_path / "c", "1,1\n", memory={"kind": "gru", "width": 32}),
    ]
    labels = group_by_label([read_curve(run) for run in runs])
    assert set(labels) == {"xlstm, width=64", "gru, width=64", "gru, width=32"}
    runs.append(make_run(tmp_path / "d", "1,1\n", memory={**xlstm, "pattern": "m"}))
    labels = group_by_label([read_curve(run) for run in runs])
    assert {"xlstm, width=64, pattern=ms", "xlstm, width=64, pattern=m", "gru, width=32"} < set(
        labels
    )


def test_options_of_the_same_name_keep_their_sections_in_the_label(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / str(n), "1,1\n", memory={"width": 8 * n}, policy={"width": 4 * n})
        for n in (1, 2)
    ]
    labels = group_by_label([read_curve(run) for run in runs])
    assert set(labels) == {"memory.width=8, policy.width=4", "memory.width=16, policy.width=8"}


def test_long_names_are_cut_to_the_fewest_options_that_tell_experiments_apart(
    tmp_path: Path,
) -> None:
    agent = {"gamma": 0.99, "gae_lambda": 0.95, "learning_rate": 0.0005, "entropy_coef": 0.01}
    runs = [
        make_run(tmp_path / "a", "1,1\n", memory={"kind": "lstm", "width": 64}, agent=agent),
        make_run(
            tmp_path / "b",
            "1,1\n",
            memory={"kind": "lstm", "width": 32},
            agent={name: 2 * value for name, value in agent.items()},
        ),
        make_run(tmp_path / "c", "1,1\n", memory={"kind": "gru", "width": 64}, agent=agent),
    ]
    labels = group_by_label([read_curve(run) for run in runs])
    assert list(labels) == ["lstm, width=64", "lstm, width=32", "gru, width=64"]


def test_a_folder_of_runs_stands_for_the_runs_in_it_each_once(tmp_path: Path) -> None:
    for name in ("a", "b/c", "b/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_run(tmp_path / name, "1,1\n")
    every = [tmp_path / name for name in ("a", "b/c", "b/d")]
    assert find_runs([tmp_path]) == every
    assert find_runs([tmp_path / "b", tmp_path / "b" / "c"]) == every[1:]
    assert find_runs([tmp_path / "b" / "d", tmp_path]) == [every[2], *every[:2]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty: cannot be read: no metrics.csv in it or below"):
        find_runs([tmp_path, tmp_path / "empty"])


@pytest.mark.parametrize("rows", ["1,\n2,nan\n", ""])
def test_runs_inside_a_folder_that_have_no_value_yet_are_left_out(
    rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    make_run(runs / "a", "1,1\n")
    for name in ("young", "younger"):
        make_run(runs / name, rows)
    out = tmp_path / "figure.svg"
    assert plot_runs([runs], out) == out
    assert capsys.readouterr().err == (
        f"xlstm-rl plot: left out, without episode/return yet: {runs}/young, {runs}/younger\n"
    )
    out.unlink()
    with pytest.raises(ConfigError, match=r"young/metrics\.csv: has no episode/return yet"):
        plot_runs([runs, runs / "young"], out)
    (runs / "a" / "metrics.csv").write_text(f"step,episode/return\n{rows}")
    with pytest.raises(ConfigError, match=r"none of the 3 runs in it .* has episode/return yet"):
        plot_runs([runs], out)
    assert not out.exists()
    assert capsys.readouterr().err == ""


def test_another_metric_is_drawn_and_a_misspelt_one_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "1,2\n2,3\n")
    (tmp_path / "a" / "metrics.csv").write_text("step,loss/entropy\n1,0.5\n2,0.25\n")
    assert read_curve(tmp_path / "a", "loss/entropy").values.tolist() == [0.5, 0.25]
    out = plot_runs([tmp_path], tmp_path / "figure.svg", "loss/entropy")
    assert "loss entropy" in out.read_text()
    with pytest.raises(ConfigError, match=r"no column loss/entropie; did you mean loss/entropy\?"):
        plot_runs([tmp_path], tmp_path / "figure.svg", "loss/entropie")


def test_the_page_needs_no_other_file_and_names_every_experiment(tmp_path: Path) -> None:
    for n in range(3):
        for seed in range(2):
            make_run(tmp_path / f"{n}-{seed}", "1,1\n2,4\n", seed=seed, env={"id": f"<E{n}>"})
    page = plot_runs([tmp_path], tmp_path / "figure.html").read_text()
    assert page.count("<svg") == 1 and "</html>" in page
    assert not re.search(r"(src|href)=\"(?!#)", page.replace("xlink:href", "href"))
    for n in range(3):
        assert f"<td>&lt;E{n}&gt;</td><td>2</td><td>2</td><td>4.00</td>" in page
    assert "<E0>" not in page


@pytest.mark.parametrize("count", [2, 6, 20])
def test_the_legend_covers_no_curve(count: int, tmp_path: Path) -> None:
    curves = []
    for n in range(count):
        rows = "".join(f"{step},{n * step}\n" for step in range(1, 30))
        run = make_run(tmp_path / str(n), rows, memory={"width": 8 + n})
        curves.append(read_curve(run))
    figure = _draw(curves, "episode/return")
    figure.canvas.draw()
    (axes,) = figure.axes
    legend = (figure.legends or [axes.get_legend()])[0]
    assert len(legend.get_texts()) == count
    box = legend.get_window_extent()
    covered = [
        line
        for line in axes.lines
        if any(box.contains(x, y) for x, y in axes.transData.transform(line.get_xydata()))
    ]
    assert covered == []
    # no two lines look alike
    looks = {(line.get_color(), str(line._dash_pattern)) for line in axes.lines}
    assert len(looks) == count
    # and the axes have kept their size
    assert axes.get_window_extent().width >= 5.0 * figure.dpi


def test_a_smoothing_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"smooth=0: expected an integer >= 1"):
        plot_runs([tmp_path], tmp_path / "figure.png", smooth=0)

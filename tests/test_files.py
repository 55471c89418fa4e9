import os
from pathlib import Path

import pytest
import torch

from xlstm_rl.config import ConfigError
from xlstm_rl.files import replacing, torch_file
from xlstm_rl.runs.loggers import LoggerConfig, make_logger
from xlstm_rl.runs.plotting import plot_runs


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for text in ("old", "new"):
        with replacing(path) as draft:
            draft.write_text(text)
            assert draft.suffix == ".json"  # some writers choose the format by it
            assert not path.exists() or path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["report.json"]


def test_an_error_or_an_interrupt_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError), replacing(path) as draft:
        assert not draft.exists()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    with replacing(tmp_path / "link") as draft:
        draft.write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "x"


def test_a_figure_that_cannot_be_drawn_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    def disk_full(self: Figure, path: Path, **options: object) -> None:
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    (tmp_path / "metrics.csv").write_text("step,episode/return\n1,1\n2,2\n")
    out = tmp_path / "figure.png"
    plot_runs([tmp_path], out)
    before = out.read_bytes()
    monkeypatch.setattr(Figure, "savefig", disk_full)
    with pytest.raises(ConfigError, match="No space left"):
        plot_runs([tmp_path], out)
    assert out.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["figure.png", "metrics.csv"]


def test_metrics_survive_an_interrupt_while_a_column_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.csv"
    logger = make_logger(LoggerConfig(), tmp_path, {})
    logger.log(1, {"a": 1.0})
    before = path.read_text()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", interrupted)
        logger.log(2, {"a": 1.0, "b": 2.0})
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["metrics.csv"]
    logger.log(2, {"a": 1.0, "b": 2.0})
    logger.close()
    assert [line[-3:] for line in path.read_text().splitlines()] == ["a,b", ".0,", "2.0"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full: Linux")
@pytest.mark.parametrize("numbers", [1, 100_000])
def test_a_full_disk_is_named_whatever_torch_says_of_it(numbers: int) -> None:
    tensors = [torch.zeros(numbers)] * 2
    with pytest.raises(OSError, match="No space left on device"), torch_file("/dev/full") as file:
        torch.save(tensors, file)


def test_other_errors_of_torch_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="of its own"), torch_file(tmp_path / "x") as file:
        file.write(b"half")
        raise RuntimeError("of its own")

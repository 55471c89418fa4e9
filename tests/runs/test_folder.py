import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xlstm_rl.config import ConfigError, load_yaml
from xlstm_rl.errors import CheckpointError
from xlstm_rl.files import replacing
from xlstm_rl.runs.folder import (
    checkpoint_steps,
    create_run_folder,
    find_checkpoint,
    latest_checkpoint,
    new_best,
    new_checkpoint,
    run_of,
)
from xlstm_rl.runs.loggers.tables import drop_rows_after, last_step


def create(run_dir: Path | None, root: Path = Path("runs")) -> Path:
    return create_run_folder(
        run_dir, {"seed": 3}, env="ALE/Pong-v5", memory="xlstm", seed=3, root=root
    )


def write(run: Path, step: int, keep: int | None = None) -> None:
    with new_checkpoint(run, step, keep) as folder:
        (folder / "policy.safetensors").write_text(str(step))


def test_a_new_folder_holds_the_resolved_configuration(tmp_path: Path) -> None:
    run = create(tmp_path / "deep" / "run")
    assert load_yaml(run / "config.yaml") == {"seed": 3}
    (tmp_path / "empty").mkdir()
    assert create(tmp_path / "empty") == tmp_path / "empty"


def test_a_draft_that_a_killed_run_left_is_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with replacing(folder / "config.yaml") as draft:
        draft.touch()
    (folder / "config.yaml").unlink()
    (folder / draft.name.replace(str(os.getpid()), "12345")).write_text("seed: ")
    assert load_yaml(create(folder) / "config.yaml") == {"seed": 3}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".notes.part.md").write_text("x")  # somebody's own
    with pytest.raises(ConfigError, match="not empty"):
        create(tmp_path / "other")


def test_what_stands_there_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "precious").write_text("x")
    file.write_text("y")
    with pytest.raises(ConfigError, match="not empty"):
        create(folder)
    with pytest.raises(ConfigError, match="a file"):
        create(file)
    with pytest.raises(ConfigError, match="cannot be made"):
        create(file / "below")
    assert os.listdir(folder) == ["precious"]
    assert file.read_text() == "y"


def test_runs_started_together_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: create(None, tmp_path / "runs"), range(16)))
    assert len(set(runs)) == 16
    assert all(run.name.startswith("Pong-v5-xlstm-seed3-") for run in runs)


def test_a_checkpoint_becomes_the_latest_when_it_is_complete(tmp_path: Path) -> None:
    write(tmp_path, 100)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "100"
    with pytest.raises(KeyboardInterrupt), new_checkpoint(tmp_path, 200) as folder:
        (folder / "policy.safetensors").write_text("half")
        raise KeyboardInterrupt
    assert latest_checkpoint(tmp_path).name == "100"
    assert os.listdir(tmp_path / "checkpoints") == ["100"]
    write(tmp_path, 200)
    assert (tmp_path / "latest").read_text().strip() == "200"
    assert sorted(os.listdir(tmp_path)) == ["checkpoints", "latest"]


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    write(tmp_path, 100)
    write(tmp_path, 100)
    assert checkpoint_steps(tmp_path) == [100]


def test_the_same_files_are_not_written_again(tmp_path: Path) -> None:
    def save(text: str) -> int:
        with new_checkpoint(tmp_path, 100) as folder:
            (folder / "policy.safetensors").write_text(text)
        return (tmp_path / "checkpoints" / "100").stat().st_ino

    first = save("a")
    assert save("a") == first
    assert save("b") != first
    assert (latest_checkpoint(tmp_path) / "policy.safetensors").read_text() == "b"
    assert os.listdir(tmp_path / "checkpoints") == ["100"]


def test_a_checkpoint_that_was_being_replaced_is_found_and_gets_its_name_back(
    tmp_path: Path,
) -> None:
    write(tmp_path, 100)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "100").rename(checkpoints / ".100.old")
    (checkpoints / ".50.part").mkdir()
    assert latest_checkpoint(tmp_path) == checkpoints / ".100.old"
    assert checkpoint_steps(tmp_path) == [100]
    write(tmp_path, 200)
    assert sorted(os.listdir(checkpoints)) == ["100", "200"]


def test_an_interrupted_removal_leaves_no_checkpoint_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 100)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed before it began
    write(tmp_path, 200, keep=1)
    assert checkpoint_steps(tmp_path) == [200]


def test_old_checkpoints_go_by_their_step_and_never_the_latest(tmp_path: Path) -> None:
    for step in (900, 1000, 11000):
        write(tmp_path, step, keep=2)
    assert checkpoint_steps(tmp_path) == [1000, 11000]
    write(tmp_path, 500, keep=1)  # a run that began anew from an early checkpoint
    assert checkpoint_steps(tmp_path) == [500, 11000]


@pytest.mark.parametrize("name", ["best", "checkpoints/7"])
def test_a_file_in_the_place_of_a_checkpoint_is_left_alone(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with (
        pytest.raises(NotADirectoryError),
        new_best(tmp_path) if name == "best" else new_checkpoint(tmp_path, 7) as draft,
    ):
        (draft / "policy.yaml").write_text("new")
    assert file.read_text() == "mine"
    assert {path.name for path in file.parent.iterdir()} == {file.name}


def test_a_checkpoint_is_its_own_latest_and_knows_its_run(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    write(run, 1)
    write(run, 2)
    first = run / "checkpoints" / "1"
    assert latest_checkpoint(first) == first
    assert run_of(first) == run
    alone = tmp_path / "alone"
    alone.mkdir()
    assert run_of(alone) == alone


def test_folders_without_a_checkpoint_are_refused_with_the_reason(tmp_path: Path) -> None:
    def reason(folder: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            latest_checkpoint(folder)
        return str(caught.value)

    assert "no such folder" in reason(tmp_path / "missing")
    assert "not a run folder" in reason(tmp_path)
    run = create(tmp_path / "run")
    assert "no checkpoint yet" in reason(run)
    assert "a file" in reason(run / "config.yaml")
    (run / "latest").write_text("soon")
    assert "expected a step" in reason(run)
    write(run, 7)
    (run / "latest").write_text("9")
    assert "name one of its checkpoints instead: 7" in reason(run)


@pytest.mark.parametrize("text", ["abc", "-5", "", "1.5", "9" * 5000])
def test_a_damaged_latest_is_said_in_one_short_line(text: str, tmp_path: Path) -> None:
    write(tmp_path, 100)
    (tmp_path / "latest").write_text(text)
    with pytest.raises(CheckpointError, match="latest: expected a step such as 10000") as refused:
        latest_checkpoint(tmp_path)
    assert len(str(refused.value)) < 200 + len(str(tmp_path))


def test_a_number_of_thousands_of_digits_names_no_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 100)
    with pytest.raises(CheckpointError, match="expected latest, best or the steps"):
        find_checkpoint(tmp_path, "9" * 5000)
    (tmp_path / "metrics.csv").write_text("step,x\n100,1\n" + "9" * 5000 + ",1\n")
    assert last_step(tmp_path) == 100
    drop_rows_after(tmp_path / "metrics.csv", 100)
    assert (tmp_path / "metrics.csv").read_text() == "step,x\n100,1\n"

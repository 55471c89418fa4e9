"""Devices that an agent cannot compute on are refused by name, with those that it can."""

from pathlib import Path

import pytest
import torch

from xlstm_rl import RecurrentPPO
from xlstm_rl.agents.device import resolve_device
from xlstm_rl.cli import main
from xlstm_rl.config import ConfigError

NAMES = ["meta", "tpu", "cuda:99", "", "fpga"]


@pytest.mark.parametrize("name", NAMES)
def test_a_device_that_computes_nothing_is_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^device='{name}' .*: expected auto, cpu") as refused:
        resolve_device(name)
    gpus = range(torch.cuda.device_count())
    assert all(f"cuda:{number}" in str(refused.value) for number in gpus)


@pytest.mark.parametrize("command", ["train", "python"])
def test_so_it_is_before_anything_is_written(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    if command == "train":
        assert main(["train", "--device", "meta", "--run-dir", str(run)]) == 2
        assert "xlstm-rl train: device='meta' cannot be used here" in capsys.readouterr().err
    else:
        with pytest.raises(ConfigError, match="device='meta' cannot be used here"):
            RecurrentPPO("CartPole-v1", device="meta", run_dir=str(run))
    assert not run.exists()

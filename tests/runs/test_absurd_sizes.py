"""Files that claim absurd sizes are refused before room is made for them."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from xlstm_rl import RecurrentPPO, load_policy
from xlstm_rl.errors import CheckpointError
from xlstm_rl.runs.folder import latest_checkpoint

LOADS: dict[str, Callable[[Path], Any]] = {
    "load_policy": load_policy,
    "RecurrentPPO.load": lambda run: RecurrentPPO.load(run).close(),
}

HEADERS = {
    "a header longer than the file": struct.pack("<Q", 2**62),
    "a header of many gigabytes": struct.pack("<Q", 2**35) + b"{}",
    "a shape beyond the file": (lambda text: struct.pack("<Q", len(text)) + text)(
        json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    ),
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("name", HEADERS)
def test_a_weights_file_of_absurd_sizes_is_refused(
    name: str, load: Callable[[Path], Any], run: Path
) -> None:
    path = latest_checkpoint(run) / "policy.safetensors"
    path.write_bytes(HEADERS[name] + b"\0" * 8)
    with pytest.raises(CheckpointError, match=r"policy\.(safetensors|yaml)") as refused:
        load(run)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize(
    "sizes",
    [{"width": 10**9}, {"width": 10**4}, {"num_blocks": 10**8}, {"width": 2**62, "num_heads": 1}],
    ids=str,
)
def test_a_description_of_absurd_sizes_is_refused(
    sizes: dict[str, int], load: Callable[[Path], Any], run: Path
) -> None:
    path = latest_checkpoint(run) / "policy.yaml"
    found = yaml.safe_load(path.read_text())
    found["memory"].update(sizes)
    path.write_text(yaml.safe_dump(found))
    with pytest.raises(CheckpointError, match=r"policy\.yaml.*was altered"):
        load(run)


def test_yaml_that_unfolds_without_end_is_refused(run: Path) -> None:
    path = latest_checkpoint(run) / "policy.yaml"
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    path.write_text("\n".join(lines) + "\n" + path.read_text())
    with pytest.raises(CheckpointError):
        load_policy(run)

from typing import Any

from xlstm_rl.runs.trust import code_names


def test_words_that_nobody_imports_are_left_alone() -> None:
    config: dict[str, Any] = {
        "device": "cuda:1",
        "run_dir": "C:runs",
        "env": {"id": "ALE/Pong-v5", "kwargs": {"mode": 3}},
        "logger": {"kind": "csv,wandb", "name": "try: one", "tags": ["lr:high"], "group": "a:b"},
        "memory": {"kind": "xlstm_rl.memory.baselines:LSTM"},
    }
    assert code_names(config) == {}
    config["env"] = {"id": "popgym:Env-v0", "wrappers": {"a.b:C": {"x": ["d:E"]}}}
    assert code_names(config) == {
        "popgym:Env-v0": "env.id",
        "a.b:C": "env.wrappers",
        "d:E": "env.wrappers.a.b:C.x",
    }

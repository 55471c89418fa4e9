"""A run of before an option was there goes on without what it does, whatever new runs have."""

from pathlib import Path
from typing import Any

import pytest

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents import resuming

ADDED = {
    "entropy_coef_end": 1.0,
    "advantage_scale_decay": 0.0,
    "log_barrier_coef": 0.0,
    "step_baseline": False,
}
SMALL: dict[str, Any] = {"env": {"num_envs": 2}, "memory": {"kind": "mlp", "width": 8}}


@pytest.mark.parametrize("algorithm", [RecurrentPPO, RecurrentA2C])
@pytest.mark.parametrize("entropy_coef", [0.0, 0.02])
def test_options_that_a_saved_run_did_not_know_change_nothing_in_it(
    algorithm: Any, entropy_coef: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, read = tmp_path / "run", resuming.read_trainer_state
    agent = {"rollout_steps": 8, "entropy_coef": entropy_coef}
    if algorithm is RecurrentPPO and not entropy_coef:
        agent["entropy_coef_end"] = 0.0
    with algorithm("CartPole-v1", run_dir=str(run), total_steps=32, agent=agent, **SMALL) as one:
        one.learn()
    with algorithm.load(run, total_steps=64) as again:  # this version's own keep what they had
        expected = 0.003 if algorithm is RecurrentPPO else 0.0
        assert again.algorithm.log_barrier_coef == expected

    def older(folder: Path) -> Any:
        state = read(folder)
        for name in (*ADDED, "log_barrier_coef_end", "log_barrier_coef_schedule"):
            del state["config"]["agent"][name]
        return state

    monkeypatch.setattr(resuming, "read_trainer_state", older)
    with algorithm.load(run, total_steps=64) as again:
        found = {name: getattr(again.algorithm, name) for name in ADDED}
        if not entropy_coef:  # of no bonus nothing is left, whatever its end
            del found["entropy_coef_end"]
        assert found == {name: ADDED[name] for name in found}
        again.learn(32)

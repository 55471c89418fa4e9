"""Callbacks of the library and of your own; evaluation while training, and afterwards.

python examples/callbacks_and_evaluation.py
"""

from xlstm_rl import (
    Callback,
    PeriodicCheckpoint,
    PeriodicEvaluation,
    RecurrentPPO,
    StopAtReturn,
    evaluate,
    load_policy,
)
from xlstm_rl.collection.rollout import Rollout
from xlstm_rl.evaluation import EvaluationStep


class EntropyFloor(Callback):
    """Stop when the policy no longer tries anything."""

    def __init__(self, least: float) -> None:
        self.least = least

    def on_rollout_end(self, rollout: Rollout) -> None:
        """Log something of your own; `rollout.data` is a TensorDict [B, T]."""
        self.agent.log({"mine/largest_reward": float(rollout.data["reward"].max())})

    def on_update(self, step: int, metrics: dict[str, float]) -> bool:
        """Return False to stop; the run is saved."""
        return metrics["loss/entropy"] > self.least


with RecurrentPPO("CartPole-v1", seed=0, run_dir="runs/callbacks") as agent:
    agent.learn(
        total_steps=50_000,
        callbacks=[
            EntropyFloor(1e-3),
            StopAtReturn(475),
            PeriodicEvaluation(10_000, episodes=10),  # keeps the best policy in best/
            PeriodicCheckpoint(20_000),
        ],
    )
    print(f"stopped after {agent.steps_done:,} steps")

for which in (None, "best"):
    policy = load_policy("runs/callbacks", which) if which else load_policy("runs/callbacks")
    result = evaluate(policy, episodes=20, seed=1)
    print(f"{which or 'last'}: {result}")

lengths: list[int] = []


def note(step: EvaluationStep) -> None:
    """Called after every step of every episode."""
    if step.step == 0:
        lengths.append(0)
    lengths[step.episode] += 1


evaluate(policy, "CartPole-v1", episodes=3, on_step=note)
print("steps of three episodes:", lengths)
